"""Deploy a bundle to one device: probe it, plan, apply, and record the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.bundle.archive import Bundle
from edgeq.bundle.trust_chain import TrustChain, chain_path, load_chain
from edgeq.errors import EdgeqError
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.apply import OnProgress, apply
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy, retrying
from edgeq.fleet.connect import ask, open_agent
from edgeq.fleet.facts import Facts
from edgeq.fleet.operations import read_status
from edgeq.fleet.plan import Plan, plan
from edgeq.fleet.responses import Activation, HealthReport, MissingBlobs
from edgeq.fleet.runtimes.choice import choose
from edgeq.fleet.runtimes.ensure_runtime import RuntimeFailed
from edgeq.fleet.runtimes.wheels import RuntimeKind, RuntimeSpec
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.fleet.trust_documents import document_step, pending, push, trust_steps
from edgeq.store import Store, recording_store
from edgeq.values import Device

WHEELS = Path(".edgeq", "wheels")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployPlan:
    """A plan with what is needed to apply it.

    Attributes:
        partial_blobs: blobs of which the device held a part when the plan was made.
        chain: the workspace's trust document, where the device gets it first; None where it does not.
    """

    plan: Plan
    runtime: RuntimeSpec
    facts: Facts
    partial_blobs: tuple[str, ...] = ()
    chain: TrustChain | None = None

    def send_trust(self, client: AgentClient) -> None:
        """Send the trust document that the plan includes; a plan with a blocked step sends none.

        Raises:
            DeviceError: a step is blocked, or the device refuses the document.
        """
        self.plan.check()
        if self.chain is not None:
            push(client, self.chain)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployResult:
    """What a deploy to one device did.

    Attributes:
        applied: False for a dry run.
        changed: whether the device serves another release now.
        previous: the release that served before, if any.
        state: of the model on the device, as in docs/deploy.md; empty when nothing was activated.
        health: the agent's measurements at activation.
        sent_bytes: payload that was sent, including the agent file.
        rejected: better runtimes that fail to start on the device, each with the reason.
    """

    device: str
    plan: Plan
    applied: bool
    changed: bool
    release: str
    previous: str | None
    state: str
    health: HealthReport
    sent_bytes: int
    duration_s: float
    rejected: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as in `--json`."""
        return {
            "device": self.device,
            "applied": self.applied,
            "changed": self.changed,
            "release": self.release,
            "previous": self.previous,
            "state": self.state,
            "health": dict(self.health.document),
            "passed_runtimes": list(self.rejected),
            "steps": [step.to_dict() for step in self.plan.steps],
            "send_bytes": self.plan.send_bytes,
            "sent_bytes": self.sent_bytes,
            "duration_s": round(self.duration_s, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDeploy:
    """How far a deploy came on one device.

    Attributes:
        planned: None when the device could not be planned for.
        result: None when nothing was applied.
        error: why it failed; None when it did not.
    """

    device: str
    planned: DeployPlan | None = None
    result: DeployResult | None = None
    error: EdgeqError | None = None

    def to_dict(self) -> dict[str, Any]:
        """The entry of the device in `--json` and in the store."""
        entry: dict[str, Any] = {
            "device": self.device,
            "ok": self.error is None,
            "changed": False,
            "sent_bytes": 0,
        }
        if self.planned is not None:
            plan = self.planned.plan
            entry.update(steps=[step.to_dict() for step in plan.steps], send_bytes=plan.send_bytes)
        if self.result is not None:
            entry.update(self.result.to_dict())
        if self.error is not None:
            entry["error"] = self.error.to_dict()
        return entry


def make_plan(
    client: AgentClient,
    bundle: Bundle,
    *,
    workspace: Path,
    without: Mapping[str, str] | None = None,
) -> DeployPlan:
    """Probe a connected device, choose its runtime, and plan a deploy.

    Args:
        without: runtimes that failed to start there, with the reasons; the next one that fits is planned.

    Raises:
        DeviceError, TransportError: the device cannot be probed, or no runtime fits it.
    """
    facts = client.facts()
    status = read_status(client)
    runtime = choose(client.device, facts, workspace / WHEELS, without=without or {})
    sizes = {sha256: blob.size_bytes for sha256, blob in bundle.blobs.items()}
    if runtime.digest not in {known.digest for known in facts.runtimes}:
        sizes.update((file.sha256, file.size_bytes) for file in runtime.files)
    blobs = client.request(MissingBlobs, "missing", {"blobs": sizes})
    steps = plan(
        facts,
        status,
        blobs.missing,
        bundle.parsed,
        runtime,
        release=bundle.release,
        device=client.device,
        needs_edgetpu=bundle.needs_edgetpu,
    )
    chain = load_chain(chain_path(workspace))
    documents = pending(chain, status.trust)
    now_s = facts.time_ns / 1e9
    refused = [] if steps.is_empty else trust_steps(status, bundle, documents, device_time_s=now_s)
    steps = replace(steps, steps=(*refused, *document_step(status.trust, documents), *steps.steps))
    return DeployPlan(
        plan=steps,
        runtime=runtime,
        facts=facts,
        partial_blobs=blobs.partial,
        chain=chain if documents else None,
    )


def plan_one(
    device: Device,
    bundle: Bundle,
    *,
    workspace: Path,
    timeout_s: float = STEP_S,
    retry_policy: RetryPolicy = NO_RETRY,
) -> DeployPlan:
    """Plan a deploy to one device; what it serves is not changed.

    Args:
        timeout_s: time limit of each step of the connection.
    """
    return ask(
        device,
        lambda client: make_plan(client, bundle, workspace=workspace),
        repeatable=True,
        retry_policy=retry_policy,
        timeout_s=timeout_s,
    )


def reject_runtime(
    device: Device, runtime: RuntimeSpec, refused: dict[str, str], error: RuntimeFailed
) -> None:
    """Add a runtime that fails to start on a device to `refused`, for the next plan.

    Raises:
        RuntimeFailed: `error`, when there is no other runtime to try.
    """
    last = runtime.kind is not RuntimeKind.WHEELS and device.native is None
    if last or runtime.digest in refused:
        raise error
    refused[runtime.digest] = error.problem or error.message


def deploy_device(
    device: Device,
    bundle: Bundle,
    *,
    workspace: Path,
    on_event: OnProgress | None = None,
    dry_run: bool = False,
    planned: DeployPlan | None = None,
    timeout_s: float = STEP_S,
    retry_policy: RetryPolicy = NO_RETRY,
    soak_s: float = 0,
    ignore_attempt_limit: bool = False,
) -> DeployResult:
    """Deploy a bundle to one device, without a record. Arguments and errors as for `deploy_one`."""
    started_s, sent_bytes = time.monotonic(), 0
    refused: dict[str, str] = {}
    attempts = 0

    def plan_and_apply(client: AgentClient) -> tuple[DeployPlan, Activation | None]:
        while True:
            current = planned
            if current is None or current.runtime.digest in refused:
                current = make_plan(client, bundle, workspace=workspace, without=refused)
            if dry_run:
                return current, None
            # A plan made before an earlier attempt does not know which blobs that attempt left in part.
            known = current is not planned or attempts == 1
            current.send_trust(client)
            try:
                return current, apply(
                    current.plan,
                    client,
                    bundle=bundle,
                    runtime=current.runtime,
                    on_event=on_event,
                    soak_s=soak_s,
                    partial_blobs=current.partial_blobs if known else None,
                    ignore_attempt_limit=ignore_attempt_limit,
                )
            except RuntimeFailed as error:
                reject_runtime(device, current.runtime, refused, error)

    def attempt() -> tuple[DeployPlan, Activation | None]:
        nonlocal sent_bytes, attempts
        attempts += 1
        with open_agent(device, timeout_s=timeout_s) as client:
            try:
                return plan_and_apply(client)
            finally:
                sent_bytes += client.sent_bytes

    applied, activation = retrying(attempt, retry_policy)
    return DeployResult(
        device=device.name,
        plan=applied.plan,
        applied=not dry_run,
        changed=activation is not None and activation.changed,
        release=bundle.release,
        previous=activation.previous if activation else None,
        state=(activation.state if activation else None) or "",
        health=activation.health if activation else HealthReport(),
        sent_bytes=sent_bytes,
        duration_s=time.monotonic() - started_s,
        rejected=applied.runtime.rejected,
    )


def deploy_one(
    device: Device,
    bundle: Bundle,
    *,
    workspace: Path,
    on_event: OnProgress | None = None,
    dry_run: bool = False,
    planned: DeployPlan | None = None,
    timeout_s: float = STEP_S,
    retry_policy: RetryPolicy = NO_RETRY,
    soak_s: float = 0,
    ignore_attempt_limit: bool = False,
    store: Store | None = None,
) -> DeployResult:
    """Deploy a bundle to one device and record it. A second run finds everything there and sends no payload.

    Args:
        workspace: holds the cache of wheels and, by default, the store.
        on_event: called with the progress, also from other threads.
        dry_run: only plan; nothing is recorded.
        planned: a plan made earlier: exactly this one is applied. If its runtime fails to start on the
            device, a new plan with the next runtime replaces it.
        timeout_s: time limit of each step of the connection.
        retry_policy: what arrived is not sent again by a retry.
        soak_s: soak time before the device commits the release, in seconds; 0 commits it at once.
        ignore_attempt_limit: try a release that the device blocks after repeated failures (EQ520).
        store: where the deploy is recorded; the workspace's store by default.

    Raises:
        DeviceError: a step is blocked, or the device refused; the release that served before still serves.
        TransportError: the connection failed.
        StoreError: the store cannot be opened.
    """
    error: EdgeqError | None = None
    result: DeployResult | None = None
    try:
        result = deploy_device(
            device,
            bundle,
            workspace=workspace,
            on_event=on_event,
            dry_run=dry_run,
            planned=planned,
            timeout_s=timeout_s,
            retry_policy=retry_policy,
            soak_s=soak_s,
            ignore_attempt_limit=ignore_attempt_limit,
        )
        return result
    except EdgeqError as failure:
        error = failure
        raise
    finally:
        if not dry_run and (result or error):
            entry = DeviceDeploy(device=device.name, planned=planned, result=result, error=error)
            record_deploy(bundle, [entry], workspace=workspace, store=store)


def record_deploy(
    bundle: Bundle, entries: Sequence[DeviceDeploy], *, workspace: Path, store: Store | None = None
) -> None:
    """Record a deploy, and the release with its drift reference, which the monitor needs later."""
    with recording_store(store, workspace) as opened:
        opened.put_release(bundle.release, bundle.manifest, bundle.reference.to_json())
        body = {
            "bundle": None if bundle.path is None else str(bundle.path),
            "release": bundle.release,
            "devices": [entry.to_dict() for entry in entries],
        }
        opened.record_run("deploy", bundle.model, body)
