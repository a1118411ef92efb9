"""The verb `trust`: who may change whom a device believes; a change is whole or not at all."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.trust import signatures, trust_change, trust_store
from edgeq_agent.trust.signatures import Key, Signature
from edgeq_agent.trust.trust_change import TrustChange


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public_id(signer: Ed25519PrivateKey) -> str:
    return wire.key_id(signer.public_key().public_bytes_raw())


OTHER = key("other")
SMALL_ORDER = base64.b64encode(b"\x01" + bytes(31)).decode()


@pytest.fixture
def enrolled(device: Any) -> Any:
    """Return a device that trusts the tests' publisher and has no model."""
    device.enrol()
    return device


def active(device: Any) -> set[str]:
    return {entry["id"] for entry in device.call("trust").result["keys"] if entry["state"] == "active"}


def signed_change(kit: Any, device: Any, *by: Any, **fields: Any) -> dict[str, Any]:
    """Return the request of a change for this device and moment, signed by these keys."""
    store = device.call("trust").result
    terms = {"device_id": store["device_id"], "sequence": store["sequence"] + 1, **fields}
    change = kit.change_of(*terms.pop("add", ()), **terms)
    return {
        "change": change,
        "signatures": [kit.signature_of(change, each, wire.TRUST_CHANGE_TYPE) for each in by],
    }


def test_a_new_device_trusts_no_key(device: Any) -> None:
    store = device.call("trust").result
    assert (store["keys"], store["threshold"], store["changes"]) == ([], 1, "operator")
    assert not (device.home / "trust.json").exists(), "looking makes no store"


def test_the_first_key_is_pinned_once(device: Any, kit: Any) -> None:
    mine, theirs = kit.change_of(kit.PUBLISHER), kit.change_of(OTHER)
    assert device.call("trust", change=mine, first=True).result["changed"] is True
    late = device.call("trust", change=theirs, first=True).result
    assert late["changed"] is False
    assert active(device) == {kit.id_of(kit.PUBLISHER)}
    assert device.call("trust", change=mine, first=True).result["changed"] is False
    assert (device.home / "trust.json").stat().st_mode & 0o777 == 0o600


def test_a_device_with_a_revoked_key_is_not_pinned_again(enrolled: Any, kit: Any) -> None:
    rotate = kit.change_of(key("third"), revoke=[kit.id_of(kit.PUBLISHER)])
    assert enrolled.call("trust", change=rotate).result["changed"]
    assert enrolled.call("trust", change=kit.change_of(OTHER), first=True).result["changed"] is False
    assert active(enrolled) == {kit.id_of(key("third"))}


def test_the_operator_adds_and_revokes_keys_and_the_journal_records_it(enrolled: Any, kit: Any) -> None:
    change = kit.change_of(OTHER, revoke=[kit.id_of(kit.PUBLISHER)])
    assert enrolled.call("trust", change=change).result["changed"] is True
    assert active(enrolled) == {kit.id_of(OTHER)}
    entry = [entry for entry in enrolled.call("status").result["journal"] if entry["event"] == "trust"][-1]
    assert (entry["by"], entry["added"], entry["revoked"]) == (
        ["operator"],
        [kit.id_of(OTHER)],
        [kit.id_of(kit.PUBLISHER)],
    )
    before = (enrolled.home / "trust.json").read_bytes()
    repeated = enrolled.call("trust", change=kit.change_of(OTHER)).result
    assert repeated["changed"] is False
    assert (enrolled.home / "trust.json").read_bytes() == before


@pytest.mark.parametrize(
    ("public", "words"),
    [
        (SMALL_ORDER, "small order"),
        (base64.b64encode(b"\xff" * 32).decode(), "not a point"),
        (base64.b64encode(bytes(31)).decode(), "31 bytes"),
        ("no base64 at all!", "0 bytes"),
    ],
)
def test_an_unsafe_key_is_refused(enrolled: Any, kit: Any, public: str, words: str) -> None:
    change = kit.change_of(OTHER)
    change["add"].append({"public": public, "role": "publish", "name": "bad"})
    error = enrolled.call("trust", change=change).error
    assert error["code"] == "EQ536"
    assert words in error["problem"]
    assert active(enrolled) == {kit.id_of(kit.PUBLISHER)}, "the good key beside it was not taken either"


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "fields",
    [
        {"schema": "edgeq.trust-change/2"},
        {"add": {}},
        {"add": [7]},
        {"add": [{"public": 7, "name": "x"}]},
        {
            "add": [
                {"public": base64.b64encode(OTHER.public_key().public_bytes_raw()).decode(), "name": "a b"}
            ]
        },
        {"revoke": "all"},
        {"revoke": ["*"]},
        {"threshold": 0},
        {"threshold": "2"},
        {"changes": "nobody"},
    ],
)
def test_a_malformed_change_is_refused(enrolled: Any, kit: Any, fields: dict[str, Any]) -> None:
    assert enrolled.call("trust", change={**kit.change_of(), **fields}).error["code"] == "EQ512"
    assert active(enrolled) == {kit.id_of(kit.PUBLISHER)}


def test_an_unknown_key_cannot_be_revoked(enrolled: Any, kit: Any) -> None:
    assert enrolled.call("trust", change=kit.change_of(revoke=["0" * 16])).error["code"] == "EQ536"


def test_a_threshold_above_the_number_of_keys_is_refused(enrolled: Any, kit: Any) -> None:
    assert enrolled.call("trust", change=kit.change_of(threshold=2)).error["code"] == "EQ538"
    assert enrolled.call("trust", change=kit.change_of(OTHER, threshold=2)).result["threshold"] == 2


@pytest.mark.slow
def test_a_trusted_key_signs_its_successor(enrolled: Any, kit: Any) -> None:
    """Once the device takes only signed changes, logging in is not enough to publish."""
    assert enrolled.call("trust", change=kit.change_of(changes="signed")).result["changes"] == "signed"
    for change in (kit.change_of(OTHER), kit.change_of(changes="operator"), kit.change_of(threshold=1)):
        error = enrolled.call("trust", change=change).error
        assert error["code"] == "EQ538"
        assert "--by" in error["hint"]
    request = signed_change(kit, enrolled, kit.PUBLISHER, add=[OTHER], revoke=[kit.id_of(kit.PUBLISHER)])
    assert enrolled.call("trust", **request).result["changed"] is True
    assert active(enrolled) == {kit.id_of(OTHER)}
    entry = [entry for entry in enrolled.call("status").result["journal"] if entry["event"] == "trust"][-1]
    assert entry["by"] == [kit.id_of(kit.PUBLISHER)]
    back = signed_change(kit, enrolled, kit.PUBLISHER, add=[key("third")])
    assert enrolled.call("trust", **back).error["code"] == "EQ533", "the old key changes nothing any more"


def test_a_replayed_change_is_refused(enrolled: Any, kit: Any) -> None:
    request = signed_change(kit, enrolled, kit.PUBLISHER, add=[OTHER])
    assert enrolled.call("trust", **request).result["sequence"] == 1
    assert enrolled.call("trust", **request).error["code"] == "EQ538"
    older = signed_change(kit, enrolled, kit.PUBLISHER, add=[key("third")], sequence=1)
    assert enrolled.call("trust", **older).error["code"] == "EQ538"
    assert kit.id_of(key("third")) not in active(enrolled)


def test_a_change_for_another_device_is_refused(enrolled: Any, kit: Any) -> None:
    request = signed_change(kit, enrolled, kit.PUBLISHER, add=[OTHER], device_id="0" * 32)
    error = enrolled.call("trust", **request).error
    assert (error["code"], error["got"]) == ("EQ538", "0" * 32)
    assert active(enrolled) == {kit.id_of(kit.PUBLISHER)}


@pytest.mark.parametrize(("by", "code"), [((), "EQ531"), ((OTHER,), "EQ532")])
def test_a_change_without_a_trusted_signature_is_refused(enrolled: Any, kit: Any, by: Any, code: str) -> None:
    """Also where the operator alone could make it: a signature that is given must hold."""
    assert enrolled.call("trust", **signed_change(kit, enrolled, *by, add=[OTHER])).error["code"] == code
    assert active(enrolled) == {kit.id_of(kit.PUBLISHER)}


def test_a_signature_of_a_release_does_not_authorize_a_change(enrolled: Any, kit: Any) -> None:
    request = signed_change(kit, enrolled, add=[OTHER])
    request["signatures"] = [kit.signature_of(request["change"], kit.PUBLISHER, wire.RELEASE_TYPE)]
    assert enrolled.call("trust", **request).error["code"] == "EQ534"


def test_an_altered_change_is_refused(enrolled: Any, kit: Any) -> None:
    request = signed_change(kit, enrolled, kit.PUBLISHER, add=[OTHER])
    request["change"]["add"] = kit.change_of(key("third"))["add"]
    assert enrolled.call("trust", **request).error["code"] == "EQ534"


def locked_out(device: Any, kit: Any, **request: Any) -> None:
    """Assert that the change is refused with a line that says what to do, and that nothing changed."""
    before = (device.home / "trust.json").read_bytes()
    error = device.call("trust", **request).error
    assert error["code"] == "EQ538"
    assert "lock this device" in error["problem"]
    assert "edgeq keys rotate" in error["hint"]
    assert (device.home / "trust.json").read_bytes() == before


@pytest.mark.slow
def test_a_revocation_under_the_threshold_is_refused(enrolled: Any, kit: Any) -> None:
    """With two of two required and signed changes, the loss of one would be final."""
    change = kit.change_of(OTHER, threshold=2, changes="signed")
    assert enrolled.call("trust", change=change).result["threshold"] == 2
    both = (kit.PUBLISHER, OTHER)
    mine = kit.id_of(kit.PUBLISHER)
    locked_out(enrolled, kit, **signed_change(kit, enrolled, *both, revoke=[mine]))
    third = signed_change(kit, enrolled, *both, add=[key("third")], revoke=[mine])
    assert enrolled.call("trust", **third).result["changed"], "replaced in one step"
    lower = signed_change(kit, enrolled, OTHER, key("third"), revoke=[kit.id_of(OTHER)], threshold=1)
    assert enrolled.call("trust", **lower).result["threshold"] == 1


def test_the_last_key_is_not_revoked_without_another(enrolled: Any, kit: Any) -> None:
    locked_out(enrolled, kit, change=kit.change_of(revoke=[kit.id_of(kit.PUBLISHER)]))
    rotate = kit.change_of(OTHER, revoke=[kit.id_of(kit.PUBLISHER)])
    assert enrolled.call("trust", change=rotate).result["changed"]
    assert active(enrolled) == {kit.id_of(OTHER)}


def test_a_store_that_is_locked_already_is_repaired_in_steps(enrolled: Any, kit: Any) -> None:
    """An earlier agent let it happen: one key where two must sign, or none at all."""
    path = enrolled.home / "trust.json"
    body = json.loads(path.read_text())
    body["policy"]["threshold"] = 3
    path.write_text(json.dumps(body))
    assert enrolled.call("trust", change=kit.change_of(OTHER)).result["changed"], "2 of 3"
    locked_out(enrolled, kit, change=kit.change_of(revoke=[kit.id_of(OTHER)]))
    assert enrolled.call("trust", change=kit.change_of(threshold=2)).result["threshold"] == 2
    for entry in body["keys"].values():
        entry["state"] = "revoked"
    path.write_text(json.dumps({**body, "policy": {"threshold": 1, "changes": "signed"}}))
    assert enrolled.call("trust", change=kit.change_of(OTHER)).result["changed"]
    assert active(enrolled) == {kit.id_of(OTHER)}


def test_the_number_of_keys_is_limited(enrolled: Any, kit: Any) -> None:
    many = kit.change_of(*(key(f"k{number}") for number in range(64)))
    assert enrolled.call("trust", change=many).error["code"] == "EQ512"
    assert active(enrolled) == {kit.id_of(kit.PUBLISHER)}


def test_the_wall_clock_does_not_affect_trust(enrolled: Any, kit: Any) -> None:
    """No time is in the store: nothing that a wrong clock could make valid or void."""
    text = (enrolled.home / "trust.json").read_text()
    assert not any(word in text for word in ("time", "_ns", "date", "expires", "valid"))
    assert set(json.loads(text)) == {"schema", "keys", "policy", "sequence", "counters"}


NAMES = ("one", "two", "three", "four")


@settings(max_examples=200)
@given(
    steps=st.lists(
        st.tuples(
            st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), st.none() | st.integers(1, 4)
        ),
        max_size=6,
    )
)
def test_no_sequence_of_changes_locks_a_device(
    steps: list[tuple[set[str], set[str], int | None]],
) -> None:
    """Whatever is added, revoked and required: from the first key on, there are as many as must sign."""
    store = trust_store.EMPTY
    for add, revoke, threshold in steps:
        keys = {
            public_id(key(name)): Key(key(name).public_key().public_bytes_raw(), "publish", True, name)
            for name in add
        }
        gone = tuple(public_id(key(name)) for name in revoke)
        change = TrustChange(keys, gone, threshold, None, None, 0, {}, {})
        with contextlib.suppress(AgentError):
            store = trust_change.apply(store, change)
    assert len(store.active) >= store.threshold or not store.keys


DOCUMENT = {"model": "m", "counter": 1}
A, B, C = sorted((key("one"), key("two"), key("three")), key=public_id)
KNOWN = {
    public_id(each): Key(each.public_key().public_bytes_raw(), "publish", active=each is not C, name="x")
    for each in (C, B, A)
}


def made_by(*keys: Ed25519PrivateKey, payload_type: str = wire.RELEASE_TYPE) -> list[Signature]:
    message = wire.signed_bytes(payload_type, DOCUMENT)
    return [Signature(public_id(each), each.sign(message)) for each in keys]


def check(given: list[Signature], threshold: int = 1, document: Any = DOCUMENT) -> list[str]:
    return signatures.check(KNOWN, threshold, wire.RELEASE_TYPE, document, given, "release r")


def refusal(given: list[Signature], threshold: int = 1, document: Any = DOCUMENT) -> AgentError:
    with pytest.raises(AgentError) as refused:
        check(given, threshold, document)
    return refused.value


def test_signatures_of_active_keys_count_once_each_and_others_are_ignored() -> None:
    stranger = Signature("0" * 16, bytes(64))
    wrong = made_by(B, payload_type=wire.TRUST_CHANGE_TYPE)
    assert check(made_by(B)) == [public_id(B)]
    assert check([stranger, *made_by(C), *wrong, *made_by(B, A)], threshold=2) == [public_id(B), public_id(A)]
    assert check(made_by(A, A, B), threshold=1) == [public_id(A), public_id(B)]
    assert refusal(made_by(A, A), threshold=2).code == "EQ531"


def test_missing_signatures_are_reported_with_the_keys_that_could_sign() -> None:
    either = f"{public_id(A)} or {public_id(B)}"
    none = refusal([])
    assert (none.code, none.problem, none.got) == ("EQ531", "not signed", "none")
    assert none.expected == f"a signature of key {either}"
    one = refusal(made_by(B), threshold=2)
    assert (one.code, one.problem, one.got) == ("EQ531", "not signed by enough keys", public_id(B))
    assert one.expected == f"a signature of key 2 of {either}"


def test_the_most_telling_reason_is_reported_first() -> None:
    """A signature that does not match, then a revoked key, then an unknown one."""
    wrong = made_by(B, payload_type=wire.TRUST_CHANGE_TYPE)
    unknown = [Signature("0" * 16, b""), Signature("1" * 16, b"")]
    refused = refusal(unknown)
    assert (refused.code, refused.got) == ("EQ532", f"{'0' * 16} and {'1' * 16}")
    refused = refusal([*unknown, *made_by(C)])
    assert (refused.code, refused.got) == ("EQ533", public_id(C))
    refused = refusal([*unknown, *made_by(C), *wrong])
    assert (refused.code, refused.got) == ("EQ534", f"one of key {public_id(B)}")
    two = made_by(B, A, payload_type=wire.TRUST_CHANGE_TYPE)
    assert refusal(two).got == f"one of key {public_id(B)}", "the first one"
    assert refusal([*unknown, *made_by(A)], threshold=2).code == "EQ532"


@pytest.mark.parametrize("value", [float("nan"), "\ud800"])
def test_a_document_without_a_canonical_form_is_refused(value: Any) -> None:
    assert refusal(made_by(A), document={"x": value}).code == "EQ512"


def test_a_request_has_at_most_sixteen_signatures() -> None:
    entry = {"key": "0" * 16, "sig": base64.b64encode(b"text").decode()}
    parsed = signatures.parse(Fields({"signatures": [entry] * 16}))
    assert parsed == (Signature("0" * 16, b"text"),) * 16
    with pytest.raises(AgentError) as refused:
        signatures.parse(Fields({"signatures": [entry] * 17}))
    assert (refused.value.code, refused.value.subject) == ("EQ512", "signatures")
    assert "at most 16" in str(refused.value.expected)
    for damaged in ("no base64!", "dGV4d", "é"):
        (signature,) = signatures.parse(Fields({"signatures": [{**entry, "sig": damaged}]}))
        assert signature.value == b"", "it matches nothing"
