"""Attacks on a device, each under its name: it says what it met, and what served before still serves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import stat
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import wire

pytestmark = pytest.mark.convert

STRANGER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a stranger").digest())
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


@pytest.fixture
def still_serves(serving: Any, int8_bundle: Any, tiny_data: Any, kit: Any) -> Callable[[], None]:
    """Return a check that the int8 release serves as before, answers, and nothing half-made is left."""
    state = serving.home / "models" / "tiny" / "state.json"
    before = state.read_bytes()

    def check() -> None:
        assert serving.current("tiny") == int8_bundle.release
        assert state.read_bytes() == before, "an attack must not even reach the state machine"
        assert serving.call("infer", kit.npz(input_0=tiny_data[:2]), model="tiny").result["samples"] == 2
        assert list((serving.home / "tmp").iterdir()) == []
        assert not list(serving.home.rglob("PWNED"))

    return check


def counted(bundle: Any, kit: Any, counter: int, **changes: Any) -> Any:
    """Return the bundle as a release with another counter, and other fields where given."""
    return kit.bundle_from(
        bundle.files, samples=20, name="tiny", change=lambda body: body.update(counter=counter, **changes)
    )


def refused(device: Any, request: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = device.call("activate", **request).error
    assert error["hint"]
    assert "\n" not in error["problem"]
    return error


def test_unsigned(serving: Any, float_bundle: Any, still_serves: Any) -> None:
    float_bundle.send(serving)
    request = float_bundle.request()
    for signatures in (None, []):
        assert refused(serving, {**request, "signatures": signatures})["code"] == "EQ531"
    del request["signatures"]
    assert refused(serving, request)["code"] == "EQ531"
    still_serves()


def test_unsigned_is_told_before_anything_else_is_looked_at(
    serving: Any, kit: Any, still_serves: Any
) -> None:
    """No file of it is there, its runtime is not, it is for another device, and no manifest at all."""
    manifest = {"schema": "elsewhere/9", "model": "tiny", "files": "none", "counter": -4}
    request = {"model": "tiny", "release": "0" * 64, "runtime": "0" * 64, "manifest": manifest}
    assert (
        refused(serving, {**request, "signatures": [kit.signature_of(manifest, STRANGER)]})["code"] == "EQ532"
    )
    assert refused(serving, request)["code"] == "EQ531"
    still_serves()


def test_a_device_without_a_trust_store_accepts_nothing(
    device: Any, prepared: Path, int8_bundle: Any
) -> None:
    import shutil

    shutil.copytree(prepared, device.home, symlinks=True)
    (device.home / "trust.json").unlink()
    int8_bundle.send(device)
    error = refused(device, int8_bundle.request())
    assert error["code"] == "EQ530"
    assert "edgeq keys trust" in error["hint"]
    assert device.current("tiny") is None
    assert device.call("status").result["trust"]["keys"] == []


def test_unknown_key(serving: Any, float_bundle: Any, kit: Any, still_serves: Any) -> None:
    float_bundle.send(serving)
    signatures = [kit.signature_of(float_bundle.manifest, STRANGER)]
    error = refused(serving, float_bundle.request(signatures=signatures))
    assert (error["code"], error["got"]) == ("EQ532", kit.id_of(STRANGER))
    still_serves()


def test_a_strangers_signature_under_a_trusted_keys_id(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any
) -> None:
    forged = {**kit.signature_of(float_bundle.manifest, STRANGER), "key": kit.id_of(kit.PUBLISHER)}
    assert refused(serving, float_bundle.request(signatures=[forged]))["code"] == "EQ534"
    still_serves()


def test_old_key(serving: Any, float_bundle: Any, kit: Any, still_serves: Any) -> None:
    """The key was rotated: the new one is trusted, the old one revoked; what it signed is refused."""
    change = kit.change_of(SECOND, revoke=[kit.id_of(kit.PUBLISHER)])
    assert serving.call("trust", change=change).result["changed"]
    float_bundle.send(serving)
    error = refused(serving, float_bundle.request())
    assert (error["code"], error["got"]) == ("EQ533", kit.id_of(kit.PUBLISHER))
    still_serves()
    back = serving.call("trust", change=kit.change_of(kit.PUBLISHER)).error
    assert back["code"] == "EQ536", "revoked is for ever"
    signatures = [kit.signature_of(float_bundle.manifest, SECOND)]
    assert serving.call("activate", **float_bundle.request(signatures=signatures)).result["changed"]


@pytest.mark.parametrize("damage", ["cut", "empty", "long", "bit", "text", "spaces", "s-plus-l"])
def test_truncated_signature(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any, damage: str
) -> None:
    entry = kit.signature_of(float_bundle.manifest)
    raw = base64.b64decode(entry["sig"])
    order = 2**252 + 27742317777372353535851937790883648493
    other_spelling = (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    damaged = {
        "cut": base64.b64encode(raw[:63]).decode(),
        "empty": "=",
        "long": base64.b64encode(raw + b"\0").decode(),
        "bit": base64.b64encode(bytes([raw[0] ^ 1]) + raw[1:]).decode(),
        "text": "é" * 88,
        "spaces": entry["sig"][:40] + "  " + entry["sig"][42:],
        "s-plus-l": base64.b64encode(raw[:32] + other_spelling).decode(),
    }[damage]
    assert refused(serving, float_bundle.request(signatures=[{**entry, "sig": damaged}]))["code"] == "EQ534"
    still_serves()


@pytest.mark.parametrize(
    "signatures", ["text", {"key": "x"}, [1], [{}], [{"key": "../x", "sig": "x"}], [{}] * 17]
)
def test_signatures_of_no_form(serving: Any, float_bundle: Any, still_serves: Any, signatures: Any) -> None:
    assert serving.call("activate", **float_bundle.request(signatures=signatures)).error["code"] == "EQ512"
    still_serves()


def test_signature_of_another_type(serving: Any, float_bundle: Any, kit: Any, still_serves: Any) -> None:
    """A signature made for a change of trust, or over the bare manifest, is none of a release."""
    other = kit.signature_of(float_bundle.manifest, kit.PUBLISHER, wire.TRUST_CHANGE_TYPE)
    bare = base64.b64encode(kit.PUBLISHER.sign(wire.canonical(float_bundle.manifest))).decode()
    for entry in (other, {"key": kit.id_of(kit.PUBLISHER), "sig": bare}):
        assert refused(serving, float_bundle.request(signatures=[entry]))["code"] == "EQ534"
    still_serves()


def test_swapped_manifest(serving: Any, float_bundle: Any, kit: Any, still_serves: Any) -> None:
    """The signature of one release over the manifest of another."""
    other = counted(float_bundle, kit, 9, variant="swapped")
    request = float_bundle.request(manifest=other.manifest, release=other.release)
    assert refused(serving, request)["code"] == "EQ534"
    still_serves()


def test_mix_and_match(
    serving: Any, int8_bundle: Any, float_bundle: Any, kit: Any, still_serves: Any
) -> None:
    """The manifest of one release with the files of another: a file is its digest, so it is missing."""
    int8_bundle.send(serving)
    error = refused(serving, float_bundle.request())
    assert error["code"] == "EQ509"
    mixed = kit.bundle_from({**float_bundle.files, "model.tflite": b"x"}, samples=20, name="tiny").manifest
    mixed["files"]["model.tflite"] = int8_bundle.manifest["files"]["model.tflite"]
    signatures = [kit.signature_of(float_bundle.manifest)]
    request = float_bundle.request(manifest=mixed, release=wire.digest(mixed), signatures=signatures)
    assert refused(serving, request)["code"] == "EQ534"
    wrong_blob = serving.call(
        "put",
        int8_bundle.files["model.tflite"],
        sha256=float_bundle.manifest["files"]["model.tflite"]["sha256"],
        size_bytes=len(int8_bundle.files["model.tflite"]),
    )
    assert wrong_blob.error["code"] == "EQ505"
    still_serves()


def test_rollback_to_a_lower_counter(serving: Any, int8_bundle: Any, float_bundle: Any, kit: Any) -> None:
    """Rightly signed and older: refused, also after the device itself went back to an earlier release."""
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    older = counted(int8_bundle, kit, 2)
    for bundle in (int8_bundle, older):
        error = refused(serving, bundle.request())
        assert (error["code"], error["expected"]) == ("EQ535", "a release counter above 3")
        assert serving.current("tiny") == float_bundle.release
    assert serving.call("rollback", model="tiny").result["release"] == int8_bundle.release
    assert refused(serving, older.request())["code"] == "EQ535", "the floor stays where it was"
    assert serving.current("tiny") == int8_bundle.release
    again = serving.call("activate", **int8_bundle.request()).result
    assert again["changed"] is False, "what serves may be activated again"
    assert serving.call("activate", **float_bundle.request()).result["changed"], "the newest may come back"


def test_freeze(serving: Any, int8_bundle: Any, float_bundle: Any, kit: Any) -> None:
    """An old release offered again as new: under its own counter, and under the newest one's."""
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    for counter in (1, 3):
        frozen = counted(int8_bundle, kit, counter)
        frozen.send(serving)
        assert refused(serving, frozen.request())["code"] == "EQ535"
        assert serving.current("tiny") == float_bundle.release
    relabelled = {**int8_bundle.manifest, "counter": 4}
    request = int8_bundle.request(manifest=relabelled, release=wire.digest(relabelled))
    assert refused(serving, request)["code"] == "EQ534", "the counter is under the signature"
    assert serving.current("tiny") == float_bundle.release


def test_the_floor_is_one_models_own(serving: Any, float_bundle: Any, kit: Any) -> None:
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    other = kit.bundle_from(
        float_bundle.files, samples=20, name="other", change=lambda body: body.update(counter=1)
    )
    assert serving.call("activate", **other.request()).result["changed"]
    counters = serving.call("status").result["trust"]["counters"]
    assert {model: known["counter"] for model, known in counters.items()} == {"tiny": 3, "other": 1}


def test_a_failed_release_does_not_raise_the_floor(
    serving: Any, int8_bundle: Any, float_bundle: Any, kit: Any
) -> None:
    """Else one broken release with a huge counter would lock the device for all later ones."""
    files = {**int8_bundle.files, "model.tflite": b"broken"}
    broken = kit.bundle_from(files, samples=20, name="tiny", change=lambda body: body.update(counter=2**40))
    broken.send(serving)
    assert serving.call("activate", **broken.request()).error["code"] == "EQ504"
    assert serving.current("tiny") == int8_bundle.release
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]


def test_the_floor_survives_a_power_cut_before_the_commit(
    serving: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    """The link is swapped, the state says activating: whoever comes next commits, and raises the counter."""
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    trust, state = serving.home / "trust.json", serving.home / "models" / "tiny" / "state.json"
    for path, change in ((trust, {"counters": {}}), (state, {"state": "activating"})):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert serving.call("status").result["trust"]["counters"]["tiny"]["counter"] == 3
    assert refused(serving, int8_bundle.request())["code"] == "EQ535"


def test_wrong_device_class(serving: Any, float_bundle: Any, kit: Any, still_serves: Any) -> None:
    for_coral = counted(float_bundle, kit, 3, requires={"kinds": ["coral"], "free_bytes": 0})
    for_coral.send(serving)
    assert refused(serving, for_coral.request())["code"] == "EQ503"
    relabelled = {**for_coral.manifest, "requires": {"kinds": [], "free_bytes": 0}}
    request = for_coral.request(manifest=relabelled, release=wire.digest(relabelled))
    assert refused(serving, request)["code"] == "EQ534", "whom it is for is under the signature"
    still_serves()


def test_two_signatures_where_two_are_wanted(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any
) -> None:
    assert serving.call("trust", change=kit.change_of(SECOND, threshold=2)).result["threshold"] == 2
    float_bundle.send(serving)
    mine = kit.signature_of(float_bundle.manifest)
    for signatures in ([mine], [mine, mine], [mine, kit.signature_of(float_bundle.manifest, STRANGER)]):
        error = refused(serving, float_bundle.request(signatures=signatures))
        assert error["code"] in ("EQ531", "EQ532")
    still_serves()
    both = [mine, kit.signature_of(float_bundle.manifest, SECOND)]
    assert serving.call("activate", **float_bundle.request(signatures=both)).result["changed"]


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


def test_the_same_signature_over_reordered_json(serving: Any, float_bundle: Any) -> None:
    """Order, spacing and escapes are no content: it is the same release, and counts once."""
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


@pytest.mark.parametrize(
    "text", ['{"counter":1e999}', '{"model":"\\ud800"}', '{"x":' * 3000 + "1" + "}" * 3000, "[]", "1"]
)
def test_a_manifest_that_json_reads_and_cannot_write(
    serving: Any, float_bundle: Any, still_serves: Any, text: str
) -> None:
    answered = serving.raw("activate", line(float_bundle.request(), manifest=text))
    assert answered.error["code"] == "EQ512"
    still_serves()


def test_endless_data_in_the_request(serving: Any, still_serves: Any) -> None:
    """A request line without an end is given up at its limit, not kept in memory for ever."""
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


@pytest.mark.parametrize(
    "member",
    ["../PWNED", "a/../../PWNED", "/tmp/PWNED", "..\\PWNED", "C:/PWNED", "x.data/purelib/../../PWNED"],
)
def test_wheel_members_that_escape(serving: Any, still_serves: Any, member: str) -> None:
    error = runtime_of(serving, wheel_of({member: b"#!/bin/sh"}))
    assert error["code"] == "EQ503"
    assert not Path("/tmp/PWNED").exists()
    still_serves()


def test_wheel_members_that_are_links(serving: Any, still_serves: Any) -> None:
    error = runtime_of(serving, wheel_of({"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777))
    assert error["code"] == "EQ503"
    assert "link" in error["problem"]
    still_serves()


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


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema":"edgeq.trust/1"}', "keys", "id"])
def test_a_damaged_trust_store_admits_nothing_and_rollback_works(
    serving: Any, int8_bundle: Any, float_bundle: Any, damage: str
) -> None:
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    path = serving.home / "trust.json"
    body = json.loads(path.read_text())
    (key_id,) = body["keys"]
    texts = {
        "keys": json.dumps({**body, "keys": {key_id: {**body["keys"][key_id], "state": "maybe"}}}),
        "id": json.dumps({**body, "keys": {"0" * 16: body["keys"][key_id]}}),
    }
    path.write_text(texts.get(damage, damage))
    assert refused(serving, float_bundle.request())["code"] == "EQ537"
    assert serving.call("trust").error["code"] == "EQ537"
    assert serving.call("status").result["trust"]["problem"]
    assert serving.call("rollback", model="tiny").result["release"] == int8_bundle.release
    # Made anew, it knows from the releases on the device how far the counters were.
    path.unlink()
    serving.enrol()
    assert serving.call("trust").result["counters"]["tiny"]["counter"] == 3
    assert refused(serving, {**int8_bundle.request(), "signatures": None})["code"] == "EQ531"


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
