"""Install, remove and show the autostart: the domain logic of the verb `service`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

from edgeq_agent.autostart import (
    command,
    cron,
    host_env,
    installer,
    kinds,
    readiness,
    record,
    supervise,
    systemd,
    unit_files,
)
from edgeq_agent.autostart.host_env import HostEnv
from edgeq_agent.autostart.record import Artifacts, AutostartSummary, Record, Spec, Supervision
from edgeq_agent.autostart.systemd import UnitStatus
from edgeq_agent.errors import NOT_AT_BOOT, SERVICE_IMPOSSIBLE, AgentError
from edgeq_agent.platforms.base import PLAIN, SYSTEMD_USER
from edgeq_agent.storage import journal, lock, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

_START_TIMEOUT_S = 900.0

Progress = Callable[..., None]


@dataclass(frozen=True)
class ServiceStatus:
    """What is installed, what starts it, and how the last start went.

    Attributes:
        choice: the kind of autostart that fits the device best.
        at_boot: whether the installed one runs at boot; None when only the next restart can show it.
        why: why it does not, or may not.
        summary: what the files of the installed one say.
        units: of systemd.
        serving: the process that keeps the server running where no init system does.
    """

    choice: str
    linger: bool | None
    record: Record | None
    at_boot: bool | None
    why: str | None
    summary: AutostartSummary | None = None
    units: tuple[UnitStatus, ...] = ()
    serving: Supervision | None = None

    def to_json(self) -> Json:
        """Return the status as the verb `service` reports it."""
        body: Json = {
            "enabled": self.record is not None,
            "choice": self.choice,
            "linger": self.linger,
            "at_boot": self.at_boot,
            "why": self.why,
        }
        if self.record is None or self.summary is None:
            return dict(body, kind=None, models=[], units=[])
        return dict(
            body,
            **self.summary.to_json(),
            port=self.record.port,
            token_file=self.record.token_file,
            options=list(self.record.options),
            files=list(self.record.files),
            units=[unit.to_json() for unit in self.units],
            serving=self.serving.to_json() if self.serving else None,
        )


@dataclass(frozen=True)
class ServiceChange:
    """What installing or removing the autostart did.

    Attributes:
        status: afterwards.
        noted: why the change could not be added to the device's journal, if so.
    """

    status: ServiceStatus
    changed: bool
    noted: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the change as the verb `service` reports it."""
        return dict(self.status.to_json(), changed=self.changed, **self.noted)


def status(home: Home, env: HostEnv) -> ServiceStatus:
    """Return the status of this home's autostart."""
    installed = record.read(home)
    choice = kinds.choose(env)
    linger = env.linger if env.systemd else None
    summary = record.summary(home)
    if installed is None or summary is None:
        return ServiceStatus(choice, linger, None, False, "no autostart is installed")
    at_boot, why = kinds.runs_at_boot(installed, env, summary.seen_at_boot)
    units = tuple(systemd.show(installed.kind, unit) for unit in installed.units)
    serving = None if installed.kind in kinds.SYSTEMD else record.supervision(home)
    return ServiceStatus(choice, linger, installed, at_boot, why, summary, units, serving)


def enable(home: Home, spec: Spec, env: HostEnv, progress: Progress) -> ServiceChange:
    """Install the autostart, run it once to see that it works, and return its status.

    Raises:
        AgentError: EQ557 it is installed but nothing starts it at boot; EQ558 it cannot be installed or does
            not start; EQ508 busy.
    """
    artifacts = unit_files.artifacts(spec, env)
    before = record.read(home)
    if before is not None:
        _stop(home, before, env)
    with lock.hold(home):
        scratch.sweep(home)
        stale = _stale(record.read(home), artifacts)
        record.write(home, spec, artifacts, stale)
        record.remove_supervision(home)
        installer.install(artifacts)
        if artifacts.crontab or (before is not None and before.crontab and env.crontab):
            cron.set_line(str(env.crontab), artifacts.crontab, record.name_of(env, PLAIN))
        if stale:
            installer.remove(stale)
            record.write(home, spec, artifacts, [])
    progress("installed", kind=spec.kind)
    problems = _start(home, spec, artifacts, env)
    progress("started", problems=problems)
    noted = journal.note(home, "service", kind=spec.kind, models=list(spec.models))
    current = status(home, env._replace(linger=host_env.has_linger(env.user)))
    if problems:
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            spec.kind,
            "installed, but it does not start: " + "; ".join(problems)[:400],
            hint="`edgeq devices service DEVICE` shows its state and journalctl the reason; "
            "`--disable` removes it",
        )
    if current.at_boot is False:
        raise AgentError(
            NOT_AT_BOOT,
            spec.kind,
            "installed, but nothing starts it at boot: " + "; ".join([str(current.why), *noted.values()]),
            hint=kinds.hint(spec.kind, env),
        )
    unchanged = before is not None and before.same_as(record.read(home))
    return ServiceChange(current, not unchanged, noted)


def disable(home: Home, env: HostEnv) -> ServiceChange:
    """Stop and remove the autostart, and return its status.

    Raises:
        AgentError: EQ558 it does not stop or cannot be removed, EQ508 busy.
    """
    installed = record.read(home)
    if installed is None:
        return ServiceChange(status(home, env), False)
    _stop(home, installed, env)
    with lock.hold(home):
        scratch.sweep(home)
        if installed.crontab and env.crontab:
            cron.set_line(env.crontab, "", record.name_of(env, PLAIN))
        installer.remove(list(installed.paths))
        record.remove(home)
    if installed.units:
        systemd.daemon_reload(installed.kind, env)
    noted = journal.note(home, "service", kind=None, models=[])
    return ServiceChange(status(home, env), True, noted)


def _start(home: Home, spec: Spec, artifacts: Artifacts, env: HostEnv) -> list[str]:
    """Run the autostart once, now; return what failed."""
    if spec.kind not in kinds.SYSTEMD:
        argv = [*unit_files.boot_words(env), "--supervise"]
        output = command.run(argv, timeout_s=_START_TIMEOUT_S)
        if output.status != 0:
            return [output.last_line]
        return _wait_for_server(home, spec, lambda: supervise.failure(home))
    problem = systemd.daemon_reload(spec.kind, env)
    if problem:
        return [problem]
    if spec.kind == SYSTEMD_USER:
        systemd.enable_linger(env)
    problems = systemd.restart(spec.kind, env, list(artifacts.units))
    server_unit = artifacts.units[-1]
    return problems or _wait_for_server(home, spec, lambda: systemd.failure(spec.kind, server_unit))


def _wait_for_server(home: Home, spec: Spec, failure: Callable[[], str]) -> list[str]:
    problem = readiness.wait(home, spec, failure) if spec.models else ""
    return [problem] if problem else []


def _stale(before: Record | None, artifacts: Artifacts) -> list[str]:
    """Return the paths of the installed autostart that the new one does not have."""
    if before is None:
        return []
    kept = {path for path, _, _ in artifacts.files} | {path for path, _ in artifacts.links}
    return [path for path in before.paths if path not in kept]


def _stop(home: Home, installed: Record, env: HostEnv) -> None:
    if installed.units:
        systemd.stop(installed.kind, env, list(reversed(installed.units)))
    supervise.stop(home)
