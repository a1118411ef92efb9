"""Uploads over a real connection: one call for many blobs, only missing chunks, packed where it pays."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import AgentProtocolError, DeviceError, DeviceUnsupported, LinkLost, SourceChanged
from edgeq.fleet.agent.file import build_agent
from edgeq.fleet.agent.upload import CHUNK_BYTES, Compressor, Content, parse_held, upload
from edgeq.fleet.connect import open_agent
from edgeq.testing.faulty_link import faulty_link
from edgeq_agent import wire
from tests.fleet.servers import Server

RANDOM = np.random.default_rng(3)


def content(size_bytes: int) -> Content:
    return Content.from_source(RANDOM.bytes(size_bytes))


def blob(server: Any, one: Content) -> Path:
    return Path(server.home / ".edgeq" / "blobs" / "sha256" / one.sha256)


def partial(server: Any, one: Content) -> Path:
    (path,) = Path(server.home / ".edgeq" / "partial").glob(one.sha256 + ".*")
    return path


@pytest.mark.first_is_quick
@pytest.mark.parametrize("begun", [None, ()], ids=["asked first", "sent at once"])
def test_many_blobs_travel_in_one_call(server: Server, tmp_path: Path, begun: Any) -> None:
    file = tmp_path / "wheel"
    file.write_bytes(RANDOM.bytes(2 * CHUNK_BYTES + 5))
    contents = [content(size) for size in (1, 0, CHUNK_BYTES, 3 * CHUNK_BYTES - 1)] + [
        Content.from_source(file)
    ]
    total = sum(one.size_bytes for one in contents)
    progress: list[int] = []
    with open_agent(server.device()) as client:
        done = upload(
            client,
            [*contents, contents[0]],
            partial_blobs=begun,
            on_chunk=lambda _, size: progress.append(size),
        )
        assert set(done.stored) >= {one.sha256 for one in contents if one.size_bytes > 1}
        assert (done.sent_bytes, sum(progress)) == (total, total)
        before = client.sent_bytes
        again = upload(client, contents)
        assert (again.stored, again.sent_bytes, client.sent_bytes) == ((), 0, before)
    for one in contents:
        assert hashlib.sha256(blob(server, one).read_bytes()).hexdigest() == one.sha256


def test_after_a_cut_only_missing_chunks_travel(server: Server) -> None:
    one = content(12 * CHUNK_BYTES)
    with faulty_link(server.host, server.port) as link:
        device = server.device(port=link.port)
        with open_agent(device) as client:
            client.install_agent_file()
            link.cut_after(6 * CHUNK_BYTES)
            with pytest.raises(LinkLost):
                upload(client, [one])
        link.clear()
        assert not blob(server, one).exists()
        end_s = time.monotonic() + 20  # what is on its way into the file when the cut comes
        while partial(server, one).stat().st_size < 2 * CHUNK_BYTES:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        with open_agent(device) as client:
            there = link.forwarded_bytes
            progress: list[int] = []
            done = upload(client, [one], on_chunk=lambda _, size: progress.append(size))
            travelled = link.forwarded_bytes - there
    assert done.resumed_bytes >= 2 * CHUNK_BYTES
    assert done.sent_bytes == one.size_bytes - done.resumed_bytes
    assert done.sent_bytes <= travelled < done.sent_bytes + 300_000, "the link saw no byte of what was there"
    assert sum(progress) == one.size_bytes, "progress reaches the end also where nothing needs to travel"
    assert blob(server, one).read_bytes() == one.source


def test_content_that_was_already_there_may_be_sent_again(server: Server) -> None:
    one = content(12 * CHUNK_BYTES)
    with open_agent(server.device()) as client:
        upload(client, [one])
    progress: list[int] = []
    with open_agent(server.device()) as client:
        done = upload(client, [one], partial_blobs=(), on_chunk=lambda _, size: progress.append(size))
    assert (done.stored, done.resumed_bytes) == ((), 0)
    assert sum(progress) == one.size_bytes
    assert blob(server, one).read_bytes() == one.source


def test_a_source_that_changed_between_tries(loopback_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(RANDOM.bytes(6 * CHUNK_BYTES))
    before = Content.from_source(file)
    with open_agent(loopback_server.device()) as client:
        file.write_bytes(RANDOM.bytes(6 * CHUNK_BYTES + 1))
        with pytest.raises(SourceChanged, match="has changed since") as caught:
            upload(client, [before])
        assert (caught.value.code, client.sent_bytes) == ("EQ406", 0)
    with open_agent(loopback_server.device()) as client:
        now = Content.from_source(file)
        upload(client, [now])
    assert not blob(loopback_server, before).exists()
    assert blob(loopback_server, now).read_bytes() == file.read_bytes()


def test_a_source_that_changes_while_it_is_sent(loopback_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(RANDOM.bytes(6 * CHUNK_BYTES))
    one = Content.from_source(file)

    def change(_content: Content, _size_bytes: int) -> None:
        with file.open("r+b") as stream:
            stream.seek(4 * CHUNK_BYTES)
            stream.write(b"other")

    with open_agent(loopback_server.device()) as client:
        with pytest.raises(DeviceError, match="not those that were announced") as caught:
            upload(client, [one], on_chunk=change)
        assert caught.value.reported_code == "EQ505"
    assert not blob(loopback_server, one).exists()


@pytest.mark.parametrize("size_bytes", [3 * CHUNK_BYTES, 10])
def test_a_source_that_shrinks_while_it_is_sent(
    loopback_server: Server, tmp_path: Path, size_bytes: int
) -> None:
    file = tmp_path / "model"
    file.write_bytes(RANDOM.bytes(6 * CHUNK_BYTES))
    one = Content.from_source(file)

    with open_agent(loopback_server.device()) as client, pytest.raises(SourceChanged):
        upload(client, [one], on_chunk=lambda *_: os.truncate(file, size_bytes))
    assert not blob(loopback_server, one).exists()


def test_a_source_that_is_gone(loopback_server: Server, tmp_path: Path) -> None:
    gone = Content(sha256="0" * 64, size_bytes=3, source=tmp_path / "gone")
    with open_agent(loopback_server.device()) as client, pytest.raises(SourceChanged, match="cannot be read"):
        upload(client, [gone])


def test_a_pruned_model_travels_packed_and_a_packed_wheel_as_it_is(loopback_server: Server) -> None:
    pruned = bytearray(RANDOM.bytes(3 * CHUNK_BYTES))
    for at in range(len(pruned)):
        if at % 5:
            pruned[at] = 0
    weights, wheel = Content.from_source(bytes(pruned)), content(2 * CHUNK_BYTES)
    with open_agent(loopback_server.device()) as client:
        assert upload(client, [weights]).sent_bytes < 0.6 * weights.size_bytes
        assert upload(client, [wheel]).sent_bytes == wheel.size_bytes
    assert blob(loopback_server, weights).read_bytes() == pruned


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.01
        return self.now_s


@pytest.mark.parametrize(("bytes_per_s", "packing"), [(1e9, wire.AS_IT_IS), (1e6, wire.ZLIB)])
def test_packing_pays_on_a_slow_link_only(bytes_per_s: float, packing: int) -> None:
    packer = Compressor(Clock())  # every pack takes 10 ms: 100 MB/s
    data = (b"half of it " + RANDOM.bytes(11)) * (CHUNK_BYTES // 22)
    assert packer.encode(data)[0] == wire.ZLIB, "nothing is known of the link yet"
    packer.sent(20 * CHUNK_BYTES, 20 * CHUNK_BYTES / bytes_per_s)
    assert packer.encode(data)[0] == packing


@given(st.binary(max_size=100_000))
def test_what_is_packed_is_smaller_and_the_same(data: bytes) -> None:
    packing, body = Compressor().encode(data)
    if packing == wire.ZLIB:
        assert len(body) < len(data)
        assert zlib.decompress(body) == data
    else:
        assert body is data


@pytest.mark.parametrize(
    "held",
    [
        [],
        [None, None],
        ["ab"],
        [["0" * 64] * 4],
        [["0" * 63]],
        [["G" * 64]],
        [[7]],
        [3],
        {"0": None},
        None,
        "ab",
    ],
)
def test_a_device_that_has_what_was_not_offered(held: Any) -> None:
    one = content(2 * CHUNK_BYTES + 1)
    with pytest.raises(wire.WireError):
        parse_held(held, [one])
    assert parse_held([["0" * 64]], [one]) == [["0" * 64]]
    assert parse_held([None], [one]) == [None]


def test_a_device_that_wants_other_blobs_is_a_protocol_error(loopback_server: Server, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    answer = (wire.dump(wire.hello("9")) + wire.dump(wire.progress("wanted", blobs=[None, None]))).decode()
    python.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -c ]; then exec python3 \"$@\"; fi\nprintf '%s' '{answer}'\ncat\n"
    )
    python.chmod(0o755)
    device = dataclasses.replace(loopback_server.device(), python=str(python))
    with open_agent(device) as client:
        client.install_agent_file()
        with pytest.raises(AgentProtocolError, match="other blobs than were offered"):
            upload(client, [content(10)])


@pytest.mark.parametrize("content_there", [None, b"import os; os.abort()"])
def test_the_first_call_places_an_agent_that_is_not_there_or_not_ours(
    loopback_server: Server, content_there: bytes | None
) -> None:
    agent = Path(loopback_server.home / ".edgeq" / "agent" / build_agent().name)
    with open_agent(loopback_server.device()) as client:
        client.install_agent_file()
    if content_there is None:
        agent.unlink()
    else:
        agent.write_bytes(content_there)
    one = content(100)
    with open_agent(loopback_server.device()) as client:
        assert upload(client, [one]).stored == (one.sha256,)
    assert agent.read_bytes() == build_agent().data


def test_the_first_call_of_a_device_without_python_says_so(loopback_server: Server) -> None:
    device = dataclasses.replace(loopback_server.device(), python="no-such-python")
    with open_agent(device) as client, pytest.raises(DeviceUnsupported, match="does not run"):
        upload(client, [content(100)])
