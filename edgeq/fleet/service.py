"""Letting a device start its agent by itself: what is asked of the agent's verb `service`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.connect import NO_RETRY, Retry, ask
from edgeq.fleet.ssh.watch import STEP_S
from edgeq.values import Device

# A first start waits for a call that is at work, and may look at the health of two releases.
_START_S = 1200.0


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
        return client.call("service", request, deadline_s=_START_S)

    return ask(device, call, repeatable=True, retry=retry, timeout_s=timeout_s)
