"""Uploads: a blob is verified before it is one; what fails leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.calls import stdin
from tests.eventually import until

DATA = b"some bytes of a model" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


def test_a_blob_is_stored_once(device: Any) -> None:
    first = device.call("put", DATA, sha256=SHA, size_bytes=len(DATA)).result
    assert first == {"sha256": SHA, "stored": True}
    blob = device.home / "blobs" / "sha256" / SHA
    assert blob.read_bytes() == DATA
    assert device.call("put", DATA, sha256=SHA, size_bytes=len(DATA)).result["stored"] is False


def test_an_empty_blob(device: Any) -> None:
    sha = hashlib.sha256(b"").hexdigest()
    assert device.call("put", b"", sha256=sha, size_bytes=0).result["stored"] is True


def test_missing_lists_absent_blobs(device: Any) -> None:
    device.put(DATA)
    other = "b" * 64
    result = device.call("missing", blobs={SHA: len(DATA), other: 5}).result
    assert result["missing"] == [other]
    assert result["free_bytes"] > 0
    assert device.call("missing", blobs={SHA: len(DATA) + 1}).result["missing"] == [SHA]


def test_bytes_other_than_announced_are_refused(device: Any) -> None:
    error = device.call("put", DATA[:-1] + b"X", sha256=SHA, size_bytes=len(DATA)).error
    assert (error["code"], error["expected"]) == ("EQ505", SHA)
    assert _files(device) == []


def test_fewer_bytes_than_announced_are_refused(device: Any) -> None:
    request = {"sha256": SHA, "size_bytes": len(DATA), "payload_bytes": len(DATA)}
    error = device.raw("put", json.dumps(request).encode() + b"\n" + DATA[:100]).error
    assert (error["code"], error["got"]) == ("EQ506", "100 bytes")
    assert _files(device) == []


def test_a_damaged_blob_is_replaced(device: Any) -> None:
    device.put(DATA)
    blob = device.home / "blobs" / "sha256" / SHA
    blob.write_bytes(DATA[:-1] + b"X")
    assert device.call("put", DATA, sha256=SHA, size_bytes=len(DATA)).result["stored"] is True
    assert blob.read_bytes() == DATA


def test_the_next_call_removes_what_a_killed_upload_left(device: Any) -> None:
    request = {"sha256": SHA, "size_bytes": len(DATA), "payload_bytes": len(DATA)}
    with device.start("put") as process:
        process.stdin.write(json.dumps(request).encode() + b"\n" + DATA[:100])
        process.stdin.flush()
        until(lambda: (device.home / "tmp").is_dir() and any((device.home / "tmp").iterdir()))
        process.kill()
        process.communicate()
    assert len(_files(device)) == 1
    device.put(DATA)
    assert _files(device) == [device.home / "blobs" / "sha256" / SHA]


def test_an_upload_does_not_block_other_calls(device: Any) -> None:
    request = {"sha256": SHA, "size_bytes": len(DATA), "payload_bytes": len(DATA)}
    with device.start("put") as process:
        process.stdin.write(json.dumps(request).encode() + b"\n" + DATA[:100])
        process.stdin.flush()
        until(lambda: (device.home / "tmp").is_dir() and any((device.home / "tmp").iterdir()))
        began = time.monotonic()
        device.put(b"another blob")
        assert time.monotonic() - began < 5
        process.communicate(DATA[100:])
        assert process.returncode == 0


def test_the_idle_timeout_ends_a_read() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"a line\npart")
        stream = stdin.Stdin(reader, idle_s=0.1)
        assert stream.readline(100) == b"a line\n"
        assert stream.read(100) == b"part"
        with pytest.raises(stdin.IdleTimeout):
            stream.read(1)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_line_without_an_end_is_limited() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 5000)
    os.close(writer)
    try:
        assert stdin.Stdin(reader).readline(1000) == b"x" * 1000
    finally:
        os.close(reader)


def test_more_than_fits_is_refused_before_writing(device: Any) -> None:
    size = 1 << 47
    error = device.raw(
        "put", json.dumps({"sha256": SHA, "size_bytes": size, "payload_bytes": size}).encode() + b"\n"
    ).error
    assert error["code"] == "EQ501"
    assert error["expected"].endswith("bytes free")
    assert _files(device) == []


def test_a_disk_error_while_writing_is_reported(device: Any) -> None:
    # A file size limit is the quota that needs no root: write() fails in the middle, as with a full disk.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    request = {"sha256": SHA, "size_bytes": len(DATA), "payload_bytes": len(DATA)}
    error = device.raw("put", json.dumps(request).encode() + b"\n" + DATA, preexec_fn=limit).error
    assert error["code"] == "EQ501"
    assert _files(device) == []
    device.put(DATA)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small tmpfs")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, kit: Any) -> None:
    device = kit.Device(home=small_disk / "home")
    kept = device.put(b"k" * 1_000_000)
    big = os.urandom(3_000_000)
    sha = hashlib.sha256(big).hexdigest()
    error = device.call("put", big, sha256=sha, size_bytes=len(big)).error
    assert error["code"] == "EQ501"
    assert "free some space" in error["hint"]
    # Filled behind its back: even the smallest write fails, and says so.
    with (small_disk / "filler").open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        _fill(stream)
    assert (
        device.call("put", b"small", sha256=hashlib.sha256(b"small").hexdigest(), size_bytes=5).error["code"]
        == "EQ501"
    )
    assert device.call("missing", blobs={kept: 1_000_000}).result["missing"] == []
    (small_disk / "filler").unlink()
    device.put(b"small")


def _fill(stream: Any) -> None:
    while True:
        stream.write(b"\0" * 4096)


def _files(device: Any) -> list[Path]:
    paths = [path for part in ("blobs", "tmp") for path in (device.home / part).rglob("*") if path.is_file()]
    return sorted(paths)
