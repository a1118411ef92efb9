"""Doing what a plan says, in its order, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.fleet.agent.chunks import Content
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.upload import upload
from edgeq.fleet.plan import Action, Part, Plan, Step
from edgeq.fleet.protocols import DeployableBundle
from edgeq.fleet.runtimes.ensure_runtime import make_runtime
from edgeq.fleet.runtimes.wheels import Runtime

_ACTIVATE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Something that happened on the way.

    Attributes:
        step: the step of the plan it belongs to.
        message: the agent's own, or `{"event": "sent", "size_bytes": n}`: so much more of it is there.
    """

    device: str
    step: Step
    message: Mapping[str, Any]


OnProgress = Callable[[Progress], None]


def apply(
    plan: Plan,
    client: AgentClient,
    *,
    bundle: DeployableBundle,
    runtime: Runtime,
    on_event: OnProgress | None = None,
    soak_s: float = 0,
    begun: Collection[str] | None = None,
    retry: bool = False,
    verb: str = "activate",
) -> dict[str, Any]:
    """Execute a plan's steps; each can be repeated, so a run that was cut is continued by the next one.

    Args:
        soak_s: how long the release serves on trial before the device commits it; 0 commits it at once.
        begun: of which blobs the device may have a part, see `upload`.
        retry: try also what the device refuses since it failed too often there (EQ520).
        verb: what is done with the release at last: `activate`, or `stage`, where nobody is served by it.

    Returns:
        The agent's answer to that verb; an empty object when the plan had nothing to do.

    Raises:
        DeviceError: a step is blocked, or the device refused; the release before still serves.
        TransportError: the way to the device failed.
    """
    plan.check()
    _send(plan, client, bundle, runtime, begun, on_event)
    answer: dict[str, Any] = {}
    for step in plan.to_do:
        say = _teller(plan.device, step, on_event)
        if step.part is Part.RUNTIME:
            make_runtime(client, runtime, say)
        elif step.part is Part.RELEASE and step.action in (Action.CREATE, Action.CHANGE):
            request = {
                "model": bundle.model,
                "release": bundle.release,
                "manifest": bundle.manifest,
                "signatures": list(bundle.signatures),
                "runtime": runtime.digest,
                "timeout_s": _ACTIVATE_S,
                **({"soak_s": soak_s} if soak_s else {}),
                **({"retry": True} if retry else {}),
            }
            answer = client.call(verb, request, deadline_s=_ACTIVATE_S, on_event=say)
    return answer


def _send(
    plan: Plan,
    client: AgentClient,
    bundle: DeployableBundle,
    runtime: Runtime,
    begun: Collection[str] | None,
    on_event: OnProgress | None,
) -> None:
    # All blobs in one call: a start of Python on the device costs as much as many of them.
    steps = {step.key: step for step in plan.to_do if step.part is Part.BLOB}
    if not steps:
        return
    wheels = {file.sha256: file.path for file in runtime.files}
    contents = [
        Content(sha256=key, size_bytes=step.size_bytes, source=wheels.get(key) or bundle.read(key))
        for key, step in steps.items()
    ]

    def say(content: Content, size_bytes: int) -> None:
        _teller(plan.device, steps[content.sha256], on_event)({"event": "sent", "size_bytes": size_bytes})

    upload(client, contents, begun=begun, on_chunk=say)


def _teller(device: str, step: Step, on_event: OnProgress | None) -> Callable[[Mapping[str, Any]], None]:
    def say(message: Mapping[str, Any]) -> None:
        if on_event is not None:
            on_event(Progress(device=device, step=step, message=message))

    return say
