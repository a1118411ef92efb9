"""A 32-bit ARM device: tflite-runtime is shipped, numpy is the distribution's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.bundle.archive import Bundle, read_bundle
from edgeq.errors import DeviceUnsupported
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.enrol import Enrolment
from edgeq.fleet.operations import rollback, status
from edgeq.values import DeviceKind
from tests.lab.boards import PI_3_32BIT
from tests.lab.device import Spec, running, without
from tests.lab.roots import Recipe, root_of
from tests.lab.session import Boot, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def spec() -> Spec:
    root = root_of(Recipe(arch="armhf", packages=("python3-numpy",)))
    return Spec(layers=(root,), board=PI_3_32BIT)


@pytest.fixture(scope="module")
def enrolment(lab: Lab, spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolment]:
    with running(lab.device(spec, "pi-3")) as device:
        yield device.access.enrol(tmp_path_factory.mktemp("workspace"), kind=DeviceKind.RASPBERRY_PI)


def test_the_device_says_what_it_is(enrolment: Enrolment) -> None:
    facts = enrolment.facts
    assert (facts.machine, facts.pointer_bits) == ("armv7l", 32)
    assert facts.packages == {"numpy": "1.24.2"}
    assert facts.model == PI_3_32BIT.model


def test_tflite_runtime_is_shipped_alone_and_uses_the_devices_numpy(
    enrolment: Enrolment, site: Path, releases: dict[str, Bundle]
) -> None:
    planned = plan_one(enrolment.device, releases["first"], workspace=site)
    assert [wheel.name.split("-")[0] for wheel in planned.runtime.files] == ["tflite_runtime"]
    assert planned.runtime.files[0].name.endswith("_armv7l.whl")
    first = deploy_one(enrolment.device, releases["first"], workspace=site)
    assert first.changed
    assert first.health.document["golden"]["samples"] == 6
    assert deploy_one(enrolment.device, releases["first"], workspace=site).sent_bytes == 0
    assert deploy_one(enrolment.device, releases["second"], workspace=site).changed
    assert rollback(enrolment.device, "double").release == releases["first"].release


@pytest.mark.convert
def test_int8_of_another_runtime_is_judged_by_the_tolerance(
    enrolment: Enrolment, site: Path, int8_model: Path
) -> None:
    outcome = deploy_one(enrolment.device, read_bundle(int8_model / "bundle.eqb"), workspace=site)
    assert outcome.changed
    assert not outcome.health.document["golden"]["exact"]
    assert outcome.health.document["kernels"] == "builtin", "no XNNPACK is made for armv7l"
    assert status(enrolment.device).models["shapes"].state == "committed"


def test_without_its_own_numpy_the_way_out_is_named(
    boot: Boot, spec: Spec, site: Path, releases: dict[str, Bundle], tmp_path: Path
) -> None:
    bare = spec.with_layer(
        without(tmp_path / "layer", spec.layers[0], "usr/lib/python3*/dist-packages/numpy*")
    )
    enrolled = boot(bare, "pi-bare").access.enrol(site)
    assert enrolled.facts.packages == {}
    with pytest.raises(DeviceUnsupported, match="no module imports") as caught:
        deploy_one(enrolled.device, releases["first"], workspace=site)
    assert "No module named 'numpy'" in caught.value.message
    step = plan_one(enrolled.device, releases["first"], workspace=site).plan.steps[1]
    assert "no wheels of a TFLite runtime fit cp311 on manylinux_2_36_armv7l" in step.reason
    assert status(enrolled.device).models == {}
