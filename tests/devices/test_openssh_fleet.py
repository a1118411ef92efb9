"""Several devices at once over OpenSSH's own server, without root: enrol, deploy, infer, roll back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeq.bundle.archive import Bundle
from edgeq.errors import HealthCheckFailed
from edgeq.fleet.deploy import DeployResult, deploy_one
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.operations import infer, rollback, status
from edgeq.fleet.parallel import Results, on_each
from edgeq.values import Device
from tests.lab.access import Access
from tests.lab.openssh_fleet import home_of, openssh_fleet
from tests.lab.session import Lab

pytestmark = pytest.mark.sshd
COUNT = 4


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[list[Access]]:
    with openssh_fleet(lab.scratch / "fleet", COUNT) as servers:
        yield servers


def samples(count: int) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, input_0=np.arange(4.0 * count, dtype=np.float32).reshape(count, 4))
    return buffer.getvalue()


@pytest.mark.slow
def test_a_models_whole_life_on_several_devices_at_once(
    lab: Lab, fleet: list[Access], site: Path, releases: dict[str, Bundle]
) -> None:
    enrolled = [access.enrol(site).facts.device_id for access in fleet]
    devices = Inventory.load(site).select(["all"])
    assert len(devices) == len(set(enrolled)) == COUNT, "each home is a device of its own"

    def deploy(name: str) -> Results[DeployResult]:
        return on_each(devices, lambda device: deploy_one(device, releases[name], workspace=site))

    first = deploy("first")
    assert not first.failed, first.failed
    assert all(outcome.changed for outcome in first.done.values())
    again = deploy("first")
    assert all(outcome.sent_bytes == 0 and outcome.plan.is_empty for outcome in again.done.values())

    assert not deploy("second").failed
    assert currents(devices) == {releases["second"].release}
    refused = deploy("wrong")
    assert set(refused.failed) == {device.name for device in devices}
    assert all(isinstance(error, HealthCheckFailed) for error in refused.failed.values())
    assert currents(devices) == {releases["second"].release}

    back = on_each(devices, lambda device: rollback(device, "double"))
    assert {answer.release for answer in back.done.values()} == {releases["first"].release}
    answers = on_each(devices, lambda device: infer(device, "double", samples(6), window=3, outputs=True))
    assert not answers.failed
    for answer in answers.done.values():
        np.testing.assert_allclose(answer.document["outputs"], 2 * np.arange(24.0).reshape(6, 4))
        assert answer.document["windows"] == 2
    for access in fleet:
        current = home_of(lab.scratch / "fleet", access) / ".edgeq/models/double/current"
        assert current.resolve().name == releases["first"].release


def currents(devices: tuple[Device, ...]) -> set[str | None]:
    return {status(device).models["double"].current for device in devices}
