"""Letting a device start its agent by itself: what is asked of the agent's verb `service`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import UnionType
from typing import Any

from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.connect import NO_RETRY, Retry, ask
from edgeq.fleet.responses import wrong
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.values import Device

# A first start waits for a call that is at work, and may look at the health of two releases.
_START_S = 1200.0
# What is shown of a unit.
_UNIT = {"unit", "active", "sub", "result", "restarts", "problem"}


class StartKind(StrEnum):
    """What starts the agent; AUTO is the kind that asks for the fewest rights and still works."""

    AUTO = "auto"
    SYSTEMD_USER = "systemd-user"
    SYSTEMD_SYSTEM = "systemd-system"
    TERMUX_BOOT = "termux-boot"
    PLAIN = "plain"


def enable(
    device: Device,
    *,
    kind: StartKind = StartKind.AUTO,
    models: Sequence[str] = (),
    port: int | None = None,
    timeout_s: float = STEP_S,
    retry: Retry = NO_RETRY,
) -> dict[str, Any]:
    """Install what settles interrupted releases when the device starts, start it once, and return how it is.

    Args:
        models: what is served from the start on.
        port: of the device's 127.0.0.1; None is the unix socket in the agent's folder.
        timeout_s: bound of each step of the connection.
        retry: of all of it: what is installed already is not installed again.

    Raises:
        DeviceError: EQ510 a model does not serve, EQ557 nothing starts it with the device, EQ558 that kind is
            not possible there.
    """
    request = {"action": "enable", "kind": kind.value, "models": list(models), "port": port}
    return _asked(device, request, timeout_s, retry)


def disable(device: Device, *, timeout_s: float = STEP_S, retry: Retry = NO_RETRY) -> dict[str, Any]:
    """Remove what starts the agent, end what it serves, and return how it is."""
    return _asked(device, {"action": "disable"}, timeout_s, retry)


def status(device: Device, *, timeout_s: float = STEP_S, retry: Retry = NO_RETRY) -> dict[str, Any]:
    """Return what starts the agent on a device, and how the last start went."""
    return _asked(device, {"action": "status"}, timeout_s, retry)


def _asked(device: Device, request: dict[str, Any], timeout_s: float, retry: Retry) -> dict[str, Any]:
    def call(client: AgentClient) -> dict[str, Any]:
        return checked(device.name, client.call("service", request, deadline_s=_START_S))

    return ask(device, call, repeatable=True, retry=retry, timeout_s=timeout_s)


def checked(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of the verb in which all that is shown of it has the right type.

    Raises:
        AgentProtocolError: something has not; names the field.
    """
    kinds: dict[str, type | UnionType] = {
        "enabled": bool,
        "choice": str,
        "kind": str | None,
        "at_boot": bool | None,
        "why": str | None,
        "serving": Mapping | None,
        "last": Mapping | None,
    }
    for field, kind in kinds.items():
        if not isinstance(answer.get(field), kind):
            raise wrong(name, f"service: {field}", str(getattr(kind, "__name__", kind)), answer.get(field))
    models, units, last = answer.get("models"), answer.get("units"), answer.get("last")
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise wrong(name, "service: models", "a list of names", models)
    if not isinstance(units, list) or not all(
        isinstance(unit, Mapping) and unit.keys() >= _UNIT for unit in units
    ):
        raise wrong(name, "service: units", "what systemd says of units", units)
    if last is not None and not _is_start(last):
        raise wrong(name, "service: last", "how the last start went", last)
    return answer


def _is_start(last: Mapping[str, Any]) -> bool:
    since_s, models = last.get("since_boot_s"), last.get("models")
    return (
        last.keys() >= {"ok", "problem"}
        and isinstance(since_s, int | float)
        and isinstance(models, Mapping)
        and all(isinstance(told, Mapping) and told.keys() >= {"state", "changed"} for told in models.values())
    )
