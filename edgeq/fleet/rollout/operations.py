"""Start, resume, pause, abort and roll back rollouts; each run of a controller is recorded in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeq.bundle.archive import Bundle, bytes_of, read_bundle
from edgeq.bundle.trust_chain import chain_path, load_chain
from edgeq.errors import RolloutBusy, RolloutDamaged, RolloutError
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.clock import SystemClock
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.rollout import rollout_store, view
from edgeq.fleet.rollout.abort import DEFAULT, parse_rules
from edgeq.fleet.rollout.events import (
    REQUESTED,
    Aborted,
    Event,
    Paused,
    Resumed,
    Retried,
    RollingBack,
)
from edgeq.fleet.rollout.fleet import FleetDeployer
from edgeq.fleet.rollout.outcomes import FAILURES
from edgeq.fleet.rollout.pool import ThreadPool
from edgeq.fleet.rollout.preflight import refuse_older, refuse_without_edgetpu
from edgeq.fleet.rollout.rollout_store import BUNDLE, OpenRollout
from edgeq.fleet.rollout.runner import Runner
from edgeq.fleet.rollout.scheduler import to_restore
from edgeq.fleet.rollout.spec import OnAbort, RolloutSpec, StageSpec
from edgeq.fleet.rollout.stages import parse_stages, partition
from edgeq.fleet.rollout.state import ALLOWED, Rollout, RolloutState
from edgeq.store import Store, recording_store
from edgeq.values import Device

_TIMEOUT_S = 15.0


class Observer(Protocol):
    """Follows a controller; its methods are called once what they report is on disk."""

    def started(self, rollout: Rollout) -> None:
        """The controller has begun to drive the rollout."""

    def event(self, rollout: Rollout, event: Event) -> None:
        """An event was added to the journal."""


class Silent:
    """An observer that ignores everything."""

    def started(self, rollout: Rollout) -> None:
        """Do nothing."""

    def event(self, rollout: Rollout, event: Event) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """How a rollout is to run.

    Attributes:
        stages: such as `1,10%,50%,100%`; see `parse_stages`.
        abort: the abort rules, such as `failed>5%,min=5`; see `parse_rules`.
        on_abort: what follows an abort.
        soak_s: soak time of each stage, in seconds.
        soak: the soak time as it was written, to be shown.
        at_once: how many devices are deployed to at a time.
        selectors: the selection that chose the devices, for the record.
    """

    stages: str
    abort: str = DEFAULT
    on_abort: OnAbort = OnAbort.STOP
    soak_s: float = 0.0
    soak: str = ""
    at_once: int = 8
    selectors: tuple[str, ...] = ()


def preview(
    workspace: Path,
    bundle: Bundle,
    devices: Iterable[Device],
    options: RolloutOptions,
    *,
    store: Store | None = None,
) -> RolloutSpec:
    """Return the spec of the rollout that `start` would begin now.

    Raises:
        UsageError: the stages or the abort rules are invalid, or do not fit the devices.
        RolloutError: devices have committed a newer release (EQ827).
        DeviceUnsupported: the model needs an Edge TPU that a device of the first stage does not have (EQ560).
    """
    devices = tuple(devices)
    name = rollout_store.next_id(workspace, _name(bundle))
    spec = _spec(name, bundle, {device.name: device.labels for device in devices}, options)
    first = next((stage.devices for stage in spec.stages if stage.devices), ())
    with recording_store(store, workspace) as opened:
        chain = load_chain(chain_path(workspace))
        refuse_older(opened, bundle, devices, first=first, timeout_s=_TIMEOUT_S, chain=chain)
    refuse_without_edgetpu(bundle, devices, first=first, timeout_s=_TIMEOUT_S)
    return spec


def start(
    workspace: Path,
    path: Path,
    bundle: Bundle,
    devices: Iterable[Device],
    options: RolloutOptions,
    *,
    retry_policy: RetryPolicy = NO_RETRY,
    observer: Observer | None = None,
    store: Store | None = None,
) -> Rollout:
    """Begin a rollout, and drive it until it is done or needs a decision of the operator.

    Args:
        path: the bundle's file; a copy is kept with the rollout.
        bundle: its content, as it was confirmed.
        store: where the run is recorded; the workspace's store by default.

    Raises:
        UsageError: the file was replaced meanwhile, or the options are invalid.
        RolloutError: another rollout of the model to one of the devices is not finished (EQ823), devices have
            committed a newer release (EQ827), or the journal cannot be written (EQ826).
    """
    devices = tuple(devices)
    labels = {device.name: device.labels for device in devices}
    data = bytes_of(path, bundle)
    with recording_store(store, workspace) as opened_store:
        preview(workspace, bundle, devices, options, store=opened_store)
        # The monitor compares this release's telemetry with the drift reference of its bundle.
        opened_store.put_release(bundle.release, bundle.manifest, bundle.reference.to_json())
        with rollout_store.begin(
            workspace,
            name=_name(bundle),
            bundle=data,
            make_spec=lambda rollout_id: _spec(rollout_id, bundle, labels, options),
        ) as opened:
            _drive(workspace, opened, retry_policy, observer)
        _record(opened_store, opened.rollout)
    return opened.rollout


def resume(
    workspace: Path,
    rollout_id: str,
    *,
    retry_failed: bool = False,
    accept: bool = False,
    retry_policy: RetryPolicy = NO_RETRY,
    observer: Observer | None = None,
    store: Store | None = None,
) -> Rollout:
    """Continue a rollout after a pause, or after its controller died.

    Args:
        retry_failed: deploy again to the devices that failed.
        accept: continue without the failed devices of the stage that paused the rollout.
        store: where the run is recorded; the workspace's store by default.

    Raises:
        UnknownName: there is no such rollout.
        RolloutBusy: it has a controller already.
        RolloutError: its state does not allow it (EQ825).
    """
    with recording_store(store, workspace) as opened_store:
        with rollout_store.reopen(workspace, rollout_id) as opened:
            for event in _resume_events(opened.rollout, retry_failed=retry_failed, accept=accept):
                opened.append(event)
            _drive(workspace, opened, retry_policy, observer)
        _record(opened_store, opened.rollout)
    return opened.rollout


def roll_back(
    workspace: Path,
    rollout_id: str,
    *,
    confirm: Callable[[int], bool] | None = None,
    retry_policy: RetryPolicy = NO_RETRY,
    observer: Observer | None = None,
    store: Store | None = None,
) -> Rollout | None:
    """Restore, on each device that a rollout changed, the release that served there before it.

    Args:
        confirm: called with the number of devices; if it returns False, nothing is changed.
        store: where the run is recorded; the workspace's store by default.

    Returns:
        The rollout, or None when it was not confirmed.
    """
    with recording_store(store, workspace) as opened_store:
        with rollout_store.reopen(workspace, rollout_id) as opened:
            if confirm is not None and not confirm(len(to_restore(opened.rollout))):
                return None
            if opened.rollout.state is not RolloutState.ROLLING_BACK:
                opened.append(RollingBack(reason=REQUESTED))
            _drive(workspace, opened, retry_policy, observer)
        _record(opened_store, opened.rollout)
    return opened.rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What `pause` or `abort` did.

    Attributes:
        requested: whether it was left to a running controller to do.
    """

    rollout: Rollout
    requested: bool


def pause(workspace: Path, rollout_id: str) -> Intervention:
    """Pause a rollout: deploys in progress are finished, no other one is started.

    Raises:
        RolloutError: its state does not allow it (EQ825).
    """
    return _intervene(workspace, rollout_id, "pause", Paused(reason=REQUESTED), NO_RETRY, None)


def abort(
    workspace: Path,
    rollout_id: str,
    *,
    retry_policy: RetryPolicy = NO_RETRY,
    observer: Observer | None = None,
) -> Intervention:
    """Abort a rollout, and do what its `on_abort` says.

    Raises:
        RolloutError: its state does not allow it (EQ825).
    """
    return _intervene(workspace, rollout_id, "abort", Aborted(reason=REQUESTED), retry_policy, observer)


def latest(workspace: Path, bundle: Bundle) -> Rollout | None:
    """Return the last rollout of a bundle's release, or None."""
    matching = [
        rollout
        for rollout in rollout_store.read_all(workspace)
        if not isinstance(rollout, RolloutDamaged)
        and (rollout.spec.model, rollout.spec.release) == (bundle.model, bundle.release)
    ]
    return matching[-1] if matching else None


def _name(bundle: Bundle) -> str:
    return f"{bundle.model}-{bundle.release[:8]}"


def _spec(
    rollout_id: str, bundle: Bundle, labels: Mapping[str, Mapping[str, str]], options: RolloutOptions
) -> RolloutSpec:
    stages = parse_stages(options.stages)
    parts = partition(stages, labels, seed=rollout_id)
    return RolloutSpec(
        rollout=rollout_id,
        model=bundle.model,
        release=bundle.release,
        selectors=options.selectors,
        stages=tuple(
            StageSpec(text=stage.text, devices=part) for stage, part in zip(stages, parts, strict=True)
        ),
        rules=parse_rules(options.abort),
        soak_s=options.soak_s,
        soak=options.soak,
        on_abort=options.on_abort,
        at_once=options.at_once,
    )


def _drive(
    workspace: Path, opened: OpenRollout, retry_policy: RetryPolicy, observer: Observer | None
) -> None:
    """Be the controller until the rollout is done or needs a decision of the operator."""
    rollout, watcher = opened.rollout, observer or Silent()
    devices = {device.name: device for device in Inventory.load(workspace).devices}
    runner = Runner(
        rollout=rollout,
        journal=opened.journal,
        deployer=FleetDeployer(
            devices,
            read_bundle(opened.folder / BUNDLE),
            workspace=workspace,
            timeout_s=_TIMEOUT_S,
            soak_s=rollout.spec.soak_s,
            retry_policy=retry_policy,
        ),
        pool=ThreadPool(),
        clock=SystemClock(),
        request=opened.request,
        on_event=lambda event: watcher.event(rollout, event),
    )
    watcher.started(rollout)
    runner.run()


def _record(store: Store, rollout: Rollout) -> None:
    store.record_run("rollout", rollout.spec.model, view.to_dict(rollout))


def _resume_events(rollout: Rollout, *, retry_failed: bool, accept: bool) -> list[Event]:
    """Return the events that set a rollout going again.

    Raises:
        RolloutError: its state does not allow it (EQ825).
    """
    name, state = rollout.spec.rollout, rollout.state
    if retry_failed:
        if state in (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK):
            hint = "start a new rollout with `edgeq deploy BUNDLE --to DEVICE --stages STAGES`"
            raise _not_now(name, f"is {state.value}", hint)
        failed = [device for device, record in rollout.records.items() if record.outcome in FAILURES]
        return [Retried(devices=tuple(failed))]
    if accept and (state is not RolloutState.PAUSED or rollout.gate is None):
        raise _not_now(
            name,
            f"is {state.value} and was not paused at the end of a stage",
            f"`edgeq rollout show {name}`",
        )
    if state is RolloutState.PAUSED:
        return [Resumed(accepted=rollout.gate if accept else None)]
    if state in (RolloutState.DONE, RolloutState.ROLLED_BACK):
        raise _not_now(name, f"is {state.value}: nothing is left to do", f"`edgeq rollout show {name}`")
    return []  # running, soaking, aborted, rolling back: its controller died


def _intervene(
    workspace: Path,
    rollout_id: str,
    request: str,
    event: Paused | Aborted,
    retry_policy: RetryPolicy,
    observer: Observer | None,
) -> Intervention:
    rollout = rollout_store.read(workspace, rollout_id)
    if rollout.state not in ALLOWED[event.kind]:
        raise _not_now(rollout_id, f"is {rollout.state.value}", f"`edgeq rollout show {rollout_id}`")
    # The request first, then the lease: if the controller ends between the two, this process takes over.
    rollout_store.ask(workspace, rollout_id, request)
    try:
        with rollout_store.reopen(workspace, rollout_id) as opened:
            if opened.rollout.state in ALLOWED[event.kind]:
                opened.append(event)
            if isinstance(event, Aborted):
                _drive(workspace, opened, retry_policy, observer)
            return Intervention(rollout=opened.rollout, requested=False)
    except RolloutBusy:
        return Intervention(rollout=rollout, requested=True)


def _not_now(name: str, problem: str, hint: str) -> RolloutError:
    return RolloutError(name, problem, hint=hint, code="EQ825")
