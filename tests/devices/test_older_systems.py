"""Systems behind the times: Debian 11 with Python 3.9, and Mendel's language level, Python 3.7."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgeq.bundle.archive import Bundle, read_bundle
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.operations import status
from edgeq.values import DeviceKind
from tests.lab.boards import CORAL, PI_4
from tests.lab.device import Spec
from tests.lab.roots import Recipe, root_of
from tests.lab.session import Boot

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.mark.convert
def test_bullseye_gets_the_last_litert_that_starts_there(boot: Boot, site: Path, int8_model: Path) -> None:
    root = root_of(Recipe(arch="arm64", suite="bullseye"))
    enrolled = boot(Spec(layers=(root,), board=PI_4), "pi-bullseye").access.enrol(site)
    facts = enrolled.facts
    assert facts.python_version == (3, 9)
    assert (facts.libc, facts.libc_version) == ("glibc", "2.31")
    bundle = read_bundle(int8_model / "bundle.eqb")
    planned = plan_one(enrolled.device, bundle, workspace=site)
    wheels = {wheel.name.split("-")[0]: wheel.name.split("-")[1] for wheel in planned.runtime.files}
    # Newer ones are tagged for glibc 2.27 as well, and do not start below 2.34.
    assert wheels["ai_edge_litert"] == "2.1.0"
    outcome = deploy_one(enrolled.device, bundle, workspace=site)
    assert outcome.changed
    assert outcome.health.document["kernels"] == "xnnpack"
    assert not outcome.health.document["golden"]["exact"], "another version made the golden outputs"


def test_python_3_7_on_arm_answers_and_its_plan_says_why_nothing_fits(
    boot: Boot, site: Path, releases: dict[str, Bundle]
) -> None:
    # Debian has no CPython 3.7 any more; PyPy of Debian 11 is Python 3.7 on aarch64.
    root = root_of(Recipe(arch="arm64", suite="bullseye", python="pypy3"))
    device = boot(Spec(layers=(root,), board=CORAL), "coral")
    enrolled = device.access.enrol(site, kind=DeviceKind.CORAL, timeout_s=60)
    facts = enrolled.facts
    assert (facts.python_version, facts.implementation) == ((3, 7), "pypy")
    assert (facts.model, facts.document["kind"]) == (CORAL.model, "coral")
    assert facts.memory_bytes == CORAL.memory_kib * 1024
    data = b"a blob for a board" * 1000
    sha256 = hashlib.sha256(data).hexdigest()
    with open_agent(enrolled.device, timeout_s=60) as client:
        assert client.call("put", {"sha256": sha256, "size_bytes": len(data)}, payload=data)["stored"]
        assert client.call("missing", {"blobs": {sha256: len(data)}})["missing"] == []
        assert client.sent_bytes == len(data), "the agent was there already"
    assert status(enrolled.device).models == {}
    plan = plan_one(enrolled.device, releases["first"], workspace=site, timeout_s=60).plan
    assert any("expected CPython, got pypy" in step.reason for step in plan.steps)
