"""What systemd is told and asked: read the units anew, start, stop, how they are."""

from __future__ import annotations

import os

from edgeq_agent.autostart import command
from edgeq_agent.autostart.command import Said
from edgeq_agent.autostart.host_env import SYSTEM, USER, Surroundings, lingers
from edgeq_agent.storage import disk
from edgeq_agent.wire import Json

# A unit's first start waits for a call that is at work, and may prove a release.
_START_S = 900.0
_SHOWN = ("LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts")


def _control(kind: str, found: Surroundings, words: list[str], limit_s: float = 60.0) -> Said:
    argv = ["systemctl", *(["--user"] if kind == USER else []), "--no-pager", *words]
    return command.run(_privileged(kind, found, argv), limit_s=limit_s)


def _privileged(kind: str, found: Surroundings, argv: list[str]) -> list[str]:
    return ["sudo", "-n", *argv] if kind == SYSTEM and found.uid != 0 else argv


def reload(kind: str, found: Surroundings) -> str:
    """Let systemd read its units anew; return what it says against it, or ""."""
    said = _control(kind, found, ["daemon-reload"])
    return "" if said.status == 0 else "systemctl daemon-reload: " + said.line


def start(kind: str, found: Surroundings, units: list[str]) -> list[str]:
    """Start units anew, each after the other; return what failed."""
    problems = []
    for unit in units:
        _control(kind, found, ["reset-failed", unit])
        said = _control(kind, found, ["restart", unit], _START_S)
        if said.status != 0:
            problems.append(f"{unit}: {said.line}")
    return problems


def stop(kind: str, found: Surroundings, units: list[str]) -> list[str]:
    """Stop units; return what failed."""
    said = _control(kind, found, ["stop", *units])
    known = said.status == 0 or "not loaded" in said.text
    return [] if known else ["systemctl stop: " + said.line]


def show(kind: str, found: Surroundings, unit: str) -> Json:
    """Return how a unit is, in systemd's own words; asking needs no rights."""
    argv = ["systemctl", *(["--user"] if kind == USER else []), "--no-pager", "show", unit]
    said = command.run([*argv, "--property=" + ",".join(_SHOWN)])
    found_words = dict(line.split("=", 1) for line in said.text.splitlines() if "=" in line)
    told = {"LoadState": "load", "ActiveState": "active", "SubState": "sub", "Result": "result"}
    body: Json = {name: found_words.get(word) for word, name in told.items()}
    for word, name in {"ExecMainStatus": "exit_status", "NRestarts": "restarts"}.items():
        value = found_words.get(word, "")
        body[name] = int(value) if value.isdigit() else None
    return dict(body, unit=unit, problem=None if said.status == 0 else said.line)


def failed(kind: str, found: Surroundings, unit: str) -> str:
    """Return why a unit that runs for long ended since it was started, or ""."""
    told = show(kind, found, unit)
    if told["active"] == "failed" or told["restarts"]:
        return "{}: {}, exit status {}".format(unit, told["result"], told["exit_status"])
    return str(told["problem"] or "")


def let_linger(found: Surroundings) -> bool:
    """Let the user's services run without a login, where that may be changed; return whether they do."""
    if lingers(found.user):
        return True
    command.run(["loginctl", "--no-ask-password", "enable-linger", found.user])
    if not lingers(found.user) and found.sudo:
        command.run(["sudo", "-n", "loginctl", "enable-linger", found.user])
    if not lingers(found.user):
        return False
    # logind does not sync it.
    disk.sync_folder(os.path.join("/var/lib/systemd", "linger"))
    return True
