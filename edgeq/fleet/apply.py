"""Execute the steps of a plan on a device, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from edgeq.bundle.archive import Bundle
from edgeq.fleet.agent.client import AgentClient, AgentMessage, OnEvent
from edgeq.fleet.agent.upload import Content, upload
from edgeq.fleet.plan import Action, Component, Plan, PlanStep
from edgeq.fleet.responses import Activation
from edgeq.fleet.runtimes.ensure_runtime import ensure_runtime
from edgeq.fleet.runtimes.wheels import RuntimeSpec

_ACTIVATE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One event of a deploy.

    Attributes:
        step: the step of the plan it belongs to.
        reached: what the agent reports of it, such as `verified`; empty for an upload.
        sent_bytes: how many more bytes of an upload are done.
    """

    device: str
    step: PlanStep
    reached: str = ""
    sent_bytes: int = 0


OnProgress = Callable[[Progress], None]


def apply(
    plan: Plan,
    client: AgentClient,
    *,
    bundle: Bundle,
    runtime: RuntimeSpec,
    on_event: OnProgress | None = None,
    soak_s: float = 0,
    partial_blobs: Collection[str] | None = None,
    ignore_attempt_limit: bool = False,
    verb: str = "activate",
) -> Activation | None:
    """Execute a plan's steps; every step is idempotent, so the next run continues an interrupted one.

    Args:
        soak_s: soak time before the device commits the release; 0 commits it at once.
        partial_blobs: blobs of which the device may hold a part, see `upload`.
        ignore_attempt_limit: try a release that the device blocks after repeated failures (EQ520).
        verb: `activate`, or `stage` to install the release without serving it.

    Returns:
        The agent's response to that verb; None when the plan did not include it.

    Raises:
        DeviceError: a step is blocked, or the device refused; the release that served before still serves.
        TransportError: the connection failed.
    """
    plan.check()
    _send(plan, client, bundle, runtime, partial_blobs, on_event)
    activation: Activation | None = None
    for step in plan.to_do:
        report = _reporter(plan.device, step, on_event)
        if step.part is Component.RUNTIME:
            ensure_runtime(client, runtime, report)
        elif step.part is Component.RELEASE and step.action in (Action.CREATE, Action.CHANGE):
            request = {
                "model": bundle.model,
                "release": bundle.release,
                "manifest": bundle.manifest,
                "signatures": list(bundle.signatures),
                "runtime": runtime.digest,
                "timeout_s": _ACTIVATE_S,
                **({"soak_s": soak_s} if soak_s else {}),
                **({"retry": True} if ignore_attempt_limit else {}),
            }
            activation = client.request(Activation, verb, request, deadline_s=_ACTIVATE_S, on_event=report)
    return activation


def _send(
    plan: Plan,
    client: AgentClient,
    bundle: Bundle,
    runtime: RuntimeSpec,
    partial_blobs: Collection[str] | None,
    on_event: OnProgress | None,
) -> None:
    # All blobs in one call: starting Python on the device costs as much as sending many of them.
    steps = {step.key: step for step in plan.to_do if step.part is Component.BLOB}
    if not steps:
        return
    paths = {file.sha256: file.path for file in runtime.files}
    contents = [
        Content(sha256=key, size_bytes=step.size_bytes, source=paths.get(key) or bundle.read(key))
        for key, step in steps.items()
    ]

    def report(content: Content, size_bytes: int) -> None:
        if on_event is not None:
            on_event(Progress(device=plan.device, step=steps[content.sha256], sent_bytes=size_bytes))

    upload(client, contents, partial_blobs=partial_blobs, on_chunk=report)


def _reporter(device: str, step: PlanStep, on_event: OnProgress | None) -> OnEvent:
    def report(message: AgentMessage) -> None:
        if on_event is not None:
            on_event(Progress(device=device, step=step, reached=message.step))

    return report
