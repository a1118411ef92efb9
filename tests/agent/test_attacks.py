"""Attacks on a device, each under its name: it says what it met, and what served before still serves."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import wire

pytestmark = pytest.mark.convert

STRANGER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a stranger").digest())
SECOND = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a second publisher").digest())


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


def test_an_unsigned_release_is_refused(serving: Any, float_bundle: Any, still_serves: Any) -> None:
    float_bundle.send(serving)
    request = float_bundle.request()
    no_signatures: list[list[Any] | None] = [None, []]
    for signatures in no_signatures:
        assert refused(serving, {**request, "signatures": signatures})["code"] == "EQ531"
    del request["signatures"]
    assert refused(serving, request)["code"] == "EQ531"
    still_serves()


def test_a_missing_signature_is_reported_before_anything_else_is_checked(
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


@pytest.mark.slow
def test_a_signature_by_an_unknown_key_is_refused(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any
) -> None:
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


def test_a_signature_by_a_revoked_key_is_refused(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any
) -> None:
    """The key was rotated: the new one is trusted, the old one revoked; what it signed is refused."""
    change = kit.change_of(SECOND, revoke=[kit.id_of(kit.PUBLISHER)])
    assert serving.call("trust", change=change).result["changed"]
    float_bundle.send(serving)
    error = refused(serving, float_bundle.request())
    assert (error["code"], error["got"]) == ("EQ533", kit.id_of(kit.PUBLISHER))
    still_serves()
    back = serving.call("trust", change=kit.change_of(kit.PUBLISHER)).error
    assert back["code"] == "EQ536", "a revocation is final"
    signatures = [kit.signature_of(float_bundle.manifest, SECOND)]
    assert serving.call("activate", **float_bundle.request(signatures=signatures)).result["changed"]


@pytest.mark.first_is_quick
@pytest.mark.parametrize("damage", ["cut", "empty", "long", "bit", "text", "spaces", "s-plus-l"])
def test_a_truncated_signature_is_refused(
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


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "signatures", ["text", {"key": "x"}, [1], [{}], [{"key": "../x", "sig": "x"}], [{}] * 17]
)
def test_malformed_signatures(serving: Any, float_bundle: Any, still_serves: Any, signatures: Any) -> None:
    assert serving.call("activate", **float_bundle.request(signatures=signatures)).error["code"] == "EQ512"
    still_serves()


def test_signature_of_another_type(serving: Any, float_bundle: Any, kit: Any, still_serves: Any) -> None:
    """A signature made for a change of trust, or over the bare manifest, is none of a release."""
    other = kit.signature_of(float_bundle.manifest, kit.PUBLISHER, wire.TRUST_CHANGE_TYPE)
    bare = base64.b64encode(kit.PUBLISHER.sign(wire.canonical(float_bundle.manifest))).decode()
    for entry in (other, {"key": kit.id_of(kit.PUBLISHER), "sig": bare}):
        assert refused(serving, float_bundle.request(signatures=[entry]))["code"] == "EQ534"
    still_serves()


def test_a_swapped_manifest_is_refused(serving: Any, float_bundle: Any, kit: Any, still_serves: Any) -> None:
    """The signature of one release over the manifest of another."""
    other = counted(float_bundle, kit, 9, variant="swapped")
    request = float_bundle.request(manifest=other.manifest, release=other.release)
    assert refused(serving, request)["code"] == "EQ534"
    still_serves()


@pytest.mark.slow
def test_files_and_manifest_of_two_releases_are_refused(
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_old_release_under_another_counter_is_refused(
    serving: Any, int8_bundle: Any, float_bundle: Any, kit: Any
) -> None:
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


@pytest.mark.slow
def test_each_model_has_its_own_counter(serving: Any, float_bundle: Any, kit: Any) -> None:
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    other = kit.bundle_from(
        float_bundle.files, samples=20, name="other", change=lambda body: body.update(counter=1)
    )
    assert serving.call("activate", **other.request()).result["changed"]
    counters = serving.call("status").result["trust"]["counters"]
    assert {model: known["counter"] for model, known in counters.items()} == {"tiny": 3, "other": 1}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_release_for_another_kind_of_device_is_refused(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any
) -> None:
    for_coral = counted(float_bundle, kit, 3, requires={"kinds": ["coral"], "free_bytes": 0})
    for_coral.send(serving)
    assert refused(serving, for_coral.request())["code"] == "EQ503"
    relabelled = {**for_coral.manifest, "requires": {"kinds": [], "free_bytes": 0}}
    request = for_coral.request(manifest=relabelled, release=wire.digest(relabelled))
    assert refused(serving, request)["code"] == "EQ534", "whom it is for is under the signature"
    still_serves()


@pytest.mark.slow
def test_a_release_for_other_devices_is_refused(
    serving: Any, float_bundle: Any, kit: Any, still_serves: Any
) -> None:
    """Also staged for an experiment; one that names this device among others is taken."""
    own = serving.call("status").result["device_id"]
    requires = {"kinds": [], "free_bytes": 0}
    for_others = counted(float_bundle, kit, 3, requires={**requires, "devices": ["0" * 32, "1" * 32]})
    for_others.send(serving)
    assert refused(serving, for_others.request())["code"] == "EQ539"
    assert serving.call("stage", **for_others.request()).error["code"] == "EQ539"
    relabelled = {**for_others.manifest, "requires": {**requires, "devices": [own]}}
    request = for_others.request(manifest=relabelled, release=wire.digest(relabelled))
    assert refused(serving, request)["code"] == "EQ534", "whom it is for is under the signature"
    still_serves()
    for_this_one = counted(float_bundle, kit, 3, requires={**requires, "devices": ["0" * 32, own]})
    assert serving.call("activate", **for_this_one.request()).result["changed"]


@pytest.mark.slow
def test_two_signatures_where_two_are_required(
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


@pytest.mark.slow
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
    # A new store takes the counters from the releases on the device.
    path.unlink()
    serving.enrol()
    assert serving.call("trust").result["counters"]["tiny"]["counter"] == 3
    assert refused(serving, {**int8_bundle.request(), "signatures": None})["code"] == "EQ531"
