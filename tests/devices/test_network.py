"""A fleet on a network that fails: partitions, lost answers, a slow link, a power cut in the middle."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.archive import Bundle
from edgeq.errors import DeviceTimeout, EdgeqError, LinkLost, TransportError, Unreachable
from edgeq.fleet.apply import OnProgress, Progress
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import DeployResult, deploy_one
from edgeq.fleet.operations import status
from edgeq.fleet.parallel import on_each
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq.values import Device
from tests.lab import publisher
from tests.lab.device import LabDevice, Spec, layer_of, running
from tests.lab.network import Network, network
from tests.lab.roots import Recipe, root_of
from tests.lab.session import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
# Read once: the tests take EDGEQ_* out of their environment.
COUNT = int(os.environ.get("EDGEQ_LAB_DEVICES") or 10)
# What noticing a dead link may take here: a generous multiple of what the transport promises.
BOUND_S = 60.0
SILENT = (Unreachable, DeviceTimeout, LinkLost)


# Releases of this module's own, each later than those that the session shares.
_NUMBERS = itertools.count(20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Devices that are enrolled, each in a network namespace of its own."""

    network: Network
    machines: list[LabDevice]
    devices: tuple[Device, ...]
    workspace: Path

    def deploy(self, number: int, bundle: Bundle, on_event: OnProgress | None = None) -> DeployResult:
        return deploy_one(
            self.devices[number], bundle, workspace=self.workspace, on_event=on_event, timeout_s=5
        )

    def release(self, **more: Any) -> Bundle:
        """Return a release that is later than all before."""
        number = next(_NUMBERS)
        path = self.workspace / f"{number}.eqb"
        return write_tiny_bundle(path, seed=number, workspace=publisher.folder(), **more)

    def serves(self, number: int) -> str | None:
        return status(self.devices[number]).model("double").current


@pytest.fixture(scope="module")
def fleet(
    lab: Lab, releases: dict[str, Bundle], wheels_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    workspace = tmp_path_factory.mktemp("workspace")
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    spec = Spec(layers=(root_of(Recipe(arch="amd64")),))
    # The runtime is shipped to one device; the others have it from there, as if they had got it last week.
    with running(lab.device(spec, "first")) as first:
        deploy_one(first.access.enrol(workspace).device, releases["first"], workspace=workspace)
        shipped = spec.with_layer(layer_of(first, lab.scratch / "amd64-runtime", ".edgeq/runtime"))
    with network(lab.scratch / "network", lab.identity) as made:
        machines = made.add(shipped, COUNT)
        lab.devices.extend(machines)
        devices = [machine.access.enrol(workspace).device for machine in machines]
        yield Fleet(network=made, machines=machines, devices=tuple(devices), workspace=workspace)


@pytest.fixture(autouse=True)
def _healed(fleet: Fleet) -> Iterator[None]:
    """Every test begins with all devices up and all links whole."""
    yield
    for machine in fleet.machines:
        fleet.network.heal(machine)
        if not machine.running:
            machine.boot()


def test_each_device_is_one_of_its_own(fleet: Fleet) -> None:
    def ask(device: Device) -> str:
        with open_agent(device) as client:
            return client.facts().device_id

    answers = on_each(fleet.devices, ask)
    assert not answers.failed
    assert len(set(answers.done.values())) == COUNT


def test_a_deploy_to_all_survives_a_partition_and_a_power_cut_and_converges(
    fleet: Fleet, releases: dict[str, Bundle]
) -> None:
    """Two devices are lost while the bundle is on its way to them; the others are done all the same."""
    lost, dead = 1, 2
    bundle = releases["large"]
    names = [device.name for device in fleet.devices]
    before = on_each(fleet.devices, lambda device: fleet.deploy(names.index(device.name), releases["first"]))
    assert not before.failed, before.failed

    def break_it(number: int) -> OnProgress:
        broken = threading.Event()

        def on_event(progress: Progress) -> None:
            if not progress.reached and not broken.is_set():
                broken.set()
                if number == lost:
                    fleet.network.partition(fleet.machines[lost])
                elif number == dead:
                    fleet.network.cut_power(fleet.machines[dead])

        return on_event

    def deploy(device: Device) -> DeployResult:
        number = names.index(device.name)
        return fleet.deploy(number, bundle, break_it(number))

    started_s = time.monotonic()
    results = on_each(fleet.devices, deploy)
    assert time.monotonic() - started_s < BOUND_S + 6 * COUNT
    assert set(results.failed) == {names[lost], names[dead]}
    for error in results.failed.values():
        assert isinstance(error, SILENT), error
        assert error.transient, "a link that failed is worth another try"
    assert {outcome.release for outcome in results.done.values()} == {bundle.release}

    fleet.network.heal(fleet.machines[lost])
    fleet.network.boot(fleet.machines[dead])
    for number in (lost, dead):
        assert fleet.serves(number) == releases["first"].release, "what served before still serves"
        assert fleet.deploy(number, bundle).changed
    again = on_each(fleet.devices, lambda device: fleet.deploy(names.index(device.name), bundle))
    assert all(outcome.plan.is_empty and outcome.sent_bytes == 0 for outcome in again.done.values())
    assert {fleet.serves(number) for number in range(COUNT)} == {bundle.release}


def test_a_device_behind_a_partition_is_unreachable_in_bounded_time(fleet: Fleet) -> None:
    release = fleet.release()
    fleet.network.partition(fleet.machines[3])
    error, seconds = failure(lambda: fleet.deploy(3, release))
    assert isinstance(error, (Unreachable, DeviceTimeout)), error
    assert seconds < 20
    fleet.network.heal(fleet.machines[3])
    fleet.deploy(3, release)
    assert fleet.serves(3) == release.release


def test_a_lost_answer_is_reconciled_with_what_the_device_did(fleet: Fleet) -> None:
    """The request to activate arrives, and nothing comes back: was it done? The device knows."""
    fleet.deploy(4, fleet.release())
    second = fleet.release()

    def lose(progress: Progress) -> None:
        if progress.reached == "staged":
            fleet.network.lose_answers(fleet.machines[4])

    error, seconds = failure(lambda: fleet.deploy(4, second, lose))
    assert isinstance(error, (DeviceTimeout, LinkLost)), error
    assert seconds < BOUND_S
    fleet.network.heal(fleet.machines[4])
    deadline_s = time.monotonic() + 30
    while fleet.serves(4) != second.release:
        assert time.monotonic() < deadline_s, "the device had all it needed"
        time.sleep(0.5)
    again = fleet.deploy(4, second)
    assert again.plan.is_empty
    assert (again.changed, again.sent_bytes) == (False, 0), "nothing is done twice"


def test_a_slow_link_takes_its_time_and_arrives(fleet: Fleet) -> None:
    second = fleet.release()
    fleet.deploy(5, second)
    with open_agent(fleet.devices[5]) as client:
        before = client.call("status", {})["models"]["double"]["current"]
    assert before == second.release
    fleet.network.slow(fleet.machines[5], 4000)
    bundle = fleet.release(padding_bytes=2_500_000)
    outcome = fleet.deploy(5, bundle)
    assert outcome.changed
    assert outcome.duration_s > outcome.sent_bytes * 8 / 4_000_000 * 0.8, "the link was not slow"
    assert fleet.serves(5) == bundle.release


def test_a_power_cut_between_two_deploys_changes_nothing(fleet: Fleet) -> None:
    second = fleet.release()
    fleet.deploy(6, second)
    fleet.network.cut_power(fleet.machines[6])
    error, seconds = failure(lambda: fleet.deploy(6, fleet.release()))
    assert isinstance(error, (Unreachable, DeviceTimeout)), error
    assert seconds < 20
    fleet.network.boot(fleet.machines[6])
    assert fleet.serves(6) == second.release
    assert fleet.deploy(6, second).plan.is_empty


def failure(action: Callable[[], object]) -> tuple[EdgeqError, float]:
    """Return how an action fails, and after how many seconds."""
    started_s = time.monotonic()
    with pytest.raises(TransportError) as caught:
        action()
    return caught.value, time.monotonic() - started_s
