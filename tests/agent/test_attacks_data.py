"""Attacks by data: requests, payloads and archives that are made to be read wrongly or never to end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import wire

pytestmark = pytest.mark.convert

SECOND = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a second publisher").digest())
SHELL = (
    "x; touch PWNED",
    "$(touch PWNED)",
    "`touch PWNED`",
    "a|touch PWNED",
    "a\ntouch PWNED",
    "-rf",
    "../../PWNED",
)


def line(request: dict[str, Any], **replaced: str) -> bytes:
    """Return the request as a line, with some of its fields written as given."""
    parts = [
        f"{json.dumps(name)}:{json.dumps(value)}" for name, value in request.items() if name not in replaced
    ]
    parts += [f"{json.dumps(name)}:{text}" for name, text in replaced.items()]
    return ("{" + ",".join(parts) + "}\n").encode()


def test_duplicate_json_keys(serving: Any, float_bundle: Any, still_serves: Any) -> None:
    """A reader that takes the first and a reader that takes the last would see two manifests."""
    request = float_bundle.request()
    manifest = json.dumps(request["manifest"])
    doubled = manifest[:-1] + ', "variant": "another"}'
    nested = manifest.replace('"limits": {', '"limits": {"latency_p95_ns": 1, ', 1)
    assert nested != manifest
    for text in (doubled, nested):
        answered = serving.raw("activate", line(request, manifest=text))
        assert answered.error["code"] == "EQ512"
        assert "twice" in answered.error["problem"]
    answered = serving.raw("activate", line(request)[:-2] + b',"release":"' + b"0" * 64 + b'"}\n')
    assert answered.error["code"] == "EQ512"
    still_serves()


@pytest.mark.slow
def test_the_same_signature_over_reordered_json(serving: Any, float_bundle: Any) -> None:
    """Order, spacing and escapes are not content: it is the same release, and its signature counts once."""
    float_bundle.send(serving)
    request = float_bundle.request()
    assert serving.call("activate", **request).result["changed"]
    backwards = json.dumps(
        dict(reversed(request["manifest"].items())), indent=None, separators=(" , ", " : ")
    )
    answered = serving.raw("activate", line(request, manifest=backwards))
    assert answered.result["changed"] is False
    assert answered.result["release"] == float_bundle.release
    assert serving.current("tiny") == float_bundle.release


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "text", ['{"counter":1e999}', '{"model":"\\ud800"}', '{"x":' * 3000 + "1" + "}" * 3000, "[]", "1"]
)
def test_a_manifest_that_json_reads_and_cannot_write(
    serving: Any, float_bundle: Any, still_serves: Any, text: str
) -> None:
    answered = serving.raw("activate", line(float_bundle.request(), manifest=text))
    assert answered.error["code"] == "EQ512"
    still_serves()


@pytest.mark.slow
def test_endless_data_in_the_request(serving: Any, still_serves: Any) -> None:
    """A request line without an end is refused at the limit, before it fills the memory."""
    process = serving.start("activate")
    assert process.stdin is not None
    assert process.stdout is not None
    piece, sent = b'{"model":"' + b"a" * (1 << 20), 0
    with contextlib.suppress(BrokenPipeError):
        while sent < 64 << 20:
            process.stdin.write(piece)
            process.stdin.flush()
            sent += len(piece)
    assert sent < 16 << 20, "it read on after its limit"
    out = process.stdout.read()
    assert process.wait(60) == 1
    for stream in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.close()
    assert json.loads(out.splitlines()[-1])["error"]["code"] == "EQ512"
    still_serves()


def test_endless_data_in_a_payload(serving: Any, still_serves: Any) -> None:
    """A payload longer than announced: what was announced is stored or refused, the rest is not read."""
    data = os.urandom(1000)
    announced = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": 1000, "payload_bytes": 1000}
    answered = serving.raw("put", json.dumps(announced).encode() + b"\n" + data + b"more" * 10_000)
    assert answered.result["stored"] is True
    stored = serving.home / "blobs" / "sha256" / announced["sha256"]
    assert stored.read_bytes() == data
    lying = {**announced, "size_bytes": 10}
    assert serving.raw("put", json.dumps(lying).encode() + b"\n" + data).error["code"] == "EQ512"
    still_serves()


def wheel_of(members: dict[str, bytes], mode: int = 0o644) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def stated(wheel: bytes, size_bytes: int) -> bytes:
    """Return the wheel with another unpacked size in the directory's first entry and the member's header."""
    data = bytearray(wheel)
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, size_bytes)
    struct.pack_into("<I", data, 22, size_bytes)
    return bytes(data)


def runtime_of(device: Any, wheel: bytes, name: str = "evil-1-py3-none-any.whl") -> dict[str, Any]:
    sha256 = device.put(wheel)
    error: dict[str, Any] = device.call(
        "runtime", digest="e" * 64, wheels=[{"name": name, "sha256": sha256}], modules=["tflite_runtime"]
    ).error
    assert not (device.home / "runtime" / ("e" * 64)).exists()
    return error


@pytest.mark.slow
def test_endless_data_in_a_wheel(serving: Any, still_serves: Any) -> None:
    """Zip bombs: one that says how large it gets, and one that lies about it."""
    zeros = wheel_of({"a.bin": bytes(64 << 20)})
    assert len(zeros) < 1 << 20
    honest = stated(zeros, 0xFFFFFFF0)
    error = runtime_of(serving, honest)
    assert error["code"] in ("EQ501", "EQ503")
    many = wheel_of({f"{number}.bin": bytes(8) for number in range(3)})
    big = bytearray(many)
    for number in range(3):  # 3 * (4 GiB - 1) is over what any wheel may unpack to
        at = [place for place in range(len(big)) if big[place : place + 4] == b"PK\x01\x02"][number]
        struct.pack_into("<I", big, at + 24, 0xFFFFFFFE)
    assert runtime_of(serving, bytes(big))["code"] == "EQ503"
    lying = runtime_of(serving, stated(zeros, 100))
    assert lying["code"] == "EQ503"
    assert "damaged" in lying["problem"]
    assert not [path for path in serving.home.rglob("a.bin")]
    still_serves()


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "member",
    [
        "../PWNED",
        "a/../../PWNED",
        "../" * 6 + "PWNED",
        "/tmp/PWNED",
        "..\\PWNED",
        "C:/PWNED",
        "x.data/purelib/../../PWNED",
    ],
)
def test_wheel_members_that_escape(serving: Any, still_serves: Any, member: str) -> None:
    error = runtime_of(serving, wheel_of({member: b"#!/bin/sh"}))
    assert error["code"] == "EQ503"
    assert "lies outside" in error["problem"], "refused for that, not for being no runtime"
    assert not Path("/tmp/PWNED").exists()
    still_serves()


def test_wheel_members_that_are_links(serving: Any, still_serves: Any) -> None:
    error = runtime_of(serving, wheel_of({"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777))
    assert error["code"] == "EQ503"
    assert "link" in error["problem"]
    still_serves()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELL)
def test_shell_metacharacters_in_names(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any, name: str
) -> None:
    """Every name that reaches a device: model, file, wheel, key, release, home's own verbs."""
    as_model = {**float_bundle.manifest, "model": name}
    as_file = {**float_bundle.manifest, "files": {name: float_bundle.manifest["files"]["model.tflite"]}}
    for manifest in (as_model, as_file):
        request = float_bundle.request(
            manifest=manifest, release=wire.digest(manifest), signatures=[kit.signature_of(manifest)]
        )
        assert serving.call("activate", **request).error["code"] == "EQ512"
    assert serving.call("activate", **float_bundle.request(model=name)).error["code"] == "EQ512"
    assert serving.call("activate", **float_bundle.request(release=name)).error["code"] == "EQ512"
    assert serving.call("rollback", model=name).error["code"] == "EQ512"
    wheels = [{"name": name + ".whl", "sha256": "0" * 64}]
    assert serving.call("runtime", digest="e" * 64, wheels=wheels).error["code"] == "EQ512"
    change = kit.change_of(SECOND)
    change["add"][0]["name"] = name
    assert serving.call("trust", change=change).error["code"] == "EQ512"
    assert serving.call("trust", change=kit.change_of(revoke=[name])).error["code"] == "EQ512"
    still_serves()


@pytest.mark.slow
def test_file_modes(serving: Any, float_bundle: Any, kit: Any, tiny_data: Any) -> None:
    """Everything in the home is its owner's alone, whatever the umask of whoever called."""
    old = os.umask(0)
    try:
        float_bundle.send(serving)
        serving.call("activate", **float_bundle.request()).result  # noqa: B018 - asserts success
        serving.call("infer", kit.npz(input_0=tiny_data[:60]), model="tiny").result  # noqa: B018
        serving.call("trust", change=kit.change_of(SECOND)).result  # noqa: B018
    finally:
        os.umask(old)
    seen = set()
    for folder, _, names in os.walk(serving.home):
        assert stat.S_IMODE(os.lstat(folder).st_mode) == 0o700, folder
        for name in names:
            mode = os.lstat(os.path.join(folder, name)).st_mode
            assert stat.S_ISLNK(mode) or stat.S_IMODE(mode) == 0o600, (name, oct(mode))
            seen.add(name)
    assert {"trust.json", "journal", "outbox.db", "state.json", "device.json", "lock"} <= seen


@pytest.mark.slow
def test_nothing_is_started_with_a_shell(serving: Any, float_bundle: Any) -> None:
    """Every process of an activation has the words that it was given, and none is a shell."""
    float_bundle.send(serving)
    trace = serving.home.parent / "trace"
    if subprocess.run(["which", "strace"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace is not installed")
    words = [*serving.command, "activate", "--home", str(serving.home)]
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=execve", "-o", str(trace), *words],
        input=json.dumps(float_bundle.request()).encode() + b"\n",
        capture_output=True,
        env=serving.environment,
        check=False,
    )
    if done.returncode != 0 and b"ptrace" in done.stderr:
        pytest.skip("this machine does not allow strace")
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "result"
    started = [text for text in trace.read_text().splitlines() if "execve(" in text]
    assert len(started) >= 2
    programs = [Path(text.partition('execve("')[2].partition('"')[0]).name for text in started]
    assert all(program.startswith(("python", "env")) for program in programs), programs
