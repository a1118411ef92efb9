"""Signatures in a bundle: the same bytes every time, none that does not fit; archives that are traps."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.archive import read_bundle, resigned
from edgeq.bundle.counters import exactly, following
from edgeq.bundle.keys import new_key, workspace_key
from edgeq.cli import main
from edgeq.errors import BundleAltered, BundleError, SignatureInvalid
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq_agent import wire


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "a.eqb")
    return tmp_path / "a.eqb"


def rezip(path: Path, change: dict[str, bytes | None], *, mode: int = 0o644) -> None:
    """Write the archive again with members changed, added, or (None) left out."""
    with zipfile.ZipFile(path) as archive:
        members: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    members.update(change)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if data is not None:
                info = zipfile.ZipInfo(name)
                info.external_attr = (mode if name in change else 0o644) << 16
                archive.writestr(info, data)


def signatures(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        document: dict[str, Any] = json.loads(archive.read("signatures.json"))
    return document


def test_a_bundle_carries_its_signature_and_stays_reproducible(tmp_path: Path, bundle: Path) -> None:
    signed = read_bundle(bundle)
    assert [entry.key for entry in signed.signed_by] == [workspace_key(tmp_path).public]
    write_tiny_bundle(tmp_path / "b.eqb")
    assert (tmp_path / "b.eqb").read_bytes() == bundle.read_bytes()
    assert signed.release == wire.digest(dict(signed.manifest)), "the release is the manifest's digest still"


def test_the_signed_bytes_are_those_that_the_decision_record_states(bundle: Path) -> None:
    """Spelled out here without the project's own function: another implementation would write this."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    with zipfile.ZipFile(bundle) as archive:
        body = archive.read("manifest.json")
    kind = b"application/vnd.edgeq.release.v1+json"
    message = b"DSSEv1 37 " + kind + b" " + str(len(body)).encode() + b" " + body
    (entry,) = signatures(bundle)["signatures"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(entry["public"]))
    key.verify(base64.b64decode(entry["sig"]), message)


def test_openssl_agrees(bundle: Path, tmp_path: Path) -> None:
    """The signature is plain Ed25519: OpenSSL checks it without our code."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    (entry,) = signatures(bundle)["signatures"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(entry["public"]))
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "sig").write_bytes(base64.b64decode(entry["sig"]))
    manifest = dict(read_bundle(bundle).manifest)
    (tmp_path / "message").write_bytes(wire.signed_bytes(wire.RELEASE_TYPE, manifest))
    argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin"]
    done = subprocess.run(
        [*argv, "-in", "message", "-sigfile", "sig"], cwd=tmp_path, capture_output=True, check=False
    )
    if b"rawin" in done.stderr:
        pytest.skip("this openssl has no -rawin")
    assert done.returncode == 0, done.stderr


def test_several_keys_sign_each_once(tmp_path: Path, bundle: Path) -> None:
    keys = [new_key(tmp_path, name) for name in ("one", "two")]
    both = resigned(read_bundle(bundle), tmp_path / "b.eqb", counter=5, keys=[*keys, keys[0]])
    assert {entry.key.name for entry in both.signed_by} == {"one", "two"}
    assert len(both.signed_by) == 2
    assert both.manifest["counter"] == both.parsed.counter == 5
    turned = resigned(read_bundle(bundle), tmp_path / "c.eqb", counter=5, keys=keys[::-1])
    assert turned == both
    assert (tmp_path / "b.eqb").read_bytes() == (tmp_path / "c.eqb").read_bytes()


def altered(document: dict[str, Any], field: str, value: Any) -> bytes:
    entry = {**document["signatures"][0], field: value}
    return json.dumps({**document, "signatures": [entry]}).encode()


def test_a_signature_that_does_not_fit_is_refused(tmp_path: Path, bundle: Path) -> None:
    document = signatures(bundle)
    raw = base64.b64decode(document["signatures"][0]["sig"])
    other = base64.b64encode(workspace_key(tmp_path / "other").public.raw).decode()
    faults: list[bytes] = [
        altered(document, "sig", base64.b64encode(raw[:-1]).decode()),
        altered(document, "sig", base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()),
        altered(document, "sig", "no base64!"),
        altered(document, "public", other),
        altered(document, "key", "0" * 16),
        altered(document, "key", "../../x"),
        altered(document, "name", "a\nb"),
        json.dumps({**document, "payload_type": "application/vnd.edgeq.trust-change.v1+json"}).encode(),
        json.dumps({**document, "signatures": []}).encode(),
        json.dumps({**document, "signatures": document["signatures"] * 17}).encode(),
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
    ]
    for fault in faults:
        rezip(bundle, {"signatures.json": fault})
        with pytest.raises(SignatureInvalid) as caught:
            read_bundle(bundle)
        assert caught.value.reported_code == "EQ603"
        assert caught.value.hint


def test_a_changed_manifest_does_not_fit_its_signature(bundle: Path) -> None:
    manifest = {**read_bundle(bundle).manifest, "counter": 2**50}
    rezip(bundle, {"manifest.json": wire.canonical(manifest)})
    with pytest.raises(SignatureInvalid, match="does not match"):
        read_bundle(bundle)


def test_a_manifest_in_another_form_is_refused(bundle: Path) -> None:
    """Keys out of order, keys twice, spacing: a second reader might see another manifest."""
    with zipfile.ZipFile(bundle) as archive:
        text = archive.read("manifest.json")
    document = json.loads(text)
    forms = [
        json.dumps(dict(reversed(document.items())), separators=(",", ":")).encode(),
        json.dumps(document, sort_keys=True).encode(),
        text[:-1] + b',"model":"other"}',
        b'{"counter":9,' + text[1:],
        text + b"\n",
        text.replace(b'"double"', b'"doubl\\u0065"'),
    ]
    for form in forms:
        assert form != text
        rezip(bundle, {"manifest.json": form})
        with pytest.raises(BundleAltered, match="canonical"):
            read_bundle(bundle)


@pytest.mark.parametrize("name", ["files/../../evil", "/etc/evil", "../evil", "files/x\\..\\evil", "evil"])
def test_members_that_escape(bundle: Path, name: str) -> None:
    rezip(bundle, {name: b"x"})
    with pytest.raises(BundleAltered, match="evil"):
        read_bundle(bundle)


def test_members_that_are_links(bundle: Path) -> None:
    """Also one whose content fits its digest: whoever unpacks the file would get a link."""
    with zipfile.ZipFile(bundle) as archive:
        same = archive.read("files/model.tflite")
    rezip(bundle, {"files/model.tflite": same}, mode=stat.S_IFLNK | 0o777)
    with pytest.raises(BundleAltered, match="link"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "signatures.json", "files/model.tflite"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_there_twice(bundle: Path, name: str) -> None:
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(name, archive.read(name))
    with pytest.raises(BundleAltered, match="twice"):
        read_bundle(bundle)


def test_a_foreign_bundle(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that another workspace signed: whole, but this workspace does not know its key."""
    workspace_key(tmp_path)
    foreign = tmp_path / "foreign.eqb"
    write_tiny_bundle(foreign, workspace=tmp_path / "elsewhere")
    assert main(["--workspace", str(tmp_path), "bundle", "verify", str(foreign)]) == 1
    assert capsys.readouterr().err.startswith("error[EQ604]")


def test_a_replayed_signature(tmp_path: Path, bundle: Path) -> None:
    """The signature of an earlier release, or of a foreign one, beside another manifest."""
    for number, other in enumerate((tmp_path, tmp_path / "elsewhere")):
        earlier = tmp_path / f"earlier-{number}.eqb"
        write_tiny_bundle(earlier, seed=3, workspace=other)
        with zipfile.ZipFile(earlier) as archive:
            rezip(bundle, {"signatures.json": archive.read("signatures.json")})
        with pytest.raises(SignatureInvalid, match="does not match the manifest"):
            read_bundle(bundle)


def test_endless_data(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without an end, and a member that unpacks to more than a bundle may hold."""
    with pytest.raises(BundleError, match="expected a bundle"):
        read_bundle(Path("/dev/null"))
    monkeypatch.setattr("edgeq.bundle.archive.LARGEST_FILE_BYTES", 1 << 20)
    with pytest.raises(BundleError, match="at most"):
        read_bundle(Path("/dev/zero"))
    monkeypatch.undo()
    bomb = tmp_path / "bomb.eqb"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"{}")
        archive.writestr("files/zeros", bytes(64 << 20))
    assert bomb.stat().st_size < 1 << 20
    monkeypatch.setattr("edgeq.bundle.archive.LARGEST_BYTES", 32 << 20)
    with pytest.raises(BundleError, match="unpacked"):
        read_bundle(bomb)


def test_the_counter_follows_and_the_same_content_keeps_its_own() -> None:
    body: dict[str, Any] = {"model": "kws", "variant": "int8"}
    known: list[dict[str, Any]] = [
        {**body, "counter": 3},
        {"model": "kws", "variant": "old"},
        {"model": "other", "counter": 70},
    ]
    assert following([])(body) == 1
    assert following(known)(body) == 3, "the newest release made again is the same release"
    assert following(known)({**body, "variant": "float16"}) == 4
    assert following(known)({"model": "new", "variant": "int8"}) == 1
    assert following([{**body, "counter": 3}, {"model": "kws", "variant": "x", "counter": 4}])(body) == 5


def test_content_that_a_reset_withdrew_gets_a_counter_of_its_own() -> None:
    """Its old number would make the release again that devices refuse."""
    body: dict[str, Any] = {"model": "kws", "variant": "int8"}
    known = [{"model": "kws", "variant": "good", "counter": 3}]
    withdrawn = [{**body, "counter": 4}, {**body, "counter": 5}, {**body, "variant": "other", "counter": 6}]
    assert following(known)(body) == 4
    assert following(known, withdrawn)(body) == 6


def test_a_stated_counter_must_be_above_the_known_ones() -> None:
    body: dict[str, Any] = {"model": "kws", "variant": "int8"}
    known: list[dict[str, Any]] = [{**body, "counter": 3}]
    assert exactly(9, known)(body) == 9
    assert exactly(3, known)(body) == 3, "the same release again"
    for counter, content in ((3, {**body, "variant": "x"}), (2, body), (2**53, body)):
        with pytest.raises(BundleError, match="expected 4 or more") as caught:
            exactly(counter, known)(content)
        assert caught.value.reported_code == "EQ605"


def test_verify_says_who_signed(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def verify(*more: str) -> tuple[int, str]:
        status = main(["--workspace", str(tmp_path), "bundle", "verify", str(bundle), *more])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out + captured.err

    status, text = verify()
    assert status == 0
    assert workspace_key(tmp_path).public.id in text
    other = new_key(tmp_path / "elsewhere", "other")
    status, text = verify("--key", str(tmp_path / "elsewhere" / ".edgeq" / "keys" / "other.pub"))
    assert (status, text.partition(":")[0]) == (1, "error[EQ604]")
    assert other.public.id in text
    rezip(bundle, {"signatures.json": None})
    status, text = verify()
    assert (status, text.partition(":")[0]) == (1, "error[EQ603]")
    assert "hint: " in text
