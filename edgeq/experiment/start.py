"""Start an experiment: record it, stage the candidate on each device, and split the calls or the devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.bundle.archive import Bundle, bytes_of
from edgeq.errors import EdgeqError, ExperimentError, UsageError
from edgeq.experiment import record
from edgeq.experiment.config import ExperimentConfig, ExperimentTerms, SplitBy, assign
from edgeq.experiment.record import Experiment, ExperimentState
from edgeq.fleet.apply import OnProgress
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.operations import status
from edgeq.fleet.parallel import combined_error, on_each
from edgeq.fleet.split import Split, SplitArm, SplitStart, end_split, start_split
from edgeq.store import Store, recording_store
from edgeq.values import Device
from edgeq.version import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedDevice:
    """How the start went on one device.

    Attributes:
        arm: `a` or `b` in a split by devices, `ab` in a split by calls.
        result: None when it failed.
        error: why it failed; None when it did not.
    """

    device: str
    arm: str
    result: SplitStart | None = None
    error: EdgeqError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the device in `--json` and in the store."""
        entry: dict[str, Any] = {"device": self.device, "ok": self.error is None, "arm": self.arm}
        if self.result is not None:
            entry.update(self.result.to_dict())
        if self.error is not None:
            entry["error"] = self.error.to_dict()
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedExperiment:
    """What `start_experiment` did.

    Attributes:
        devices: first those on which it runs, then those that failed.
    """

    experiment: Experiment
    devices: tuple[StartedDevice, ...]

    @property
    def failed(self) -> Mapping[str, EdgeqError]:
        """The errors by device."""
        return {entry.device: entry.error for entry in self.devices if entry.error is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment and its devices as in `--json`."""
        return {**self.experiment.to_dict(), "devices": [entry.to_dict() for entry in self.devices]}


def start_experiment(
    bundle: Bundle,
    devices: Sequence[Device],
    terms: ExperimentTerms | None = None,
    *,
    workspace: Path,
    on_resume: Callable[[Experiment], None] | None = None,
    on_event: OnProgress | None = None,
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> StartedExperiment:
    """Start an experiment between the current release and that of a bundle; a second run resumes it.

    The experiment is recorded before a device is changed. A failure on one device leaves the others alone.

    Args:
        bundle: the candidate, with its file, of which a copy is kept in the workspace.
        terms: the defaults of `ExperimentTerms` if None.
        workspace: holds the copy, the cache of wheels and, by default, the store.
        on_resume: called with the experiment that is resumed, before a device is changed.
        on_event: called with the progress of each device, also from other threads.
        store: where the experiment is recorded; the workspace's store by default.

    Raises:
        ExperimentError: EQ830 the copy cannot be written, EQ832 another experiment, EQ834 another process
            ended it meanwhile, EQ835 too few devices, EQ836 nothing to compare, EQ837 the devices serve
            different releases.
        UsageError: there are no devices, or the bundle's file was replaced.
        EdgeqError: no device can be reached.
        StoreError: the store cannot be opened.
    """
    if not devices:
        raise UsageError("devices", expected="at least one", got="none")
    if bundle.path is None:
        raise UsageError("bundle", expected="a bundle that was read from a file", got="one without a path")
    terms = terms or ExperimentTerms()
    with recording_store(store, workspace) as opened:
        with record.changing(workspace):
            experiment = _running(opened, bundle, devices, terms)
            if experiment is None:
                config = _config(opened, bundle, devices, terms)
                experiment = _record_new(opened, bundle.path, bundle, config, workspace=workspace)
            elif on_resume is not None:
                on_resume(experiment)
        config = experiment.config
        results = on_each(
            devices,
            lambda device: start_split(
                device,
                bundle,
                _split(config, device.name),
                workspace=workspace,
                on_event=on_event,
                retry_policy=retry_policy,
            ),
        )
        _undo_if_ended(opened, experiment, [device for device in devices if device.name in results.done])
        started = StartedExperiment(
            experiment=experiment,
            devices=(
                *(
                    StartedDevice(device=name, arm=config.arms[name], result=result)
                    for name, result in results.done.items()
                ),
                *(
                    StartedDevice(device=name, arm=config.arms[name], error=error)
                    for name, error in results.failed.items()
                ),
            ),
        )
        entries = [entry.to_dict() for entry in started.devices]
        opened.record_run("ab", config.model, {"experiment": config.experiment, "devices": entries})
    return started


def _running(
    store: Store, bundle: Bundle, devices: Sequence[Device], terms: ExperimentTerms
) -> Experiment | None:
    """Return the experiment with these terms that runs on exactly these devices, or None.

    Raises:
        ExperimentError: EQ832, another experiment of the model is on one of the devices.
    """
    names = {device.name for device in devices}
    for experiment in record.read_all(store):
        config = experiment.config
        if experiment.finished or config.model != bundle.model or not names & set(config.devices):
            continue
        same = terms.fit(config) and config.release_b == bundle.release and set(config.devices) == names
        if same and experiment.state is ExperimentState.RUNNING:
            return experiment
        problem = "runs there with other terms than these"
        if experiment.state is not ExperimentState.RUNNING:
            problem = f"is {experiment.state.value}, but not gone from {', '.join(experiment.open)}"
        raise ExperimentError(
            bundle.model,
            f"experiment {config.experiment} {problem}",
            hint=f"`edgeq ab stop {config.experiment}` ends it; `edgeq ab list` shows its terms",
            code="EQ832",
        )
    return None


def _record_new(
    store: Store, path: Path, bundle: Bundle, config: ExperimentConfig, *, workspace: Path
) -> Experiment:
    # The bundle first, so that every recorded experiment can be promoted.
    record.keep_bundle(workspace, config.experiment, bytes_of(path, bundle))
    store.put_release(bundle.release, bundle.manifest, bundle.reference.to_json())
    body = {"terms": config.to_dict(), "edgeq": VERSION, "bundle": str(path)}
    store.record_experiment(config.experiment, "started", record.actor(), body)
    return record.find(store, config.experiment)


def _config(
    store: Store, bundle: Bundle, devices: Sequence[Device], terms: ExperimentTerms
) -> ExperimentConfig:
    if terms.by is SplitBy.DEVICES and len(devices) < 2:
        raise ExperimentError(
            "--by devices", expected="at least 2 devices", got=str(len(devices)), code="EQ835",
            hint="choose more with --to, or divide the calls with --by calls",
        )  # fmt: skip
    current = _current_release(bundle, devices)
    experiment = record.next_name(store, bundle.model, bundle.release)
    salt = terms.salt or experiment
    names = [device.name for device in devices]
    by_devices = terms.by is SplitBy.DEVICES
    return ExperimentConfig(
        experiment=experiment,
        model=bundle.model,
        release_a=current,
        release_b=bundle.release,
        by=terms.by,
        share=terms.share,
        salt=salt,
        arms=assign(names, terms.share, salt) if by_devices else dict.fromkeys(names, "ab"),
        alpha=terms.alpha,
        worse_by=terms.worse_by,
        slower_by=terms.slower_by,
    )


def _current_release(bundle: Bundle, devices: Sequence[Device]) -> str:
    """Return the release that all reachable devices serve; the others must serve it when they are reached."""
    statuses = on_each(devices, status)
    if not statuses.done:
        error = combined_error(statuses.failed, device_count=len(devices), what="ab start")
        assert error is not None  # noqa: S101 - none was done, so some failed
        raise error
    models = {name: answer.model(bundle.model) for name, answer in statuses.done.items()}
    _refuse(
        [name for name, model in models.items() if model.current is None],
        f"serves no release of {bundle.model}: there is nothing to compare with",
        remedy="deploy one first",
    )
    current = {name: str(model.current) for name, model in models.items()}
    _refuse(
        [name for name, release in current.items() if release == bundle.release],
        f"serves {bundle.release[:12]} already: there is nothing to compare",
        remedy="roll back first",
    )
    _refuse(
        [name for name, model in models.items() if model.proof == "ran"],
        f"runs {bundle.model} by benchmark_model, which gives no answers to compare",
    )
    releases = sorted(set(current.values()))
    if len(releases) > 1:
        listed = "; ".join(f"{name} {release[:12]}" for name, release in current.items())
        raise ExperimentError(
            bundle.model, f"the devices serve different releases: {listed}", code="EQ837",
            hint="deploy one release to all of them first, or choose devices that serve the same one",
        )  # fmt: skip
    return releases[0]


def _refuse(devices: Sequence[str], problem: str, *, remedy: str | None = None) -> None:
    """Raise EQ836 if any devices have the problem; its hint is the remedy, or to leave them out."""
    if devices:
        names = ", ".join(devices)
        hint = f"leave {names} out" if remedy is None else f"{remedy}, or leave {names} out"
        raise ExperimentError(names, problem, hint=hint, code="EQ836")


def _split(config: ExperimentConfig, device: str) -> Split:
    weights = config.weights(device)
    return Split(
        experiment=config.experiment,
        model=config.model,
        base=config.release_a,
        arms=tuple(
            SplitArm(name=arm, release=release, weight=weights[arm])
            for arm, release in config.releases.items()
        ),
        salt=config.salt,
        each_call=config.by is SplitBy.CALLS,
    )


def _undo_if_ended(store: Store, experiment: Experiment, devices: Sequence[Device]) -> None:
    """Undo the start on devices if another process ended the experiment meanwhile.

    Raises:
        ExperimentError: EQ834, it was ended meanwhile.
    """
    config = experiment.config
    latest = record.find(store, config.experiment)
    if latest.state is ExperimentState.RUNNING:
        return
    undone = on_each(
        devices,
        lambda device: end_split(
            device, experiment=config.experiment, model=config.model, release=config.release_b
        ),
    )
    still_there = f", and is still there on {', '.join(undone.failed)}" if undone.failed else ""
    raise ExperimentError(
        config.experiment, f"was {latest.state.value} while it was started here{still_there}", code="EQ834",
        hint=f"`edgeq ab status {config.experiment}` shows who ended it, and why",
    )  # fmt: skip
