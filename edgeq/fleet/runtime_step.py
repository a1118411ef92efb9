"""Making a runtime on a device: the agent builds it of wheels that are there, and proves it."""

from __future__ import annotations

from edgeq.errors import DeviceUnsupported
from edgeq.fleet.client import AgentClient, OnEvent
from edgeq.fleet.platform_tags import MODULES
from edgeq.fleet.wheels import Runtime

# Unpacking and importing numpy and the runtime from a slow card.
_RUNTIME_S = 600.0
REFUSED = "EQ556"


def make_runtime(client: AgentClient, runtime: Runtime, on_event: OnEvent | None) -> None:
    """Let the device make a runtime.

    Raises:
        DeviceUnsupported: it does not start there: EQ556 wheels that fit by their tags; EQ503 the device's
            own (the message then says why no wheels were sent, and the hint what to do about that).
    """
    request = {
        "digest": runtime.digest,
        "wheels": [{"name": wheel.name, "sha256": wheel.sha256} for wheel in runtime.wheels],
        "modules": list(MODULES),
        "timeout_s": _RUNTIME_S,
    }
    try:
        client.call("runtime", request, deadline_s=_RUNTIME_S, on_event=on_event)
    except DeviceUnsupported as error:
        if runtime.wheels:
            raise
        raise DeviceUnsupported(
            error.subject,
            f"{error.problem or error.message}; no wheels were sent: {runtime.reason}",
            hint=runtime.hint or error.hint,
            code=error.reported_code,
        ) from error
