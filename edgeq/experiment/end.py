"""End an experiment: stop it or decide it, record that, and end it on each device."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.bundle.archive import Bundle, read_bundle
from edgeq.errors import EdgeqError, ExperimentError, NotJustified, UsageError
from edgeq.experiment import record
from edgeq.experiment.analyze import ExperimentResult
from edgeq.experiment.decision import Decision, objections
from edgeq.experiment.record import Experiment, ExperimentState
from edgeq.experiment.status import result_of
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.deploy import deploy_device
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.parallel import on_each
from edgeq.fleet.rollout import operations as rollouts
from edgeq.fleet.rollout import view
from edgeq.fleet.rollout.operations import Observer, RolloutOptions
from edgeq.fleet.rollout.state import Rollout
from edgeq.fleet.split import SplitEnd, end_split
from edgeq.store import Store, recording_store
from edgeq.values import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedDevice:
    """How the end of an experiment went on one device.

    Attributes:
        result: None when it failed.
        changed: whether the device serves another release now.
        error: why it failed; None when it did not.
    """

    device: str
    result: SplitEnd | None = None
    changed: bool = False
    error: EdgeqError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the device in `--json` and in the store."""
        entry: dict[str, Any] = {"device": self.device, "ok": self.error is None}
        if self.result is not None:
            entry.update(self.result.to_dict(), changed=self.changed)
        if self.error is not None:
            entry["error"] = self.error.to_dict()
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedExperiment:
    """What `stop_experiment` or `decide_experiment` did.

    Attributes:
        result: what the experiment's windows showed at its end.
        devices: the devices that still had the experiment: first those on which it ended, then those that
            failed.
        removed: devices that the inventory does not have any more; nothing was changed there.
        rollout: the promotion in stages. If it paused, was aborted or has failed devices, the experiment
            was not ended on any device.
    """

    experiment: Experiment
    result: ExperimentResult
    devices: tuple[EndedDevice, ...] = ()
    removed: tuple[str, ...] = ()
    rollout: Rollout | None = None

    @property
    def failed(self) -> Mapping[str, EdgeqError]:
        """The errors by device."""
        return {entry.device: entry.error for entry in self.devices if entry.error is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment and its devices as in `--json`."""
        return {**self.experiment.to_dict(), "devices": [entry.to_dict() for entry in self.devices]}


def stop_experiment(
    experiment: str | None = None,
    *,
    because: str | None = None,
    workspace: Path,
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> EndedExperiment:
    """End an experiment without a decision: the previous release serves alone again.

    A second run ends it on devices that could not be reached, also after a decision.

    Args:
        experiment: its name; None for the only one that is not finished.
        because: the reason, for the record.
        store: where it is recorded; the workspace's store by default.

    Raises:
        ExperimentError: EQ831, there is no such experiment, or several could be meant.
        StoreError: the store cannot be opened.
    """
    with recording_store(store, workspace) as opened:
        with record.changing(workspace):
            recorded = record.find(opened, experiment)
            if recorded.state is ExperimentState.RUNNING:
                name = recorded.config.experiment
                body = {"because": because, "judged": result_of(opened, recorded).to_dict()}
                opened.record_experiment(name, ExperimentState.STOPPED.value, record.actor(), body)
                recorded = record.find(opened, name)
        return _end_on_devices(opened, recorded, None, workspace=workspace, retry_policy=retry_policy)


def decide_experiment(
    experiment: str | None,
    decision: Decision,
    *,
    because: str,
    anyway: bool = False,
    stages: RolloutOptions | None = None,
    workspace: Path,
    retry_policy: RetryPolicy = NO_RETRY,
    observer: Observer | None = None,
    store: Store | None = None,
) -> EndedExperiment:
    """Promote or reject the new release of an experiment, and end the experiment on its devices.

    A second run ends it on devices that could not be reached; it does not decide twice.

    Args:
        experiment: its name; None for the only one that is not finished.
        because: the reason, for the record.
        anyway: decide even if the data do not justify it; the record says so.
        stages: promote by a rollout; its selectors become the experiment's devices.
        observer: follows the rollout.
        store: where it is recorded; the workspace's store by default.

    Raises:
        NotJustified: EQ833, the data do not justify the decision.
        ExperimentError: EQ831, there is no such experiment, or several could be meant; EQ834, something else
            was decided before.
        BundleError: the experiment's copy of the bundle cannot be read.
        UsageError: the reason is empty, or the stages are invalid or given with a rejection.
        StoreError: the store cannot be opened.
    """
    if not because.strip():
        raise UsageError("because", expected="a reason", got="an empty text")
    if stages is not None and decision is not Decision.PROMOTE:
        raise UsageError("stages", "only a promotion has stages")
    with recording_store(store, workspace) as opened:
        with record.changing(workspace):
            recorded = record.find(opened, experiment)
            name = recorded.config.experiment
            path = record.bundle_path(workspace, name)
            body = (
                None
                if recorded.state is decision.state
                else _decision_body(opened, recorded, decision, because=because, anyway=anyway)
            )
            # What a promotion needs is checked before it is on record.
            bundle = read_bundle(path) if decision is Decision.PROMOTE else None
            devices: tuple[Device, ...] = ()
            if bundle is not None and stages is not None:
                stages = replace(stages, selectors=recorded.config.devices)
                devices = Inventory.load(workspace).select(stages.selectors)
                rollouts.preview(workspace, bundle, devices, stages, store=opened)
            if body is not None:
                opened.record_experiment(name, decision.state.value, record.actor(), body)
                recorded = record.find(opened, name)
        rollout = None
        if bundle is not None and stages is not None:
            rollout = rollouts.start(
                workspace,
                path,
                bundle,
                devices,
                stages,
                retry_policy=retry_policy,
                observer=observer,
                store=opened,
            )
            if view.error_of(rollout) or view.not_restored(rollout):
                return EndedExperiment(
                    experiment=recorded, result=result_of(opened, recorded), rollout=rollout
                )
        ended = _end_on_devices(opened, recorded, bundle, workspace=workspace, retry_policy=retry_policy)
        return replace(ended, rollout=rollout)


def _decision_body(
    store: Store, experiment: Experiment, decision: Decision, *, because: str, anyway: bool
) -> dict[str, Any]:
    """Return the record of a decision.

    Raises:
        NotJustified: EQ833, the data do not justify it.
        ExperimentError: EQ834, something else was decided before.
    """
    config = experiment.config
    if experiment.state is not ExperimentState.RUNNING:
        raise ExperimentError(
            config.experiment, f"is {experiment.state.value} already", code="EQ834",
            hint=f"`edgeq ab status {config.experiment}` shows who decided, and why",
        )  # fmt: skip
    result = result_of(store, experiment)
    reasons = objections(config, result, decision)
    if reasons and not anyway:
        raise NotJustified(
            f"{decision.value} {config.experiment}", "; ".join(reasons),
            hint=f"`edgeq ab status {config.experiment}` shows the intervals; collect more, or add --anyway",
        )  # fmt: skip
    return {
        "because": because,
        "anyway": bool(reasons),
        "objections": list(reasons),
        "release_a": config.release_a,
        "release_b": config.release_b,
        "host": socket.gethostname(),
        "judged": result.to_dict(),
    }


def _end_on_devices(
    store: Store,
    experiment: Experiment,
    promoted: Bundle | None,
    *,
    workspace: Path,
    retry_policy: RetryPolicy,
) -> EndedExperiment:
    """End an experiment on its remaining devices, and record those that are done.

    Args:
        promoted: the bundle that is to serve alone; None for the previous release.
    """
    config = experiment.config
    inventory = {device.name: device for device in Inventory.load(workspace).devices}
    removed = tuple(name for name in experiment.open if name not in inventory)

    def end(device: Device) -> EndedDevice:
        changed = False
        if promoted is not None:
            # Deployed with all checks again: the device decides whether it may serve.
            deployed = deploy_device(device, promoted, workspace=workspace, retry_policy=retry_policy)
            changed = deployed.changed
        result = end_split(
            device,
            experiment=config.experiment,
            model=config.model,
            release=config.release_b,
            retry_policy=retry_policy,
        )
        return EndedDevice(device=device.name, result=result, changed=changed)

    results = on_each([inventory[name] for name in experiment.open if name in inventory], end)
    closed = [*results.done, *removed]
    if closed:
        store.record_experiment(config.experiment, "closed", record.actor(), {"devices": closed})
    experiment = record.find(store, config.experiment)
    ended = EndedExperiment(
        experiment=experiment,
        result=result_of(store, experiment),
        devices=(
            *results.done.values(),
            *(EndedDevice(device=name, error=error) for name, error in results.failed.items()),
        ),
        removed=removed,
    )
    entries = [entry.to_dict() for entry in ended.devices]
    store.record_run("ab", config.model, {"experiment": config.experiment, "devices": entries})
    return ended
