"""Deploying to one device: look, plan, apply, and say what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.apply import OnProgress, apply
from edgeq.fleet.backoff import ONCE, Backoff, OnRetry, retrying
from edgeq.fleet.connect import NO_RETRY, Retry, ask, open_agent
from edgeq.fleet.facts import Facts
from edgeq.fleet.plan import Plan, plan
from edgeq.fleet.protocols import DeployableBundle
from edgeq.fleet.responses import lacking, status_of
from edgeq.fleet.runtimes.choice import choose
from edgeq.fleet.runtimes.ensure_runtime import RuntimeStartsNot
from edgeq.fleet.runtimes.wheels import Runtime
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.fleet.trust import blocked_by_trust
from edgeq.values import Device

WHEELS = Path(".edgeq", "wheels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan with what is needed to carry it out.

    Attributes:
        begun: of which blobs the device had a part when it was asked.
    """

    plan: Plan
    runtime: Runtime
    facts: Facts
    begun: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a deploy to one device did.

    Attributes:
        applied: False for a dry run.
        changed: whether the device serves something else now.
        previous: the release that served before, if any.
        state: of the model on the device, as in docs/deploy.md; empty when nothing was activated.
        health: the agent's measurements at activation.
        sent_bytes: payload that went out, the agent file included.
        passed: runtimes that would have been better and do not start there, with the reasons.
    """

    device: str
    plan: Plan
    applied: bool
    changed: bool
    release: str
    previous: str | None
    state: str
    health: Mapping[str, Any]
    sent_bytes: int
    duration_s: float
    passed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The outcome as in `--json`."""
        return {
            "device": self.device,
            "applied": self.applied,
            "changed": self.changed,
            "release": self.release,
            "previous": self.previous,
            "state": self.state,
            "health": dict(self.health),
            "passed_runtimes": list(self.passed),
            "steps": [step.to_dict() for step in self.plan.steps],
            "send_bytes": self.plan.send_bytes,
            "sent_bytes": self.sent_bytes,
            "duration_s": round(self.duration_s, 3),
        }


def make_plan(
    client: AgentClient,
    bundle: DeployableBundle,
    *,
    workspace: Path,
    without: Mapping[str, str] | None = None,
) -> Planned:
    """Ask the device, choose its runtime, and plan.

    Args:
        without: runtimes that did not start there, with the reasons; the next one that fits is planned.

    Raises:
        DeviceError, TransportError: the device cannot be asked, or nothing runs on it.
    """
    facts = client.facts()
    status = status_of(client.device.name, client.call("status", {}))
    runtime = choose(client.device, facts, workspace / WHEELS, without=without or {})
    sizes = {sha256: blob.size_bytes for sha256, blob in bundle.blobs.items()}
    if runtime.digest not in {known.digest for known in facts.runtimes}:
        sizes.update((file.sha256, file.size_bytes) for file in runtime.files)
    lacks = lacking(client.device.name, client.call("missing", {"blobs": sizes}))
    todo = plan(facts, status, lacks.missing, bundle.manifest, runtime, device=client.device)
    if not todo.is_empty:
        todo = replace(todo, steps=(*blocked_by_trust(status, bundle), *todo.steps))
    return Planned(
        plan=todo,
        runtime=runtime,
        facts=facts,
        begun=lacks.begun,
    )


def pass_over(device: Device, runtime: Runtime, refused: dict[str, str], error: RuntimeStartsNot) -> None:
    """Note among the `refused` ones that a runtime does not start on a device, for the next plan.

    Raises:
        RuntimeStartsNot: `error`, where there is no next one.
    """
    last = not runtime.wheels and device.native is None
    if last or runtime.digest in refused:
        raise error
    refused[runtime.digest] = error.problem or error.message


def deploy_one(
    device: Device,
    bundle: DeployableBundle,
    *,
    workspace: Path,
    on_event: OnProgress | None = None,
    dry_run: bool = False,
    planned: Planned | None = None,
    timeout_s: float = STEP_S,
    backoff: Backoff = ONCE,
    on_retry: OnRetry | None = None,
    soak_s: float = 0,
    retry: bool = False,
) -> Outcome:
    """Bring a bundle to one device. A second run finds everything there and sends no payload.

    Args:
        on_event: called with what happens on the way, also from other threads.
        dry_run: plan only.
        planned: a plan made before (and shown to somebody): exactly this one is applied, unless its runtime
            does not start on the device: then the next one that fits.
        backoff: how often to begin again when the way to the device fails; what arrived is not sent again.
        on_retry: called with the failure and the seconds until the next try.
        soak_s: how long the release serves on trial before the device commits it.
        retry: try also a release that the device refuses since it failed too often there (EQ520).

    Raises:
        DeviceError: blocked or refused; what served before still serves.
        TransportError: the way to the device failed.
    """
    started_s, sent_bytes = time.monotonic(), 0
    refused: dict[str, str] = {}
    tries = 0

    def carry_out(client: AgentClient) -> tuple[Planned, dict[str, Any]]:
        while True:
            todo = planned
            if todo is None or todo.runtime.digest in refused:
                todo = make_plan(client, bundle, workspace=workspace, without=refused)
            if dry_run:
                return todo, {}
            try:
                return todo, apply(
                    todo.plan,
                    client,
                    bundle=bundle,
                    runtime=todo.runtime,
                    on_event=on_event,
                    soak_s=soak_s,
                    # What an earlier try brought there, no plan of before it knows.
                    begun=todo.begun if todo is not planned or tries == 1 else None,
                    retry=retry,
                )
            except RuntimeStartsNot as error:
                pass_over(device, todo.runtime, refused, error)

    def attempt() -> tuple[Planned, dict[str, Any]]:
        nonlocal sent_bytes, tries
        tries += 1
        with open_agent(device, timeout_s=timeout_s) as client:
            try:
                return carry_out(client)
            finally:
                sent_bytes += client.sent_bytes

    todo, answer = retrying(attempt, backoff, on_retry=on_retry)
    return Outcome(
        device=device.name,
        plan=todo.plan,
        applied=not dry_run,
        changed=bool(answer.get("changed", False)),
        release=bundle.release,
        previous=answer.get("previous"),
        state=str(answer.get("state") or ""),
        health=answer.get("health") or {},
        sent_bytes=sent_bytes,
        duration_s=time.monotonic() - started_s,
        passed=todo.runtime.passed,
    )


def plan_one(
    device: Device,
    bundle: DeployableBundle,
    *,
    workspace: Path,
    timeout_s: float = STEP_S,
    retry: Retry = NO_RETRY,
) -> Planned:
    """Plan a deploy to one device and change nothing that serves.

    Args:
        timeout_s: bound of each step of the connection.
    """
    return ask(
        device,
        lambda client: make_plan(client, bundle, workspace=workspace),
        repeatable=True,
        retry=retry,
        timeout_s=timeout_s,
    )
