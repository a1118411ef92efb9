"""Transfers through a link that fails: an end in bounded time, nothing half-done, no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.bundle.keys import workspace_key
from edgeq.errors import TransportError
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.upload import CHUNK_BYTES, Content, upload
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one
from edgeq.fleet.operations import status
from edgeq.fleet.ssh.keepalive import Watch
from edgeq.fleet.ssh.transport import connect
from edgeq.fleet.trust import pin
from edgeq.testing.faulty_link import Direction, FaultyLink, faulty_link
from edgeq.testing.tiny_bundle import write_tiny_bundle
from tests.fleet.servers import Server

WATCH = Watch(every_s=0.3, patience_s=1.5)

ENDS: dict[str, Callable[[FaultyLink], None]] = {
    "cut at once": lambda link: link.cut_after(1),
    "cut in the first chunk": lambda link: link.cut_after(500_000),
    "cut later": lambda link: link.cut_after(5_000_000),
    "frozen at once": lambda link: link.freeze_after(0),
    "frozen later": lambda link: link.freeze_after(4_000_000),
    "frozen towards the device": lambda link: link.freeze_after(3_000_000, Direction.TO_DEVICE),
    "frozen from the device": lambda link: link.freeze_after(300, Direction.FROM_DEVICE),
    "a byte flipped": lambda link: link.flip_after(3_000_000),
    "a byte of the answer flipped": lambda link: link.flip_after(300, Direction.FROM_DEVICE),
}
PASSES: dict[str, Callable[[FaultyLink], None]] = {
    "delayed": lambda link: link.delay(0.03),
    "dripping": lambda link: link.drip(3_000_000),
}


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    end_s = time.monotonic() + 10
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeq-")]:
        assert time.monotonic() < end_s, left
        time.sleep(0.05)


def content() -> Content:
    return Content.from_source(np.random.default_rng().bytes(8 * CHUNK_BYTES + 11))


def send(device: Any, one: Content, link: FaultyLink, fault: Callable[[FaultyLink], None]) -> None:
    with connect(device, timeout_s=2, watch=WATCH) as transport:
        client = AgentClient(device, transport, timeout_s=2)
        client.install_agent_file()
        fault(link)
        upload(client, [one])


def blob(server: Any, one: Content) -> Path:
    return Path(server.home / ".edgeq" / "blobs" / "sha256" / one.sha256)


# Each fault takes seconds of waiting; these two stand for all of them in the everyday run.
USUAL = ("cut later", "a byte flipped")


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[] if fault in USUAL else pytest.mark.slow) for fault in ENDS]
)
def test_a_transfer_ends_soon_and_the_next_one_is_whole(server: Server, fault: str) -> None:
    one = content()
    with faulty_link(server.host, server.port) as link:
        device = server.device(port=link.port)
        started_s = time.monotonic()
        with pytest.raises(TransportError) as caught:
            send(device, one, link, ENDS[fault])
        assert time.monotonic() - started_s < 20
        assert caught.value.transient, "the same command may be run again"
        assert not blob(server, one).exists()
        link.clear()
        send(device, one, link, FaultyLink.clear)
    assert blob(server, one).read_bytes() == one.source


@pytest.mark.parametrize("fault", PASSES)
@pytest.mark.slow
def test_a_slow_link_brings_all_of_it(server: Server, fault: str) -> None:
    one = content()
    with faulty_link(server.host, server.port) as link:
        send(server.device(port=link.port), one, link, PASSES[fault])
    assert blob(server, one).read_bytes() == one.source


@pytest.mark.slow
def test_no_cut_leaves_another_release_than_the_old_or_the_new(
    loopback_server: Server, site: Path, tmp_path: Path
) -> None:
    releases = [write_tiny_bundle(tmp_path / f"{n}.eqb", seed=20 + n, workspace=site) for n in range(5)]
    with faulty_link(loopback_server.host, loopback_server.port) as link:
        device = replace(loopback_server.device("half", port=link.port), home=".edgeq-half")
        with open_agent(device) as client:
            pin(client, [workspace_key(site).public])
        before = link.forwarded_bytes
        deploy_one(device, releases[0], workspace=site)
        # As much as a deploy of the next release takes: each cut falls somewhere within the one after.
        started = link.forwarded_bytes
        deploy_one(device, releases[1], workspace=site)
        length = link.forwarded_bytes - started
        serves = releases[1].release
        for share, release in zip(range(1, 10, 4), releases[2:], strict=True):
            link.cut_after(share * length // 10)
            with pytest.raises(TransportError):
                deploy_one(device, release, workspace=site)
            link.clear()
            model = status(device).models["double"]
            assert model.current in (serves, release.release)
            deploy_one(device, release, workspace=site)
            assert status(device).models["double"].current == release.release
            serves = release.release
        assert link.forwarded_bytes > before
