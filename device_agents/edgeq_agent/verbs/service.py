"""Verb `service`: let the agent start with the device, no longer, or tell how it is."""

from __future__ import annotations

import os
import signal
import time
from typing import Callable

from edgeq_agent.autostart import (
    at_boot,
    boot,
    choice,
    command,
    cron,
    host_env,
    installer,
    readiness,
    record,
    systemd,
    unit_files,
)
from edgeq_agent.autostart.host_env import PLAIN, SYSTEM, USER, Surroundings
from edgeq_agent.autostart.record import Installed, Wanted
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import NOT_AT_BOOT, SERVICE_IMPOSSIBLE, AgentError
from edgeq_agent.releases import agent_files, release_store
from edgeq_agent.storage import journal, lock, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

ACTIONS = ("enable", "disable", "status")
_START_S = 900.0
_STOP_S = 25.0


def service(call: Call) -> Json:
    """Verb `service`: `action` is one of ACTIONS.

    `enable` takes `kind` (the best one for the device where it is not given), `models` that are served from
    the start on, and their `port`; it starts everything once, so that what is installed was seen to work.

    Raises:
        AgentError: EQ510 a model does not serve, EQ557 installed, but nothing starts it at boot; EQ558 that
            kind of start is not possible here; EQ508 busy.
    """
    action = request.text(call.request, "action", "status")
    if action not in ACTIONS:
        raise request.bad("action", "one of " + ", ".join(ACTIONS), action)
    found = host_env.look(call.home.root)
    if action == "enable":
        return _enable(call, found)
    if action == "disable":
        return _disable(call, found)
    return dict(told(call.home, found), changed=False)


def told(home: Home, found: Surroundings) -> Json:
    """Return what is installed, what starts it, and how the last start went."""
    body = record.read(home)
    answer: Json = {
        "enabled": body is not None,
        "choice": choice.choose(found),
        "linger": found.linger if found.systemd else None,
    }
    if body is None:
        return dict(answer, kind=None, at_boot=False, why="no start is installed", models=[], units=[])
    summary = record.summary(home) or {}
    kind = str(body["kind"])
    starts, why = at_boot.judge(body, found, bool(summary["seen_at_boot"]))
    systemds = kind in (USER, SYSTEM)
    return dict(
        answer,
        kind=kind,
        at_boot=starts,
        why=why,
        models=body["models"],
        port=body["port"],
        files=body["files"],
        units=[systemd.show(kind, found, unit) for unit in body["units"]],
        serving=None if systemds else record.serving(home),
        whole=summary["whole"],
        last=summary["last"],
        seen_at_boot=summary["seen_at_boot"],
        ran_in_this_boot=summary["ran_in_this_boot"],
    )


def _wanted(call: Call, found: Surroundings) -> Wanted:
    kind = request.text(call.request, "kind", "auto")
    if kind == "auto":
        kind = choice.choose(found)
    if kind not in host_env.KINDS:
        raise request.bad("kind", "auto, " + ", ".join(host_env.KINDS), kind)
    choice.check(kind, found)
    names = request.names(call.request, "models")
    for name in names:
        release_store.need_current(call.home, name)
    port = None
    if call.request.get("port") is not None:
        port = request.integer(call.request, "port", 1, 65535)
    if port is not None and not names:
        raise request.bad("port", "models to serve with it", port)
    if agent_files.newest(call.home) is None:
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            call.home.agents,
            "has no agent that could be started",
            hint="`edgeq devices service` places one",
        )
    return Wanted(kind, tuple(names), port)


def _enable(call: Call, found: Surroundings) -> Json:
    wanted = _wanted(call, found)
    made = unit_files.installed(wanted, found)
    before = record.read(call.home)
    if before is not None:
        _stop(call.home, before, found)
    with lock.hold(call.home):
        scratch.sweep(call.home)
        stale = _stale(record.read(call.home), made)
        record.write(call.home, wanted, made, stale)
        record.forget_serving(call.home)
        installer.put(made)
        if made.crontab:
            cron.change(str(found.crontab), made.crontab, record.name_of(found, PLAIN))
        elif found.crontab and (before or {}).get("crontab"):
            cron.change(found.crontab, "", record.name_of(found, PLAIN))
        if stale:
            installer.take(stale)
            record.write(call.home, wanted, made, [])
    call.response.progress("installed", kind=wanted.kind)
    problems = _begin(call.home, wanted, made, found)
    call.response.progress("started", problems=problems)
    noted = journal.note(call.home, "service", kind=wanted.kind, models=list(wanted.models))
    answer = told(call.home, found._replace(linger=host_env.lingers(found.user)))
    if problems:
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            wanted.kind,
            "installed, but it does not start: " + "; ".join(problems)[:400],
            hint="`edgeq devices service DEVICE` shows how it is, its journal (journalctl) why; `--disable` "
            "removes it",
        )
    if answer["at_boot"] is False:
        raise AgentError(
            NOT_AT_BOOT,
            wanted.kind,
            "installed, but nothing starts it when the device starts: "
            + "; ".join([str(answer["why"]), *noted.values()]),
            hint=at_boot.hint(wanted.kind, found),
        )
    answer.update(noted)
    return dict(answer, changed=not record.same(before, record.read(call.home)))


def _begin(home: Home, wanted: Wanted, made: Installed, found: Surroundings) -> list[str]:
    """Start everything once, now; return what failed."""
    if wanted.kind not in (USER, SYSTEM):
        said = command.run([*unit_files.boot_words(found), "--supervise"], limit_s=_START_S)
        return [said.line] if said.status != 0 else _serves(home, wanted, lambda: _unsupervised(home))
    refused = systemd.reload(wanted.kind, found)
    if refused:
        return [refused]
    if wanted.kind == USER:
        systemd.let_linger(found)
    problems = systemd.start(wanted.kind, found, list(made.units))
    unit = made.units[-1]
    return problems or _serves(home, wanted, lambda: systemd.failed(wanted.kind, found, unit))


def _serves(home: Home, wanted: Wanted, failed: Callable[[], str]) -> list[str]:
    problem = readiness.wait(home, wanted, failed) if wanted.models else ""
    return [problem] if problem else []


def _unsupervised(home: Home) -> str:
    """Return why what serves without an init system failed, or ""."""
    body = record.serving(home) or {}
    return str(body.get("problem") or "")


def _stale(before: Json | None, made: Installed) -> list[str]:
    """Return the paths of an earlier start that the new one does not have."""
    if before is None:
        return []
    now = {path for path, _, _ in made.files} | {path for path, _ in made.links}
    known = [*before["links"], *before["files"], *before.get("stale", [])]
    return [path for path in known if path not in now]


def _stop(home: Home, body: Json, found: Surroundings) -> None:
    if body["units"]:
        systemd.stop(str(body["kind"]), found, list(reversed(body["units"])))
    token = boot.supervisor(home)
    if token is None:
        return
    pid = int(token.partition(".")[0])
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _STOP_S
    while boot.supervisor(home) is not None:
        if time.monotonic() >= end:
            raise AgentError(
                SERVICE_IMPOSSIBLE,
                f"process {pid}",
                f"what serves did not end within {_STOP_S:g} s",
                hint="try again in a moment",
                transient=True,
            )
        time.sleep(0.1)


def _disable(call: Call, found: Surroundings) -> Json:
    body = record.read(call.home)
    if body is None:
        return dict(told(call.home, found), changed=False)
    _stop(call.home, body, found)
    with lock.hold(call.home):
        scratch.sweep(call.home)
        if body.get("crontab") and found.crontab:
            cron.change(found.crontab, "", record.name_of(found, PLAIN))
        installer.take([*body["links"], *body["files"], *body.get("stale", [])])
        record.forget(call.home)
    if body["units"]:
        systemd.reload(str(body["kind"]), found)
    noted = journal.note(call.home, "service", kind=None, models=[])
    return dict(told(call.home, found), changed=True, **noted)
