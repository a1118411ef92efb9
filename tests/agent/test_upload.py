"""Uploads by chunks: only what is missing is wanted, only what is verified kept, only the whole is a blob."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_agent import home, partial, wire
from edgeq_agent.offer import Offer

SIZE = 4096
DATA = np.random.default_rng(0).bytes(10 * SIZE + 7)
OTHER = np.random.default_rng(1).bytes(3 * SIZE)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + SIZE] for at in range(0, len(data), SIZE)]


def offer(*contents: bytes, **changes: Any) -> dict[str, Any]:
    blobs = [
        {
            "sha256": sha(data),
            "size_bytes": len(data),
            "chunk_bytes": SIZE,
            "chunks": [sha(chunk) for chunk in chunks(data)],
            **changes,
        }
        for data in contents
    ]
    return {"blobs": blobs}


def frame(blob: int, chunk: int, data: bytes, packing: int = wire.AS_IT_IS) -> bytes:
    return wire.frame_header(packing, blob, chunk, len(data)) + data


def frames(data: bytes, wanted: Any = None, blob: int = 0) -> bytes:
    found = chunks(data)
    numbers = range(len(found)) if wanted is None else wanted
    return b"".join(frame(blob, number, found[number]) for number in numbers)


def send(device: Any, request: dict[str, Any], body: bytes, **extra: Any) -> Any:
    return device.raw("upload", json.dumps(request).encode() + b"\n" + body, **extra)


def wanted(answered: Any) -> Any:
    return next(event["chunks"] for event in answered.of("progress") if event["step"] == "wanted")


def blob_of(device: Any, data: bytes = DATA) -> Path:
    return device.home / "blobs" / "sha256" / sha(data)


def partial_of(device: Any, data: bytes = DATA) -> Path:
    return device.home / "partial" / sha(data)


def cut_after(device: Any, count: int, data: bytes = DATA) -> None:
    """Upload the first chunks only: the connection ends in the middle of the next one."""
    body = frames(data, range(count)) + frame(0, count, chunks(data)[count])[:-5]
    error = send(device, offer(data), body).error
    assert (error["code"], error["transient"]) == ("EQ506", True)
    assert not blob_of(device, data).exists()


def test_several_blobs_in_one_call(device: Any) -> None:
    answered = send(device, offer(DATA, OTHER, b""), frames(DATA) + frames(OTHER, blob=1))
    assert wanted(answered) == [[[0, 11]], [[0, 3]], []]
    assert answered.result["received_bytes"] == len(DATA) + len(OTHER)
    assert [blob["stored"] for blob in answered.result["blobs"]] == [True, True, True]
    for data in (DATA, OTHER, b""):
        assert blob_of(device, data).read_bytes() == data
    assert list((device.home / "partial").iterdir()) == []
    again = send(device, offer(DATA, OTHER, b""), b"")
    assert wanted(again) == [[], [], []]
    assert not any(blob["stored"] for blob in again.result["blobs"])


def test_after_a_cut_only_what_is_missing_is_wanted(device: Any) -> None:
    cut_after(device, 6)
    device.put(b"another call sweeps what the dead left")
    answered = send(device, offer(DATA), frames(DATA, range(6, 11)))
    assert wanted(answered) == [[[6, 5]]]
    assert answered.result["resumed_bytes"] == 6 * SIZE
    assert blob_of(device).read_bytes() == DATA


def test_a_kill_in_the_middle_keeps_what_arrived(device: Any) -> None:
    with device.start("upload") as process:
        process.stdin.write(json.dumps(offer(DATA)).encode() + b"\n" + frames(DATA, range(4)))
        process.stdin.flush()
        end = time.monotonic() + 20
        while not partial_of(device).exists() or partial_of(device).stat().st_size < 4 * SIZE:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.kill()
        process.communicate()
    answered = send(device, offer(DATA), frames(DATA, range(4, 11)))
    assert wanted(answered) == [[[4, 7]]]
    assert blob_of(device).read_bytes() == DATA


def test_a_partial_file_with_the_right_size_and_wrong_bytes(device: Any) -> None:
    cut_after(device, 6)
    damaged = bytearray(DATA)
    damaged[0] ^= 1
    damaged[-1] ^= 1
    partial_of(device).write_bytes(damaged)
    found = chunks(DATA)
    answered = send(device, offer(DATA), frame(0, 0, found[0]) + frame(0, 10, found[10]))
    assert wanted(answered) == [[[0, 1], [10, 1]]]
    assert blob_of(device).read_bytes() == DATA


def test_a_partial_file_that_is_all_there_needs_no_byte(device: Any) -> None:
    cut_after(device, 6)
    partial_of(device).write_bytes(DATA)
    answered = send(device, offer(DATA), b"")
    assert wanted(answered) == [[]]
    assert answered.result["received_bytes"] == 0
    assert blob_of(device).read_bytes() == DATA


def test_a_partial_file_that_grew(device: Any) -> None:
    cut_after(device, 6)
    partial_of(device).write_bytes(DATA[: 8 * SIZE] + os.urandom(20 * SIZE))
    answered = send(device, offer(DATA), frames(DATA, range(8, 11)))
    assert wanted(answered) == [[[8, 3]]]
    assert blob_of(device).read_bytes() == DATA


def test_a_partial_file_full_of_zeros_as_after_a_power_cut(device: Any) -> None:
    cut_after(device, 6)
    partial_of(device).write_bytes(bytes(6 * SIZE))
    answered = send(device, offer(DATA), frames(DATA))
    assert wanted(answered) == [[[0, 11]]]
    assert blob_of(device).read_bytes() == DATA


def test_a_source_that_changed_between_tries_is_another_blob(device: Any) -> None:
    cut_after(device, 6)
    changed = DATA[:SIZE] + os.urandom(len(DATA) - SIZE)
    answered = send(device, offer(changed), frames(changed))
    assert wanted(answered) == [[[0, 11]]]
    assert blob_of(device, changed).read_bytes() == changed
    assert not blob_of(device).exists()


def test_a_source_that_changed_while_it_was_sent_is_refused(device: Any) -> None:
    body = frames(DATA, range(3)) + frame(0, 3, os.urandom(SIZE)) + frames(DATA, range(4, 11))
    error = send(device, offer(DATA), body).error
    assert error["code"] == "EQ505"
    assert "chunk 3" in error["subject"]
    assert not blob_of(device).exists()
    assert wanted(send(device, offer(DATA), frames(DATA, range(3, 11)))) == [[[3, 8]]]


def test_a_list_that_is_another_blobs_leads_to_no_blob(device: Any) -> None:
    lie = offer(OTHER, sha256=sha(DATA))
    error = send(device, lie, frames(OTHER)).error
    assert error["code"] == "EQ505"
    assert error["got"] == sha(OTHER)
    assert not blob_of(device).exists()
    assert not partial_of(device).exists(), "what can never become the blob is not kept"


def test_a_damaged_blob_is_sent_again(device: Any) -> None:
    send(device, offer(DATA), frames(DATA))
    blob_of(device).write_bytes(DATA[:-1] + b"?")
    assert wanted(send(device, offer(DATA), frames(DATA))) == [[[0, 11]]]
    assert blob_of(device).read_bytes() == DATA


def test_packed_chunks_are_unpacked(device: Any) -> None:
    data = bytes(3 * SIZE)
    body = b"".join(
        frame(0, number, zlib.compress(chunk), wire.ZLIB) for number, chunk in enumerate(chunks(data))
    )
    answered = send(device, offer(data), body)
    assert answered.result["received_bytes"] < 200
    assert blob_of(device, data).read_bytes() == data


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        (zlib.compress(bytes(100 * SIZE)), "does not unpack to its size"),
        (zlib.compress(bytes(SIZE - 1)), "does not unpack to its size"),
        (zlib.compress(bytes(SIZE))[:-3], "does not unpack to its size"),
        (b"no zlib", "does not unpack"),
    ],
    ids=["a bomb", "too short", "cut", "junk"],
)
def test_what_does_not_unpack_to_its_size_is_refused(device: Any, packed: bytes, problem: str) -> None:
    data = bytes(SIZE)
    error = send(device, offer(data), frame(0, 0, packed, wire.ZLIB)).error
    assert error["code"] == "EQ505"
    assert problem in error["problem"]
    assert not blob_of(device, data).exists()


@pytest.mark.parametrize(
    "body",
    [
        frame(0, 1, chunks(DATA)[1]),
        frame(1, 0, chunks(DATA)[0]),
        frame(0, 0, chunks(DATA)[0], packing=9),
        wire.frame_header(wire.AS_IT_IS, 0, 0, SIZE + 1),
        wire.frame_header(wire.AS_IT_IS, 0, 0, SIZE - 1),
        wire.frame_header(wire.ZLIB, 0, 0, 0xFFFFFFFF),
    ],
    ids=["other chunk", "other blob", "unknown packing", "longer", "shorter", "endless"],
)
def test_a_frame_that_was_not_asked_for_is_refused(device: Any, body: bytes) -> None:
    assert send(device, offer(DATA), body).error["code"] == "EQ512"
    assert not blob_of(device).exists()


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"blobs": []},
        {"blobs": [1]},
        {"blobs": [{}]},
        offer(DATA, DATA),
        offer(DATA, size_bytes=len(DATA) + SIZE),
        offer(DATA, size_bytes=-1),
        offer(DATA, sha256="../../x"),
        offer(DATA, chunk_bytes=1),
        offer(DATA, chunk_bytes=1 << 40),
        offer(DATA, chunks=["x"] * 11),
        offer(DATA, chunks=None),
    ],
)
def test_an_offer_that_is_none(device: Any, request_: dict[str, Any]) -> None:
    assert send(device, request_, b"").error["code"] == "EQ512"


def test_the_disk_refuses_while_writing(device: Any) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * SIZE + 100, 3 * SIZE + 100))

    error = send(device, offer(DATA), frames(DATA), preexec_fn=limit).error
    assert error["code"] == "EQ501"
    assert not partial_of(device).exists(), "what filled the disk does not stay on it"
    send(device, offer(DATA), frames(DATA))
    assert blob_of(device).read_bytes() == DATA


def test_more_than_fits_is_refused_before_anything_is_sent(device: Any) -> None:
    size = 1 << 40
    request = offer(b"", sha256=sha(DATA), size_bytes=size, chunk_bytes=wire.MAX_CHUNK_BYTES)
    request["blobs"][0]["chunks"] = [sha(DATA)] * (size // wire.MAX_CHUNK_BYTES)
    assert send(device, request, b"").error["code"] == "EQ501"


@pytest.fixture
def place(tmp_path: Path) -> home.Home:
    found = home.locate(str(tmp_path / "home"))
    found.ensure()
    return found


def begin(place: home.Home, data: bytes, age_s: float = 0) -> Path:
    one = Offer(sha(data), len(data), SIZE, [sha(chunk) for chunk in chunks(data)])
    there = partial.Partial(place, one)
    there.take(0, chunks(data)[0])
    there.close()
    path = Path(place.partials, sha(data))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_partials_go_only_for_space_and_the_oldest_first(
    place: home.Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, middle, young = (begin(place, bytes([n]) * 2 * SIZE, age_s=100 - n) for n in (1, 2, 3))
    partial.make_room(place, 1, [], "x")
    assert all(path.exists() for path in (old, middle, young))
    room = [0, 10 << 20]  # of the disk, asked once before and once after each removal

    monkeypatch.setattr(partial, "free_bytes", lambda _: room[0] if old.exists() else room[1])
    partial.make_room(place, 1 << 20, [], "x")
    assert [path.exists() for path in (old, middle, young)] == [False, True, True]
    monkeypatch.setattr(partial, "free_bytes", lambda _: 0)
    from edgeq_agent.errors import AgentError

    with pytest.raises(AgentError) as caught:
        partial.make_room(place, 1 << 20, [middle.name], "x")
    assert caught.value.code == "EQ501"
    assert [path.exists() for path in (middle, young)] == [True, False]


def test_there_are_never_many_partials(place: home.Home) -> None:
    made = [begin(place, n.to_bytes(2, "big") * SIZE, age_s=1000 - n) for n in range(partial.MAX_IDLE + 5)]
    partial.make_room(place, 1, [made[0].name], "x")
    left = {path.name for path in Path(place.partials).iterdir()}
    assert len(left) == partial.MAX_IDLE + 1
    assert made[0].name in left
    assert made[1].name not in left


def test_one_that_is_just_arriving_does_not_go(place: home.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeq_agent.errors import AgentError

    path = begin(place, DATA)
    monkeypatch.setattr(partial, "free_bytes", lambda _: 0)
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        with pytest.raises(AgentError):
            partial.make_room(place, 1, [], "x")
        assert path.exists()


def test_two_uploads_of_one_blob_at_once_both_end(device: Any) -> None:
    request = json.dumps(offer(DATA)).encode() + b"\n"
    with device.start("upload") as one, device.start("upload") as other:
        for process in (one, other):
            process.stdin.write(request)
            process.stdin.flush()
        # Both have looked before either writes: else the later one finds chunks of the other and wants fewer.
        for process in (one, other):
            while b'"wanted"' not in (line := process.stdout.readline()):
                assert line, "the agent ended"
        for process in (one, other):
            process.stdin.write(frames(DATA, range(5)))
            process.stdin.flush()
        for process in (one, other):
            out, _ = process.communicate(frames(DATA, range(5, 11)), timeout=30)
            assert process.returncode == 0, out
    assert blob_of(device).read_bytes() == DATA
    assert not partial_of(device).exists()


def test_one_that_comes_last_does_not_replace_the_blob_by_a_new_partial(place: home.Home) -> None:
    one = Offer(sha(DATA), len(DATA), SIZE, [sha(chunk) for chunk in chunks(DATA)])
    first, late = partial.Partial(place, one), partial.Partial(place, one)
    for number, chunk in enumerate(chunks(DATA)):
        first.take(number, chunk)
        late.take(number, chunk)
    assert first.finish()
    begun = partial.Partial(place, one)  # a third one begins anew, under the same name
    assert not late.finish()
    assert Path(place.blob(sha(DATA))).read_bytes() == DATA
    for each in (first, late, begun):
        each.close()
