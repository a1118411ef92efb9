"""Experiments from Python leave the records, and the devices, that `edgeq ab` leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

import edgeq
from edgeq.bundle import read_bundle
from edgeq.cli import main
from edgeq.errors import BundleError, ExitStatus, NotJustified, UsageError
from edgeq.experiment import Decision, Experiment, ExperimentState, ExperimentTerms, record
from edgeq.fleet.apply import Progress
from edgeq.fleet.deploy import deploy_one
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.rollout.operations import RolloutOptions
from edgeq.store import Store
from edgeq.testing.loopback import LoopbackDevice, loopback_device
from tests.fleet.cli import Cli
from tests.fleet.test_ab import add, state
from tests.fleet.test_records import shape


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackDevice]:
    """A device whose runtime is built once."""
    with loopback_device(tmp_path_factory.mktemp("pi")) as device:
        yield device


@pytest.fixture
def pi(cli: Cli, site: Path, bundles: dict[str, Path], running: LoopbackDevice) -> LoopbackDevice:
    """An enrolled device on which the first release serves."""
    add(cli, running, "pi")
    begin(site, running, bundles)
    return running


def begin(site: Path, device: LoopbackDevice, bundles: dict[str, Path]) -> None:
    """Let the first release serve on the device, which knows of no later one, and empty the workspace."""
    folder = device.home / ".edgeq"
    shutil.rmtree(folder / "models" / "double", ignore_errors=True)
    trust = json.loads((folder / "trust.json").read_text())
    (folder / "trust.json").write_text(json.dumps({**trust, "counters": {}}))
    deploy_one(Inventory.load(site).get("pi"), read_bundle(bundles["first"]), workspace=site)
    empty(site)


def empty(site: Path) -> None:
    """Remove the records of a workspace; its devices stay enrolled."""
    for name in ("experiments", "rollouts"):
        shutil.rmtree(site / ".edgeq" / name, ignore_errors=True)
    for path in (site / ".edgeq").glob("store.db*"):
        path.unlink()


class Caller(Protocol):
    """Starts and ends experiments in one of the two ways."""

    def start(self, *devices: str) -> None:
        """Start an experiment on devices, or resume it."""

    def stop(self) -> None:
        """Stop it."""

    def decide(self, decision: Decision, *, stages: str | None = None) -> None:
        """Decide it against the data."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """By `edgeq ab`; some devices may fail."""

    bundle: Path

    def start(self, *devices: str) -> None:
        to = [word for name in devices for word in ("--to", name)]
        self._run("start", str(self.bundle), *to, "--share", "0.5", "--retries", "0")

    def stop(self) -> None:
        self._run("stop", "--because", "wrong labels", "--retries", "0")

    def decide(self, decision: Decision, *, stages: str | None = None) -> None:
        more = () if stages is None else ("--stages", stages)
        argv = ("decide", f"--{decision.value}", "--because", "x", "--anyway", "--retries", "0", *more)
        self._run(*argv)

    def _run(self, *argv: str) -> None:
        assert main(["ab", *argv]) in (ExitStatus.OK, ExitStatus.SOME_DEVICES_FAILED)


@dataclass(frozen=True, kw_only=True)
class Api:
    """By the functions of `edgeq`."""

    workspace: Path
    bundle: Path

    def start(self, *devices: str) -> None:
        edgeq.start_experiment(
            read_bundle(self.bundle),
            Inventory.load(self.workspace).select(devices),
            ExperimentTerms(share=0.5),
            workspace=self.workspace,
        )

    def stop(self) -> None:
        edgeq.stop_experiment(because="wrong labels", workspace=self.workspace)

    def decide(self, decision: Decision, *, stages: str | None = None) -> None:
        edgeq.decide_experiment(
            None,
            decision,
            because="x",
            anyway=True,
            stages=None if stages is None else RolloutOptions(stages=stages),
            workspace=self.workspace,
        )


def start_resume_and_stop(caller: Caller) -> None:
    caller.start("pi")
    caller.start("pi")
    caller.stop()
    caller.stop()


def reject(caller: Caller) -> None:
    caller.start("pi")
    caller.decide(Decision.REJECT)


def promote(caller: Caller) -> None:
    caller.start("pi")
    caller.decide(Decision.PROMOTE)


def promote_in_stages(caller: Caller) -> None:
    caller.start("pi")
    caller.decide(Decision.PROMOTE, stages="all")


def one_device_fails(caller: Caller) -> None:
    caller.start("pi", "off")
    caller.decide(Decision.REJECT)


@dataclass(frozen=True, kw_only=True)
class Records:
    """What an operation leaves in the store.

    Attributes:
        events: of the experiment: event, user, body.
        runs: kind, subject, body.
    """

    events: list[Any]
    runs: list[Any]
    releases: list[str]


def records(workspace: Path) -> Records:
    with Store.open(workspace) as store:
        return Records(
            events=[(event.event, event.actor, shape(event.body)) for event in store.experiments()],
            runs=[(run.kind, run.subject, shape(run.body)) for run in reversed(store.runs())],
            releases=[release.release for release in store.releases()],
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operate", "events", "runs"),
    [
        (start_resume_and_stop, ["started", "stopped", "closed"], ["ab", "ab", "ab", "ab"]),
        (reject, ["started", "rejected", "closed"], ["ab", "ab"]),
        (promote, ["started", "promoted", "closed"], ["ab", "ab"]),
        (promote_in_stages, ["started", "promoted", "closed"], ["ab", "rollout", "ab"]),
        (one_device_fails, ["started", "rejected", "closed"], ["ab", "ab"]),
    ],
)
def test_the_api_leaves_the_records_of_the_command_line(
    cli: Cli,
    pi: LoopbackDevice,
    site: Path,
    bundles: dict[str, Path],
    tmp_path: Path,
    operate: Callable[[Caller], None],
    events: list[str],
    runs: list[str],
) -> None:
    if operate is one_device_fails:
        with loopback_device(tmp_path / "off") as off:
            add(cli, off, "off")
        empty(site)  # an enrolment is recorded, too
    operate(Command(bundle=bundles["second"]))
    by_command, device_by_command = records(site), state(pi)
    assert [event for event, _, _ in by_command.events] == events
    assert [kind for kind, _, _ in by_command.runs] == runs
    assert by_command.releases == [read_bundle(bundles["second"]).release]
    assert by_command.events[-1][2] == {"devices": ["pi"]}
    if operate is one_device_fails:
        for _, _, body in by_command.runs:
            outcomes = [(entry["device"], entry["ok"]) for entry in body["devices"]]
            assert outcomes == [("pi", True), ("off", False)]

    begin(site, pi, bundles)
    operate(Api(workspace=site, bundle=bundles["second"]))
    assert records(site) == by_command
    assert state(pi) == device_by_command


def start(site: Path, bundles: dict[str, Path], **more: Any) -> Experiment:
    devices = Inventory.load(site).select(["pi"])
    bundle = read_bundle(bundles["second"])
    return edgeq.start_experiment(bundle, devices, workspace=site, **more).experiment


@pytest.mark.slow
def test_a_start_reports_its_progress_and_whether_it_resumes(
    pi: LoopbackDevice, site: Path, bundles: dict[str, Path]
) -> None:
    resumed: list[Experiment] = []
    progress: list[Progress] = []
    experiment = start(site, bundles, on_resume=resumed.append, on_event=progress.append)
    assert resumed == []
    assert {event.device for event in progress} == {"pi"}
    assert start(site, bundles, on_resume=resumed.append) == experiment
    assert resumed == [experiment]


@pytest.mark.slow
def test_the_status_is_that_of_the_command_line(
    cli: Cli, pi: LoopbackDevice, site: Path, bundles: dict[str, Path]
) -> None:
    experiment = start(site, bundles)
    status = edgeq.experiment_status(workspace=site)
    assert status.experiment == experiment
    assert status.justified == ()
    shown = cli.json("ab", "status")
    assert shown["objections"]["reject"] == ["nothing shows that B is worse"]
    assert shown == json.loads(json.dumps({"schema": shown["schema"], **finite(status.to_dict())}))


def finite(value: Any) -> Any:
    """Return a document with null for infinite numbers, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


@pytest.mark.slow
def test_a_decision_that_cannot_be_carried_out_is_not_recorded(
    pi: LoopbackDevice, site: Path, bundles: dict[str, Path]
) -> None:
    experiment = start(site, bundles)
    name = experiment.config.experiment

    def decide(decision: Decision = Decision.PROMOTE, **more: Any) -> None:
        arguments = {"because": "x", "anyway": True, "workspace": site, **more}
        edgeq.decide_experiment(name, decision, **arguments)

    with pytest.raises(UsageError, match="expected a reason"):
        decide(because=" ")
    with pytest.raises(UsageError, match="only a promotion has stages"):
        decide(Decision.REJECT, stages=RolloutOptions(stages="all"))
    with pytest.raises(UsageError, match="expected a"):
        decide(stages=RolloutOptions(stages="moon"))
    with pytest.raises(NotJustified):
        decide(anyway=False)
    copy = record.bundle_path(site, name)
    away = copy.rename(copy.with_suffix(".away"))
    with pytest.raises(BundleError):
        decide()
    away.rename(copy)
    assert edgeq.experiment_status(name, workspace=site).experiment.state is ExperimentState.RUNNING
    decide()
    assert edgeq.experiment_status(name, workspace=site).experiment.state is ExperimentState.PROMOTED


@pytest.mark.slow
def test_a_start_without_devices_or_of_a_bundle_that_was_replaced_is_not_recorded(
    pi: LoopbackDevice, site: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "candidate.eqb"
    shutil.copy(bundles["second"], path)
    bundle = read_bundle(path)
    devices = Inventory.load(site).select(["pi"])
    with pytest.raises(UsageError, match="devices: expected at least one"):
        edgeq.start_experiment(bundle, [], workspace=site)
    with pytest.raises(UsageError, match="read from a file"):
        edgeq.start_experiment(replace(bundle, path=None), devices, workspace=site)
    shutil.copy(bundles["padded"], path)
    with pytest.raises(UsageError, match="was replaced while it was read"):
        edgeq.start_experiment(bundle, devices, workspace=site)
    assert records(site) == Records(events=[], runs=[], releases=[])
