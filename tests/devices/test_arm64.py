"""A 64-bit ARM device, from nothing to the same int8 answers as this machine's, bit for bit."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.bundle.archive import Bundle, read_bundle
from edgeq.cli import main
from edgeq.errors import HealthCheckFailed
from edgeq.evaluation import dequantized, run
from edgeq.fleet.deploy import DeployResult, deploy_one
from edgeq.fleet.enrol import Enrolment
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.operations import infer, rollback, status
from edgeq.kernels import from_json, shipped_tables, table_for
from edgeq.store import Store
from edgeq.values import Device, DeviceKind
from tests.lab import publisher
from tests.lab.boards import PI_4
from tests.lab.device import LabDevice, Spec, layer_of, running
from tests.lab.roots import Recipe, root_of
from tests.lab.session import Boot, Lab

pytestmark = [pytest.mark.lab, pytest.mark.convert, pytest.mark.timeout(900)]
SHIPPED = (".edgeq/runtime", ".edgeq/blobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A device that was enrolled and serves the int8 model, running."""

    device: LabDevice
    workspace: Path
    enrolment: Enrolment
    outcome: DeployResult


@pytest.fixture(scope="module")
def spec() -> Spec:
    return Spec(layers=(root_of(Recipe(arch="arm64")),), board=PI_4)


@pytest.fixture(scope="module")
def deployed(
    lab: Lab, spec: Spec, int8_model: Path, wheels_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """A Raspberry Pi 4 with its own Python and sshd, and nothing of edgeq before this."""
    workspace = tmp_path_factory.mktemp("workspace")
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    with running(lab.device(spec, "pi-4")) as device:
        enrolment = device.access.enrol(workspace, kind=DeviceKind.RASPBERRY_PI)
        outcome = deploy_one(enrolment.device, read_bundle(int8_model / "bundle.eqb"), workspace=workspace)
        yield Deployed(device=device, workspace=workspace, enrolment=enrolment, outcome=outcome)


@pytest.fixture(scope="module")
def shipped(deployed: Deployed, lab: Lab, spec: Spec) -> Spec:
    """The same kind of device, with the runtime there already."""
    return spec.with_layer(layer_of(deployed.device, lab.scratch / "arm64-runtime", *SHIPPED))


def test_the_device_says_what_it_is(deployed: Deployed) -> None:
    facts = deployed.enrolment.facts
    assert (facts.machine, facts.pointer_bits, facts.implementation) == ("aarch64", 64, "cpython")
    assert (facts.libc, facts.libc_version) == ("glibc", "2.36")
    assert facts.model == PI_4.model
    assert facts.document["kind"] == "raspberry-pi"
    assert facts.memory_bytes == PI_4.memory_kib * 1024
    assert facts.measures["temperature"]["available"]
    assert not facts.measures["energy"]["available"]


def test_the_runtime_that_was_shipped_is_arms(deployed: Deployed) -> None:
    assert deployed.outcome.changed
    entry = status(deployed.enrolment.device)
    assert entry.models["shapes"].state == "committed"
    (folder,) = (deployed.device.home / ".edgeq" / "runtime").iterdir()
    libraries = list(folder.rglob("ai_edge_litert/*.so"))
    assert libraries
    assert {library.read_bytes()[18] for library in libraries} == {0xB7}, "ELF's number for AArch64"
    assert deployed.outcome.sent_bytes > 20_000_000


def test_int8_golden_outputs_are_this_machines_bit_for_bit(deployed: Deployed) -> None:
    health = deployed.outcome.health
    assert health.document["kernels"] == "xnnpack"
    assert health.document["golden"]["samples"] == 16
    assert (health.document["golden"]["worst_steps"], health.document["golden"]["mismatches"]) == (0, 0)


def test_every_answer_is_this_machines_bit_for_bit(deployed: Deployed, int8_model: Path) -> None:
    answer, expected = answers(deployed.enrolment.device, int8_model)
    assert answer["kernels"] == "xnnpack"
    np.testing.assert_array_equal(np.array(answer["outputs"]).reshape(expected.shape), expected)


def test_without_the_processors_list_other_kernels_run_and_are_judged_by_the_tolerance(
    shipped: Spec, boot: Boot, int8_model: Path, site: Path
) -> None:
    device = boot(dataclasses.replace(shipped, cpu_list=False), "pi-hardened")
    enrolled = device.access.enrol(site).device
    bundle = read_bundle(int8_model / "bundle.eqb")
    outcome = deploy_one(enrolled, bundle, workspace=site)
    assert outcome.health.document["kernels"] == "builtin"
    golden = outcome.health.document["golden"]
    assert not golden["exact"]
    assert 0 < golden["worst_steps"] <= bundle.manifest["golden"]["max_steps"]
    answer, expected = answers(enrolled, int8_model)
    assert answer["kernels"] == "builtin"
    steps = np.abs(np.array(answer["outputs"]).reshape(expected.shape) - expected) * 256
    assert 0 < steps.max() <= bundle.manifest["golden"]["max_steps"]


def test_a_bundle_that_allows_no_difference_is_refused_by_other_kernels(
    shipped: Spec, boot: Boot, int8_model: Path, site: Path, tmp_path: Path
) -> None:
    from edgeq.bundle.make import make_bundle

    strict: Bundle = make_bundle(
        tmp_path / "strict.eqb",
        model_file=int8_model / "int8.tflite",
        name="shapes",
        variant="int8-strict",
        data=int8_model / "samples.npz",
        golden_steps=0,
        keys=[publisher.key()],
    )
    hardened = boot(dataclasses.replace(shipped, cpu_list=False), "pi-strict").access.enrol(site).device
    with pytest.raises(HealthCheckFailed, match="golden"):
        deploy_one(hardened, strict, workspace=site)
    assert status(hardened).models["shapes"].current is None
    # The same bundle is fine where XNNPACK runs.
    ordinary = boot(shipped, "pi-ordinary").access.enrol(site).device
    assert deploy_one(ordinary, strict, workspace=site).changed


def test_a_power_cut_and_a_rollback_on_arm(
    shipped: Spec, boot: Boot, site: Path, releases: dict[str, Bundle]
) -> None:
    device = boot(shipped, "pi-cut")
    enrolled = device.access.enrol(site).device
    for name in ("first", "second"):
        assert deploy_one(enrolled, releases[name], workspace=site).changed
    device.cut()
    device.boot()
    assert status(enrolled).models["double"].current == releases["second"].release
    assert rollback(enrolled, "double").release == releases["first"].release
    assert Inventory.load(site).get("pi-cut") == enrolled


def test_the_kernels_of_two_operations_are_known_from_one_deployment(
    shipped: Spec, boot: Boot, site: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    access = boot(shipped, "pi-kernels").access
    where = ["--host", access.host, "--port", str(access.port), "--user", access.user]
    pinned = ["--identity", str(access.identity), "--fingerprint", access.fingerprint]
    assert main(["devices", "add", "pi-kernels", *where, *pinned]) == 0
    capfd.readouterr()
    chosen = ["--op", "ADD", "--op", "LOGISTIC"]
    assert main(["devices", "kernels", "pi-kernels", "--emulated", "--json", *chosen]) == 0
    table = from_json(json.loads(capfd.readouterr().out), subject="the command")
    assert (table.machine, table.emulated) == ("aarch64", True)
    assert table.runtime.startswith("ai_edge_litert ")
    with Store.open(site) as store:
        assert table_for("pi-kernels", store) == table
    assert set(status(Inventory.load(site).get("pi-kernels")).models) == {"edgeq-kernels"}
    (known,) = (each for each in shipped_tables() if each.machine == "aarch64")
    assert len(table.rows) == 6
    assert all(known.row(row.operation, row.scheme) == row for row in table.rows)
    assert {row.kernel for row in table.rows} == {"xnnpack", "builtin"}


def answers(device: Device, folder: Path) -> tuple[Mapping[str, Any], np.ndarray]:
    """Return the device's answer for all samples, and what this machine's runtime gives."""
    buffer = io.BytesIO()
    with np.load(folder / "samples.npz") as samples:
        np.savez(buffer, input_0=samples["x"])
    answer = infer(device, "shapes", buffer.getvalue(), outputs=True).document
    ran = run(folder / "int8.tflite", folder / "samples.npz")
    return answer, dequantized(ran.outputs, ran.info.outputs)[0]
