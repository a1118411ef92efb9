"""Build a runtime on a device: the agent assembles it from files that were sent, then runs a self-test."""

from __future__ import annotations

from edgeq.errors import DeviceUnsupported
from edgeq.fleet.agent.client import AgentClient, OnEvent
from edgeq.fleet.runtimes.wheels import RuntimeKind, RuntimeSpec
from edgeq_agent import wire

# Unpacking and importing numpy and the runtime from a slow card.
_RUNTIME_S = 600.0
_SELF_TEST_FAILED = "EQ556"


class RuntimeFailed(DeviceUnsupported):
    """A runtime was built on a device and failed its self-test; another one may work."""


def ensure_runtime(client: AgentClient, runtime: RuntimeSpec, on_event: OnEvent | None) -> None:
    """Make sure that the device has a runtime that passes its self-test.

    Raises:
        RuntimeFailed: EQ556 wheels that fit by their tags; EQ503 the installed runtime (the message then says
            why no wheels were sent, and the hint what to do about that).
        DeviceUnsupported: EQ503 it cannot be built, EQ561 the native program is not benchmark_model.
    """
    native, wheels = runtime.kind is RuntimeKind.NATIVE, runtime.kind is RuntimeKind.WHEELS
    request = {
        "digest": runtime.digest,
        "wheels": [{"name": file.name, "sha256": file.sha256} for file in runtime.files] if wheels else [],
        "modules": list(wire.WHEEL_RUNTIME_MODULES),
        "timeout_s": _RUNTIME_S,
        **({"native": {"sha256": runtime.files[0].sha256}} if native else {}),
    }
    try:
        client.call("runtime", request, deadline_s=_RUNTIME_S, on_event=on_event)
    except DeviceUnsupported as error:
        if native or (wheels and error.reported_code != _SELF_TEST_FAILED):
            raise
        problem = error.problem or error.message
        raise RuntimeFailed(
            error.subject,
            problem if wheels else f"{problem}; no wheels were sent: {runtime.reason}",
            hint=error.hint if wheels else runtime.hint,
            code=error.reported_code,
        ) from error
