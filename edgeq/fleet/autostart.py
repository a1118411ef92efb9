"""Manage what starts a device's agent at boot, through the agent's verb `service`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from edgeq.fleet.connect import NO_RETRY, RetryPolicy, ask
from edgeq.fleet.responses import Items, Response
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.values import Device

# The first start waits for a call that is running, and may check the health of two releases.
_START_S = 1200.0


class StartKind(StrEnum):
    """What starts the agent; AUTO selects the working kind that needs the fewest rights."""

    AUTO = "auto"
    SYSTEMD_USER = "systemd-user"
    SYSTEMD_SYSTEM = "systemd-system"
    TERMUX_BOOT = "termux-boot"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of the model server beside its port and token, as `edgeq-agent serve` takes them.

    None and False leave the server's default.

    Attributes:
        socket: absolute path of the unix socket on the device.
        socket_mode, socket_group: who may connect to it.
        host: of the port: 127.0.0.1 or ::1.
        threads: of each interpreter.
        deadline: longer requests fail, in seconds.
        max_body: largest body in bytes.
        max_requests: requests that run at the same time.
        sessions, session_idle, on_swap, session_finish: of sequences; times in seconds.
        allow_origin: web origins that may use it.
        no_telemetry: record no telemetry.
    """

    socket: str | None = None
    socket_mode: str | None = None
    socket_group: str | None = None
    host: str | None = None
    threads: int | None = None
    deadline: float | None = None
    max_body: int | None = None
    max_requests: int | None = None
    sessions: int | None = None
    session_idle: float | None = None
    on_swap: str | None = None
    session_finish: float | None = None
    allow_origin: tuple[str, ...] = ()
    no_telemetry: bool = False

    @property
    def by_name(self) -> dict[str, Any]:
        """The options that are set, by their names on the device's command line."""
        names = {each.name: each.name.replace("_", "-") for each in fields(self)} | {"socket": "unix"}
        values = {name: getattr(self, field) for field, name in names.items()}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value not in (None, False, ())
        }


class Unit(Response):
    """A systemd unit as `systemctl show` reports it; `problem` says why it cannot be read."""

    unit: str
    active: str | None
    sub: str | None
    result: str | None
    restarts: int | None
    problem: str | None


class ModelChange(Response):
    """What a run at boot found of one model: its state, and whether the run changed it."""

    state: str
    changed: bool


class LastRun(Response):
    """How the last run at boot ended.

    Attributes:
        since_boot_s: when it ran, in seconds after the device booted.
        models: by name.
    """

    ok: bool
    problem: str | None
    since_boot_s: float
    models: Mapping[str, ModelChange]


class ServerStatus(Response):
    """What the model server reports; `problem` is empty while it runs."""

    problem: str | None = None


class Autostart(Response):
    """The response of `service`.

    Attributes:
        enabled: whether something is installed that starts the agent.
        choice: the kind that AUTO would select.
        at_boot: whether it starts at boot; None until a boot has shown it.
        why: the reason for `at_boot`.
        models: what is served from boot on.
        serving: what the model server reports.
        last: how the last run at boot ended; None before the first.
    """

    verbs = ("service",)

    enabled: bool
    choice: str
    kind: str | None
    at_boot: bool | None
    why: str | None
    models: Items[str]
    units: Items[Unit]
    serving: ServerStatus | None = None
    last: LastRun | None = None
    ran_in_this_boot: bool = False


def enable(
    device: Device,
    *,
    kind: StartKind = StartKind.AUTO,
    models: Sequence[str] = (),
    port: int | None = None,
    token_file: str | None = None,
    options: ServeOptions = ServeOptions(),
    timeout_s: float = STEP_S,
    retry_policy: RetryPolicy = NO_RETRY,
) -> Autostart:
    """Install a boot service that finishes interrupted activations, start it once, and return its state.

    Args:
        models: what it serves over HTTP.
        port: of the device's 127.0.0.1; None is the unix socket in the agent's folder.
        token_file: absolute path on the device; every request but on health must send its bearer token.
        options: the server's other options.
        timeout_s: time limit of each step of the connection.
        retry_policy: applies to the whole call: what is installed already is not installed again.

    Raises:
        DeviceError: EQ510 a model does not serve, EQ512 an option has no valid value, EQ557 nothing
            would start it at boot, EQ558 that kind is not possible on the device.
    """
    request = {
        "action": "enable",
        "kind": kind.value,
        "models": list(models),
        "port": port,
        "token_file": token_file,
        "options": options.by_name,
    }
    return _call(device, request, timeout_s, retry_policy)


def disable(device: Device, *, timeout_s: float = STEP_S, retry_policy: RetryPolicy = NO_RETRY) -> Autostart:
    """Remove the boot service, stop what it serves, and return its state."""
    return _call(device, {"action": "disable"}, timeout_s, retry_policy)


def status(device: Device, *, timeout_s: float = STEP_S, retry_policy: RetryPolicy = NO_RETRY) -> Autostart:
    """Return what starts the agent on a device, and how the last run ended."""
    return _call(device, {"action": "status"}, timeout_s, retry_policy)


def _call(
    device: Device, request: Mapping[str, Any], timeout_s: float, retry_policy: RetryPolicy
) -> Autostart:
    return ask(
        device,
        lambda client: client.request(Autostart, "service", request, deadline_s=_START_S),
        repeatable=True,
        retry_policy=retry_policy,
        timeout_s=timeout_s,
    )
