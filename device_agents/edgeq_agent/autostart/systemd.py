"""systemctl wrapper: daemon-reload, start, stop and show units; loginctl's lingering."""

from __future__ import annotations

import os
from dataclasses import dataclass

from edgeq_agent.autostart import command
from edgeq_agent.autostart.command import Output
from edgeq_agent.autostart.host_env import HostEnv, has_linger
from edgeq_agent.platforms.base import SYSTEMD_SYSTEM, SYSTEMD_USER
from edgeq_agent.storage import disk
from edgeq_agent.wire import Json

# A unit's first start waits for a call that holds the lock, and may run a health check.
_START_TIMEOUT_S = 900.0
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts")


@dataclass(frozen=True)
class UnitStatus:
    """A unit's state in systemd's terms; None where systemctl did not report it."""

    unit: str
    load: str | None
    active: str | None
    sub: str | None
    result: str | None
    exit_status: int | None
    restarts: int | None
    problem: str | None

    def to_json(self) -> Json:
        """Return it as the verb `service` reports it."""
        return dict(vars(self))


def daemon_reload(kind: str, env: HostEnv) -> str:
    """Make systemd read its unit files again; return its error message, or ""."""
    output = _control(kind, env, ["daemon-reload"])
    return "" if output.status == 0 else "systemctl daemon-reload: " + output.last_line


def restart(kind: str, env: HostEnv, units: list[str]) -> list[str]:
    """Restart units one after another; return a message for each that failed."""
    problems = []
    for unit in units:
        _control(kind, env, ["reset-failed", unit])
        output = _control(kind, env, ["restart", unit], _START_TIMEOUT_S)
        if output.status != 0:
            problems.append(f"{unit}: {output.last_line}")
    return problems


def stop(kind: str, env: HostEnv, units: list[str]) -> None:
    """Stop units; one that systemd does not know counts as stopped."""
    _control(kind, env, ["stop", *units])


def show(kind: str, unit: str) -> UnitStatus:
    """Return a unit's status; this needs no rights."""
    output = command.run([*_systemctl(kind), "show", unit, "--property=" + ",".join(_PROPERTIES)])
    values = dict(line.split("=", 1) for line in output.text.splitlines() if "=" in line)
    return UnitStatus(
        unit=unit,
        load=values.get("LoadState"),
        active=values.get("ActiveState"),
        sub=values.get("SubState"),
        result=values.get("Result"),
        exit_status=_integer(values.get("ExecMainStatus", "")),
        restarts=_integer(values.get("NRestarts", "")),
        problem=None if output.status == 0 else output.last_line,
    )


def failure(kind: str, unit: str) -> str:
    """Return why a long-running unit ended after its start, or ""."""
    status = show(kind, unit)
    if status.active == "failed" or status.restarts:
        return f"{unit}: {status.result}, exit status {status.exit_status}"
    return status.problem or ""


def enable_linger(env: HostEnv) -> None:
    """Make systemd start the user's services without a login, where this user may change that."""
    if has_linger(env.user):
        return
    command.run(["loginctl", "--no-ask-password", "enable-linger", env.user])
    if not has_linger(env.user) and env.sudo:
        command.run(["sudo", "-n", "loginctl", "enable-linger", env.user])
    if has_linger(env.user):
        # logind does not sync the file that it writes.
        disk.sync_folder(os.path.join("/var/lib/systemd", "linger"))


def _systemctl(kind: str) -> list[str]:
    return ["systemctl", *(["--user"] if kind == SYSTEMD_USER else []), "--no-pager"]


def _control(kind: str, env: HostEnv, words: list[str], timeout_s: float = 60.0) -> Output:
    sudo = ["sudo", "-n"] if kind == SYSTEMD_SYSTEM and env.uid != 0 else []
    return command.run([*sudo, *_systemctl(kind), *words], timeout_s=timeout_s)


def _integer(text: str) -> int | None:
    return int(text) if text.isdigit() else None
