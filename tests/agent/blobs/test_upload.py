"""Uploads in chunks: they resume, only complete content becomes a blob, and one upload owns a partial."""

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

from edgeq_agent import wire
from edgeq_agent.blobs import partial
from edgeq_agent.blobs.upload_frames import Offer
from edgeq_agent.errors import AgentError
from edgeq_agent.storage import home
from tests.agent.recorded import answers_as_recorded
from tests.eventually import until

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
            **changes,
        }
        for data in contents
    ]
    return {"blobs": blobs}


def frame(blob: int, chunk: int, data: bytes, packing: int = wire.AS_IT_IS) -> bytes:
    return wire.frame_header(packing, blob, chunk, len(data)) + data


def frames(data: bytes, chosen: Any = None, blob: int = 0) -> bytes:
    parts = chunks(data)
    numbers = range(len(parts)) if chosen is None else chosen
    return b"".join(frame(blob, number, parts[number]) for number in numbers)


def done(blob: int = 0) -> bytes:
    return wire.frame_header(wire.DONE, blob, 0, 0)


def whole(data: bytes, chosen: Any = None, blob: int = 0) -> bytes:
    return frames(data, chosen, blob) + done(blob)


def send(device: Any, request: dict[str, Any], body: bytes, **extra: Any) -> Any:
    return device.raw("upload", json.dumps(request).encode() + b"\n" + body, **extra)


def held(answered: Any) -> Any:
    return next(event["blobs"] for event in answered.of("progress") if event["step"] == "wanted")


def digests(data: bytes, count: int | None = None) -> list[str]:
    return [sha(chunk) for chunk in chunks(data)[:count]]


def blob_of(device: Any, data: bytes = DATA) -> Path:
    path: Path = device.home / "blobs" / "sha256" / sha(data)
    return path


def partial_of(device: Any, data: bytes = DATA) -> Path:
    path: Path
    (path,) = (device.home / "partial").glob(sha(data) + ".*")
    return path


def partials_of(device: Any, data: bytes = DATA) -> list[Path]:
    return list((device.home / "partial").glob(sha(data) + ".*"))


def cut_after(device: Any, count: int, data: bytes = DATA) -> None:
    """Upload the first chunks only: the connection ends in the middle of the next one."""
    body = frames(data, range(count)) + frame(0, count, chunks(data)[count])[:-5]
    error = send(device, offer(data), body).error
    assert (error["code"], error["transient"]) == ("EQ506", True)
    assert not blob_of(device, data).exists()


def test_several_blobs_in_one_call(device: Any) -> None:
    answered = send(device, offer(DATA, OTHER, b""), whole(DATA) + whole(OTHER, blob=1) + done(2))
    answers_as_recorded("upload", answered)
    assert held(answered) == [[], [], []]
    assert answered.result["received_bytes"] == len(DATA) + len(OTHER)
    assert [blob["stored"] for blob in answered.result["blobs"]] == [True, True, True]
    for data in (DATA, OTHER, b""):
        assert blob_of(device, data).read_bytes() == data
    assert list((device.home / "partial").iterdir()) == []
    again = send(device, offer(DATA, OTHER, b""), done(0) + done(1) + done(2))
    assert held(again) == [None, None, None]
    assert not any(blob["stored"] for blob in again.result["blobs"])
    assert again.result["resumed_bytes"] == 0


def test_blobs_and_chunks_come_in_any_order(device: Any) -> None:
    body = (
        frames(OTHER, [2, 0], blob=1) + frames(DATA, [*range(5, 11), *range(5)]) + whole(OTHER, [1], blob=1)
    )
    assert all(blob["stored"] for blob in send(device, offer(DATA, OTHER), body + done()).result["blobs"])
    for data in (DATA, OTHER):
        assert blob_of(device, data).read_bytes() == data


def test_after_a_cut_the_device_lists_the_chunks_it_has(device: Any) -> None:
    cut_after(device, 6)
    device.put(b"another call sweeps what the dead left")
    assert device.call("missing", blobs={sha(DATA): len(DATA), sha(OTHER): len(OTHER)}).result["begun"] == [
        sha(DATA)
    ]
    answered = send(device, offer(DATA), whole(DATA, range(6, 11)))
    assert held(answered) == [digests(DATA, 6)]
    assert answered.result["resumed_bytes"] == 6 * SIZE
    assert blob_of(device).read_bytes() == DATA


def test_chunks_sent_before_the_host_knew_are_ignored(device: Any) -> None:
    cut_after(device, 6)
    answered = send(device, offer(DATA), whole(DATA, range(2, 11)))
    assert answered.result["resumed_bytes"] == 2 * SIZE
    assert blob_of(device).read_bytes() == DATA
    again = send(device, offer(DATA), whole(DATA, range(3)))
    assert (held(again), again.result["blobs"][0]["stored"]) == ([None], False)


def test_a_killed_upload_keeps_its_complete_chunks(device: Any) -> None:
    with device.start("upload") as process:
        process.stdin.write(json.dumps(offer(DATA)).encode() + b"\n" + frames(DATA, range(4)))
        process.stdin.flush()
        until(lambda: sum(path.stat().st_size for path in partials_of(device)) >= 4 * SIZE)
        process.kill()
        process.communicate()
    answered = send(device, offer(DATA), whole(DATA, range(4, 11)))
    assert held(answered) == [digests(DATA, 4)]
    assert blob_of(device).read_bytes() == DATA


def test_a_partial_file_with_the_right_size_and_wrong_bytes(device: Any) -> None:
    cut_after(device, 6)
    damaged = bytearray(DATA)
    damaged[0] ^= 1
    damaged[-1] ^= 1
    partial_of(device).write_bytes(damaged)
    answered = send(device, offer(DATA), whole(DATA, [0, 10]))
    assert held(answered) == [digests(bytes(damaged))]
    assert blob_of(device).read_bytes() == DATA


def test_a_complete_partial_needs_no_more_bytes(device: Any) -> None:
    cut_after(device, 6)
    partial_of(device).write_bytes(DATA)
    answered = send(device, offer(DATA), done())
    assert held(answered) == [digests(DATA)]
    assert answered.result["received_bytes"] == 0
    assert blob_of(device).read_bytes() == DATA


def test_a_partial_file_that_grew(device: Any) -> None:
    cut_after(device, 6)
    partial_of(device).write_bytes(DATA[: 8 * SIZE] + os.urandom(20 * SIZE))
    answered = send(device, offer(DATA), whole(DATA, range(8, 11)))
    assert held(answered)[0][:8] == digests(DATA, 8)
    assert len(held(answered)[0]) == 11
    assert blob_of(device).read_bytes() == DATA


def test_a_partial_file_full_of_zeros_as_after_a_power_cut(device: Any) -> None:
    cut_after(device, 6)
    partial_of(device).write_bytes(bytes(6 * SIZE))
    answered = send(device, offer(DATA), whole(DATA))
    assert held(answered) == [[sha(bytes(SIZE))] * 6]
    assert blob_of(device).read_bytes() == DATA


@pytest.mark.parametrize("there", [0, 6])
def test_bytes_other_than_announced_are_refused_and_removed(device: Any, there: int) -> None:
    if there:
        cut_after(device, there)
    body = frames(DATA, range(there, 9)) + frame(0, 9, os.urandom(SIZE)) + whole(DATA, [10])
    error = send(device, offer(DATA), body).error
    assert error["code"] == "EQ505"
    assert error["expected"] == sha(DATA)
    assert not blob_of(device).exists()
    assert partials_of(device) == [], "it is unknown which part of it is right"
    send(device, offer(DATA), whole(DATA))
    assert blob_of(device).read_bytes() == DATA


def test_a_blob_that_ends_early_is_refused(device: Any) -> None:
    assert send(device, offer(DATA), whole(DATA, range(10))).error["code"] == "EQ505"
    assert not blob_of(device).exists()


def test_a_damaged_blob_is_sent_again(device: Any) -> None:
    send(device, offer(DATA), whole(DATA))
    blob_of(device).write_bytes(DATA[:-1] + b"?")
    assert held(send(device, offer(DATA), whole(DATA))) == [[]]
    assert blob_of(device).read_bytes() == DATA


def test_packed_chunks_are_unpacked(device: Any) -> None:
    data = bytes(3 * SIZE)
    body = b"".join(
        frame(0, number, zlib.compress(chunk), wire.ZLIB) for number, chunk in enumerate(chunks(data))
    )
    answered = send(device, offer(data), body + done())
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
def test_a_chunk_that_does_not_unpack_to_its_size(device: Any, packed: bytes, problem: str) -> None:
    data = bytes(SIZE)
    error = send(device, offer(data), frame(0, 0, packed, wire.ZLIB)).error
    assert error["code"] == "EQ505"
    assert problem in error["problem"]
    assert not blob_of(device, data).exists()


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "body",
    [
        frame(0, 11, chunks(DATA)[1]),
        frame(2, 0, chunks(DATA)[0]),
        frames(DATA, [0, 0]),
        whole(OTHER, blob=1) + frame(1, 0, chunks(OTHER)[0]),
        wire.frame_header(wire.DONE, 0, 1, 0),
        wire.frame_header(wire.DONE, 0, 0, 1),
        frame(0, 0, chunks(DATA)[0], packing=9),
        wire.frame_header(wire.AS_IT_IS, 0, 0, SIZE + 1),
        wire.frame_header(wire.AS_IT_IS, 0, 0, SIZE - 1),
        wire.frame_header(wire.ZLIB, 0, 0, 0xFFFFFFFF),
    ],
    ids=[
        "other chunk",
        "other blob",
        "twice",
        "after the end",
        "an end of a chunk",
        "an end with bytes",
        "unknown packing",
        "longer",
        "shorter",
        "endless",
    ],
)
def test_a_frame_that_was_not_offered_is_refused(device: Any, body: bytes) -> None:
    assert send(device, offer(DATA, OTHER), body).error["code"] == "EQ512"
    assert not blob_of(device).exists()


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"blobs": []},
        {"blobs": [1]},
        {"blobs": [{}]},
        offer(DATA, DATA),
        offer(DATA, size_bytes=-1),
        offer(DATA, sha256="../../x"),
        offer(DATA, chunk_bytes=1),
        offer(DATA, chunk_bytes=1 << 40),
        offer(DATA, chunk_bytes="4096"),
    ],
)
def test_a_malformed_offer_is_refused(device: Any, request_: dict[str, Any]) -> None:
    assert send(device, request_, b"").error["code"] == "EQ512"


def test_a_disk_error_while_writing_is_reported(device: Any) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * SIZE + 100, 3 * SIZE + 100))

    error = send(device, offer(DATA), whole(DATA), preexec_fn=limit).error
    assert error["code"] == "EQ501"
    assert partials_of(device) == [], "what filled the disk does not stay on it"
    send(device, offer(DATA), whole(DATA))
    assert blob_of(device).read_bytes() == DATA


def test_an_upload_that_does_not_fit_is_refused_before_any_byte_is_read(device: Any) -> None:
    request = offer(b"", sha256=sha(DATA), size_bytes=1 << 40, chunk_bytes=wire.MAX_CHUNK_BYTES)
    assert send(device, request, b"").error["code"] == "EQ501"


@pytest.fixture
def place(tmp_path: Path) -> home.Home:
    home_folder = home.locate(str(tmp_path / "home"))
    home_folder.ensure()
    return home_folder


def part(place: home.Home, data: bytes = DATA) -> partial.Partial:
    return partial.Partial(place, Offer(sha(data), len(data), SIZE))


def begin(place: home.Home, data: bytes, age_s: float = 0) -> Path:
    there = part(place, data)
    there.write(0, chunks(data)[0])
    there.close()
    (path,) = Path(place.partials).glob(sha(data) + ".*")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_partials_are_removed_only_for_space_and_oldest_first(
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
    with pytest.raises(AgentError) as caught:
        partial.make_room(place, 1 << 20, [middle.stem], "x")
    assert caught.value.code == "EQ501"
    assert [path.exists() for path in (middle, young)] == [True, False]


def test_the_number_of_idle_partials_is_limited(place: home.Home) -> None:
    made = [begin(place, n.to_bytes(2, "big") * SIZE, age_s=1000 - n) for n in range(partial.MAX_IDLE + 5)]
    partial.make_room(place, 1, [made[0].stem], "x")
    left = {path.name for path in Path(place.partials).iterdir()}
    assert len(left) == partial.MAX_IDLE + 1
    assert made[0].name in left
    assert made[1].name not in left


def test_a_partial_in_use_is_not_removed(place: home.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begin(place, DATA)
    monkeypatch.setattr(partial, "free_bytes", lambda _: 0)
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        with pytest.raises(AgentError):
            partial.make_room(place, 1, [], "x")
        assert path.exists()


def test_two_concurrent_uploads_of_one_blob_both_end(device: Any) -> None:
    request = json.dumps(offer(DATA)).encode() + b"\n"
    with device.start("upload") as one, device.start("upload") as other:
        for process in (one, other):  # the second takes over what the first began
            process.stdin.write(request)
            process.stdin.flush()
            while b'"wanted"' not in (line := process.stdout.readline()):
                assert line, "the agent ended"
        for process in (one, other):
            process.stdin.write(frames(DATA, range(5)))
            process.stdin.flush()
        stored = []
        for process in (other, one):
            out, _ = process.communicate(whole(DATA, range(5, 11)), timeout=60)
            assert process.returncode == 0, out
            stored.append(json.loads(out.splitlines()[-1])["result"]["blobs"][0]["stored"])
    assert stored == [True, False]
    assert blob_of(device).read_bytes() == DATA
    assert partials_of(device) == []


def test_a_later_upload_takes_over_from_one_that_hangs(place: home.Home) -> None:
    hangs = part(place)
    for number in range(6):
        hangs.write(number, chunks(DATA)[number])
    later = part(place)
    assert later.chunk_digests() == digests(DATA, 6)
    hangs.write(0, os.urandom(SIZE))  # it wakes up, and has other bytes than it announced
    for number in range(6, 11):
        later.write(number, chunks(DATA)[number])
    assert later.finish()
    assert not hangs.finish(), "it finds the blob that the other made"
    assert Path(place.blob(sha(DATA))).read_bytes() == DATA
    begun = part(place)  # a third one starts over
    hangs.write(1, chunks(DATA)[1])
    assert begun.chunk_digests() == []
    for each in (hangs, later, begun):
        each.close()


def test_an_upload_overtaken_by_one_that_died_is_a_transient_error(
    place: home.Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, later = part(place), part(place)
    first.write(0, chunks(DATA)[0])
    later.close()
    with pytest.raises(AgentError) as caught:
        first.finish()
    assert (caught.value.code, caught.value.transient) == ("EQ508", True)
    later = part(place)  # alive, and not done in time
    monkeypatch.setattr(partial, "WAIT_S", 0.2)
    with pytest.raises(AgentError, match="took it over"):
        first.finish()
    for each in (first, later):
        each.close()


def test_replacing_a_wrong_first_chunk_gives_the_right_digest(place: home.Home) -> None:
    one = part(place)
    for number, chunk in enumerate(chunks(DATA)[:4]):
        one.write(number, chunk if number else os.urandom(SIZE))
    one.close()
    again = part(place)
    assert again.chunk_digests()[1:] == digests(DATA, 4)[1:]
    for number in (*range(4, 11), 0):
        again.write(number, chunks(DATA)[number])
    assert again.finish()
    again.close()
