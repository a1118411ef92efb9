"""Making a runtime on a device: the agent builds it of wheels that are there, and proves it."""

from __future__ import annotations

from edgeq.errors import DeviceUnsupported
from edgeq.fleet.agent.client import AgentClient, OnEvent
from edgeq.fleet.runtimes.wheels import Runtime
from edgeq_agent import wire

# Unpacking and importing numpy and the runtime from a slow card.
_RUNTIME_S = 600.0
_REFUSED = "EQ556"


class RuntimeStartsNot(DeviceUnsupported):
    """A runtime that was made for a device does not start there, and another one may."""


def make_runtime(client: AgentClient, runtime: Runtime, on_event: OnEvent | None) -> None:
    """Let the device make a runtime.

    Raises:
        RuntimeStartsNot: EQ556 wheels that fit by their tags; EQ503 the device's own (the message then says
            why no wheels were sent, and the hint what to do about that).
        DeviceUnsupported: EQ503 it cannot be made, EQ561 the native program is another one.
    """
    request = {
        "digest": runtime.digest,
        "wheels": [{"name": wheel.name, "sha256": wheel.sha256} for wheel in runtime.wheels],
        "modules": list(wire.WHEEL_RUNTIME_MODULES),
        "timeout_s": _RUNTIME_S,
        **({"native": {"sha256": runtime.native.sha256}} if runtime.native else {}),
    }
    try:
        client.call("runtime", request, deadline_s=_RUNTIME_S, on_event=on_event)
    except DeviceUnsupported as error:
        if runtime.native is not None or (runtime.wheels and error.reported_code != _REFUSED):
            raise
        why = error.problem or error.message
        raise RuntimeStartsNot(
            error.subject,
            why if runtime.wheels else f"{why}; no wheels were sent: {runtime.reason}",
            hint=error.hint if runtime.wheels else runtime.hint,
            code=error.reported_code,
        ) from error
