"""From enrolment to rollback over a real SSH connection, on both kinds of server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from edgeq.errors import DeviceError, DeviceOutOfSpace, DeviceTimeout, HealthCheckFailed, LinkLost
from edgeq.fleet.agent.file import build_agent
from edgeq.fleet.agent.payloads import load_samples
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.operations import infer, rollback, status
from edgeq.fleet.plan import Action
from edgeq.testing.faulty_link import faulty_link
from edgeq.testing.loopback import loopback_device
from edgeq.testing.server import Fault
from tests.fleet.servers import Read, Server, enrol_at


@pytest.fixture
def clean(server: Server) -> Server:
    """The server with no trace of edgeq in its home but the runtime, which takes seconds to build."""
    for entry in (server.home / ".edgeq").glob("*"):
        if entry.is_dir() and entry.name != "runtime":
            shutil.rmtree(entry)
        elif entry.is_file():
            entry.unlink()
    return server


@pytest.mark.slow
def test_the_whole_life_of_a_model_on_a_device(clean: Server, site: Path, read: Read) -> None:
    shutil.rmtree(clean.home / ".edgeq", ignore_errors=True)
    device = clean.enrol(site, labels={"site": "lab"})
    assert Inventory.load(site).get("pi") == device
    assert (clean.home / ".edgeq" / "agent" / build_agent().name).is_file()

    first, second = read("first"), read("second")
    dry = deploy_one(device, first, workspace=site, dry_run=True)
    assert not dry.applied
    assert status(device).models == {}

    done = deploy_one(device, first, workspace=site)
    assert done.changed
    assert done.plan.send_bytes == dry.plan.send_bytes
    assert 1_000_000 < done.sent_bytes <= done.plan.send_bytes, "what gains travels packed"
    assert done.health.document["golden"]["samples"] == 6
    current = clean.home / ".edgeq" / "models" / "double" / "current"
    assert current.resolve().name == first.release
    if clean.home.owner() == "root":  # another user's folder has no business to be read by the group
        assert (clean.home / ".edgeq").stat().st_mode & 0o077 == 0

    again = deploy_one(device, first, workspace=site)
    assert again.plan.is_empty
    assert {step.action for step in again.plan.steps} == {Action.SAME}
    assert again.sent_bytes == 0
    assert not again.changed

    replaced = deploy_one(device, second, workspace=site)
    assert replaced.previous == first.release
    assert replaced.sent_bytes < 2_000, "only the golden inputs are new"

    with pytest.raises(HealthCheckFailed, match="golden"):
        deploy_one(device, read("wrong"), workspace=site)
    assert status(device).models["double"].current == second.release

    answer = rollback(device, "double")
    assert (answer.release, answer.previous) == (first.release, second.release)
    assert current.resolve().name == first.release


@pytest.mark.first_is_quick
def test_inference_gives_what_the_model_does(clean: Server, site: Path, read: Read, tmp_path: Path) -> None:
    import numpy as np

    device = clean.enrol(site)
    deploy_one(device, read("first"), workspace=site)
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=x.argmax(1))
    samples = load_samples(tmp_path / "x.npz")
    answer = infer(device, "double", samples.payload, window=10, outputs=True)
    assert answer.samples == 20
    np.testing.assert_allclose(answer.document["outputs"], 2 * x, rtol=1e-6)
    assert samples.accuracy(answer.predicted) == 1.0
    assert answer.document["windows"] == 2
    with pytest.raises(DeviceError) as caught:
        infer(device, "tripel", samples.payload)
    assert caught.value.reported_code == "EQ510"


def test_an_agent_file_that_was_changed_on_the_device_is_replaced(clean: Server, site: Path) -> None:
    device = clean.enrol(site)
    path = clean.home / ".edgeq" / "agent" / build_agent().name
    with open_agent(device) as client:
        client.facts()
        assert client.sent_bytes == 0, "it is there from the enrolment"
    path.write_bytes(b"import os; os.abort()")
    with open_agent(device) as client:
        assert client.facts().agent.action == "change"
        assert client.sent_bytes == len(build_agent().data)
    assert path.read_bytes() == build_agent().data


@pytest.mark.slow
def test_a_bundle_for_another_kind_or_a_larger_device_is_blocked_before_anything_is_sent(
    clean: Server, site: Path, read: Read
) -> None:
    device = clean.enrol(site)
    for name, code in (("coral", "EQ503"), ("huge", "EQ501")):
        planned = plan_one(device, read(name), workspace=site)
        assert [step.code for step in planned.plan.blocked] == [code]
        with pytest.raises(DeviceError) as caught:
            deploy_one(device, read(name), workspace=site)
        assert caught.value.reported_code == code
    assert not any((clean.home / ".edgeq" / "blobs" / "sha256").iterdir())


@pytest.mark.slow
def test_a_link_that_is_cut_in_a_put_is_an_error_and_the_next_run_continues(
    clean: Server, site: Path, read: Read
) -> None:
    clean.enrol(site)
    bundle = read("padded")
    with faulty_link(clean.host, clean.port) as link:
        device = clean.device(port=link.port)
        before = deploy_one(device, read("first"), workspace=site)
        assert before.changed
        planned = plan_one(device, bundle, workspace=site)
        link.cut_after(2_000_000)
        with pytest.raises(LinkLost, match="pi"):
            deploy_one(device, bundle, workspace=site)
        link.clear()
        assert status(device).models["double"].current == before.release
        done = deploy_one(device, bundle, workspace=site)
        assert done.changed
        assert done.sent_bytes <= planned.plan.send_bytes
    kept = {path.name for path in (clean.home / ".edgeq" / "blobs" / "sha256").iterdir()}
    assert set(bundle.blobs) <= kept
    for path in (clean.home / ".edgeq" / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, "no partial blob is among them"
    # What the cut upload left is swept by the next one, once its process is gone.
    deadline_s = time.monotonic() + 20
    with open_agent(clean.device()) as client:
        while left := [path for path in (clean.home / ".edgeq" / "tmp").rglob("*") if path.is_file()]:
            assert time.monotonic() < deadline_s, left
            time.sleep(0.2)
            byte = os.urandom(8)
            request = {"sha256": hashlib.sha256(byte).hexdigest(), "size_bytes": len(byte)}
            client.call("put", request, payload=byte)


@pytest.mark.slow
def test_a_device_that_fills_up_says_so(site: Path, tmp_path: Path, read: Read) -> None:
    from edgeq.errors import TransportError

    try:
        running = loopback_device(tmp_path / "small", home_size_bytes=3_000_000)
        with running as small:
            device = enrol_at(small, site, "small").device
            with pytest.raises(DeviceOutOfSpace, match="small: space"):
                deploy_one(device, read("first"), workspace=site)
            # Without the plan, the agent itself refuses content that is larger than the free space.
            data = bytes(4_000_000)
            request = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            with open_agent(device) as client, pytest.raises(DeviceOutOfSpace):
                client.call("put", request, payload=data)
            assert status(device).models == {}
    except TransportError as error:
        if "does not allow" in error.message:
            pytest.skip(error.message)
        raise


@pytest.mark.slow
def test_a_device_whose_agent_hangs_is_given_up_in_bounded_time(site: Path, tmp_path: Path) -> None:
    import time

    with loopback_device(tmp_path / "hangs", fault=Fault.HANG_EXEC) as hangs:
        started_s = time.monotonic()
        with pytest.raises(DeviceTimeout):
            enrol_at(hangs, site, "hangs", timeout_s=1)
        assert time.monotonic() - started_s < 6
    assert Inventory.load(site).devices == ()


@pytest.mark.slow
def test_a_talkative_login_and_a_missing_sftp_do_no_harm(site: Path, tmp_path: Path) -> None:
    for fault in (Fault.NOISE, Fault.NO_SFTP):
        with loopback_device(tmp_path / fault.value, fault=fault) as device:
            enrolled = enrol_at(device, site, fault.value)
            assert enrolled.facts.device_id
            assert status(enrolled.device).models == {}


@pytest.mark.slow
def test_the_cached_wheels_say_what_they_are_for(site: Path, loopback_server: Server, read: Read) -> None:
    device = loopback_server.enrol(site, name="cached")
    plan_one(device, read("first"), workspace=site)
    documents = [json.loads(path.read_text()) for path in (site / ".edgeq" / "wheels").glob("*.json")]
    assert any("numpy" in wheel["name"] for document in documents for wheel in document["wheels"])
