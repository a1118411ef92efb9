"""The attacks of the TUF specification on a device, one test for each name, and those on its trust document.

They run the agent's own code on a home folder. `tests/agent/test_attacks.py` runs whole calls.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.storage import clock, files
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import signatures, trust_change, trust_store, trust_succession
from edgeq_agent.trust.signatures import Key
from edgeq_agent.trust.trust_store import ReleaseCounter, Trust

HIGHEST = wire.LARGEST_COUNTER


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def raw(signer: Ed25519PrivateKey) -> bytes:
    return signer.public_key().public_bytes_raw()


def id_of(signer: Ed25519PrivateKey) -> str:
    return wire.key_id(raw(signer))


ROOT_A, ROOT_B, ROOT_C = key("root a"), key("root b"), key("root c")
GOOD, LEAKED, STRANGER = key("good"), key("leaked"), key("stranger")
ALL = {id_of(each): each for each in (ROOT_A, ROOT_B, ROOT_C, GOOD, LEAKED, STRANGER)}


def document(version: int, **changes: Any) -> dict[str, Any]:
    """Return a document: root a and b, both must sign; release keys good and leaked, one must sign."""
    roots = changes.pop("root", (ROOT_A, ROOT_B))
    release = changes.pop("release", (GOOD, LEAKED))
    revoked = changes.pop("revoked", ())
    body = {
        "schema": wire.TRUST_DOCUMENT_SCHEMA,
        "version": version,
        "keys": {
            id_of(each): {"public": base64.b64encode(raw(each)).decode(), "name": "k"}
            for each in (*roots, *release, *revoked)
        },
        "roles": {
            "root": {
                "keys": [id_of(each) for each in roots],
                "threshold": changes.pop("root_threshold", len(roots)),
            },
            "release": {
                "keys": [id_of(each) for each in release],
                "threshold": changes.pop("release_threshold", 1),
            },
        },
        "revoked": [id_of(each) for each in revoked],
    }
    return {**body, **changes}


def signed(body: dict[str, Any], *signers: Ed25519PrivateKey, payload_type: str = "") -> dict[str, Any]:
    """Return a document with signatures; by default of root a and b."""
    message = wire.signed_bytes(payload_type or wire.TRUST_DOCUMENT_TYPE, body)
    entries = [
        {"key": id_of(each), "sig": base64.b64encode(each.sign(message)).decode()}
        for each in signers or (ROOT_A, ROOT_B)
    ]
    return {"document": body, "signatures": entries}


class Fleet:
    """One device's home, and what an attacker or the publisher sends to it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        os.makedirs(home.releases)

    @property
    def store(self) -> Trust:
        return trust_store.load(self.home) or trust_store.EMPTY

    def follow(self, *documents: dict[str, Any], by_login: bool = False) -> str | None:
        """Send documents as the verb would; return the error's code, or None."""
        try:
            parsed = Fields({"documents": list(documents)}).list_of("documents", trust_succession.parse)
            store = self.store
            for each in parsed:
                store = trust_succession.follow(self.home, store, each, by_login).store
        except AgentError as error:
            return error.code
        trust_store.save(self.home, store)
        return None

    def release(self, counter: int, **changes: Any) -> dict[str, Any]:
        entry = {"sha256": "a" * 64, "size_bytes": 1}
        return {
            "schema": wire.MANIFEST_SCHEMA,
            "model": "kws",
            "counter": counter,
            "files": {"model.tflite": entry, "golden.npz": entry},
            "golden": {"file": "golden.npz"},
            **changes,
        }

    def admit(self, manifest: dict[str, Any], *signers: Ed25519PrivateKey) -> str | None:
        """Offer a release; return the error's code, or None when it is admitted."""
        message = wire.signed_bytes(wire.RELEASE_TYPE, manifest)
        entries = [
            {"key": id_of(each), "sig": base64.b64encode(each.sign(message)).decode()} for each in signers
        ]
        request = {"release": wire.digest(manifest), "manifest": manifest, "signatures": entries}
        try:
            trust_store.admit(self.home, trust_store.parse_release(Fields(request)))
        except AgentError as error:
            return error.code
        return None

    def install(self, manifest: dict[str, Any], *signers: Ed25519PrivateKey) -> None:
        """Admit a release, keep it on the device, and commit it."""
        assert self.admit(manifest, *signers) is None
        release = wire.digest(manifest)
        os.makedirs(self.home.release(release), exist_ok=True)
        files.write_json(os.path.join(self.home.release(release), "manifest.json"), manifest)
        trust_store.commit(self.home, "kws", release)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Return a device that follows document 1."""
    device = Fleet(Home(str(tmp_path / "home")))
    assert device.follow(signed(document(1))) is None
    assert device.store.version == 1
    return device


def leaked_key_published_the_highest_counter(fleet: Fleet) -> None:
    fleet.install(fleet.release(17), GOOD)
    fleet.install(fleet.release(HIGHEST, variant="evil"), LEAKED)
    assert fleet.store.counters["kws"].counter == HIGHEST


def recovery(version: int = 2, counter: int = 17, **changes: Any) -> dict[str, Any]:
    """Return the document that revokes the leaked key and resets the counter."""
    resets = {"kws": {"version": version, "counter": counter}}
    return document(version, release=(GOOD,), revoked=(LEAKED,), counters=resets, **changes)


def test_arbitrary_software_installation(fleet: Fleet) -> None:
    """A release of the attacker's own: unsigned, signed by a stranger, or by a key of the wrong role."""
    for signers in ((), (STRANGER,), (ROOT_A,), (ROOT_A, ROOT_B)):
        assert fleet.admit(fleet.release(1), *signers) in ("EQ531", "EQ532"), signers
    assert fleet.admit(fleet.release(1), GOOD) is None


def test_rollback_attack(fleet: Fleet) -> None:
    """An older release, and an older document, both rightly signed once."""
    fleet.install(fleet.release(5), GOOD)
    assert fleet.admit(fleet.release(4), GOOD) == "EQ535"
    assert fleet.follow(signed(document(2, release=(GOOD,), revoked=(LEAKED,)))) is None
    assert fleet.follow(signed(document(1))) == "EQ538"
    assert fleet.admit(fleet.release(6), LEAKED) == "EQ533"


def test_fast_forward_attack(fleet: Fleet) -> None:
    """A leaked release key uses up the counters; the root revokes the key and resets the counter."""
    leaked_key_published_the_highest_counter(fleet)
    assert fleet.admit(fleet.release(18), GOOD) == "EQ535"
    assert fleet.follow(signed(document(2, release=(GOOD,), revoked=(LEAKED,)))) is None
    assert fleet.admit(fleet.release(18), GOOD) == "EQ535", "a revocation alone does not help"
    assert fleet.follow(signed(recovery(3))) is None
    assert fleet.admit(fleet.release(HIGHEST, variant="evil"), LEAKED) == "EQ533"
    for counter in (1, 16, 17):
        assert fleet.admit(fleet.release(counter, variant="old"), GOOD) == "EQ535", "no way back"
    fleet.install(fleet.release(18), GOOD)
    assert fleet.store.counters["kws"].counter == 18


def test_fast_forward_of_the_document(fleet: Fleet) -> None:
    """Not even the root can skip versions, so a stolen root key cannot use them up."""
    for version in (3, 17, HIGHEST):
        assert fleet.follow(signed(document(version))) == "EQ538"
    assert fleet.follow(signed(document(HIGHEST + 1))) == "EQ512"
    assert fleet.store.version == 1


def test_indefinite_freeze_attack(fleet: Fleet) -> None:
    """With a date of expiry, a device from which documents are withheld stops taking old releases."""
    now = Clock()
    assert fleet.follow(signed(document(2, expires_s=1000))) is None
    with clock.use(now):
        now.wall_s = 999
        assert fleet.admit(fleet.release(1), GOOD) is None
        now.wall_s = 1000
        assert fleet.admit(fleet.release(1), GOOD) == "EQ524"
        assert fleet.admit(fleet.release(1), STRANGER) == "EQ532", "the signature is checked first"
        assert fleet.follow(signed(document(3, expires_s=1001))) is None, (
            "an expired document has a successor"
        )
        assert fleet.admit(fleet.release(1), GOOD) is None
        assert fleet.follow(signed(document(4, expires_s=None))) is None
        now.wall_s = 2**39
        assert fleet.admit(fleet.release(1), GOOD) is None


class Clock(clock.Clock):
    """A wall clock at will."""

    wall_s = 0

    def wall_ns(self) -> int:
        return self.wall_s * 1_000_000_000


def test_endless_data_attack(fleet: Fleet) -> None:
    """No more documents, keys, signatures or bytes than a device can hold."""
    one = signed(document(2))
    with pytest.raises(AgentError) as refused:
        Fields({"documents": [one] * 17}).list_of("documents", trust_succession.parse, high=16)
    assert refused.value.code == "EQ512"
    assert fleet.follow({**one, "signatures": one["signatures"] * 9}) == "EQ512"
    many = document(2)
    many["keys"] = {f"{number:016x}": {"public": "", "name": "k"} for number in range(257)}
    assert fleet.follow(signed(many)) == "EQ512"
    assert fleet.follow(signed(document(2, comment="x" * (1 << 20)))) == "EQ512"
    assert fleet.store.version == 1


def test_mix_and_match_attack(fleet: Fleet) -> None:
    """Parts of documents that were never in force together: under other signatures, or out of order."""
    two, three = signed(document(2)), signed(document(3, release=(GOOD,)))
    assert fleet.follow({**signed(document(2, release=(GOOD,))), "signatures": two["signatures"]}) == "EQ534"
    assert fleet.follow(three, two) == "EQ538"
    roles = {**document(2)["roles"], "release": document(2, release=(STRANGER,))["roles"]["release"]}
    assert fleet.follow({**two, "document": {**two["document"], "roles": roles}}) in ("EQ512", "EQ534")
    assert fleet.follow(two, three) is None


def test_vulnerability_to_key_compromises(fleet: Fleet) -> None:
    """Keys below the threshold of root change nothing; those of another role never do."""
    takeover = document(2, root=(STRANGER,), release=(STRANGER,))
    for signers in ((ROOT_A, STRANGER), (ROOT_A, ROOT_A, STRANGER), (GOOD, LEAKED, STRANGER), (STRANGER,)):
        assert fleet.follow(signed(takeover, *signers)) in ("EQ531", "EQ532"), signers
    rotated = document(2, root=(ROOT_A, ROOT_C))
    assert fleet.follow(signed(rotated, ROOT_A, ROOT_B)) in ("EQ531", "EQ532"), "the new root signs, too"
    assert fleet.follow(signed(rotated, ROOT_A, ROOT_C)) in ("EQ531", "EQ532"), "and so does the old one"
    assert fleet.follow(signed(rotated, ROOT_A, ROOT_B, ROOT_C)) is None
    back = document(3, root=(ROOT_A, ROOT_B))
    assert fleet.follow(signed(back, ROOT_A, ROOT_B)) in ("EQ531", "EQ532"), "b is out"


def test_a_threshold_counts_different_keys(fleet: Fleet) -> None:
    """One signature twice, one key under two ids, one key twice in a role."""
    body = document(2)
    entry = signed(body, ROOT_A)["signatures"][0]
    assert fleet.follow({"document": body, "signatures": [entry, entry]}) == "EQ531"
    under_another_id = {**entry, "key": id_of(ROOT_B)}
    assert fleet.follow({"document": body, "signatures": [entry, under_another_id]}) == "EQ534"
    body["roles"]["root"]["keys"] = [id_of(ROOT_A)] * 2
    assert fleet.follow(signed(body)) == "EQ512"
    alias = document(2)
    alias["keys"]["0" * 16] = alias["keys"][id_of(ROOT_A)]
    alias["roles"]["root"]["keys"] = [id_of(ROOT_A), "0" * 16]
    assert fleet.follow(signed(alias)) == "EQ512", "an id is the digest of its key"


def test_wrong_software_installation(fleet: Fleet) -> None:
    """A valid release under the name of another model: the name is under the signature."""
    manifest = fleet.release(1)
    message = wire.signed_bytes(wire.RELEASE_TYPE, manifest)
    entry = {"key": id_of(GOOD), "sig": base64.b64encode(GOOD.sign(message)).decode()}
    other = {**manifest, "model": "other"}
    request = {"release": wire.digest(other), "manifest": other, "signatures": [entry]}
    with pytest.raises(AgentError) as refused:
        trust_store.admit(fleet.home, trust_store.parse_release(Fields(request)))
    assert refused.value.code == "EQ534"


def test_replayed_trust_documents(fleet: Fleet) -> None:
    """Every document that was in force once, sent again in every order, changes nothing."""
    past = [
        signed(document(1)),
        signed(document(2, release=(GOOD,), revoked=(LEAKED,))),
        signed(
            document(3, release=(GOOD,), revoked=(LEAKED,), counters={"kws": {"version": 3, "counter": 0}})
        ),
    ]
    for each in past[1:]:
        assert fleet.follow(each) is None
    fleet.install(fleet.release(9), GOOD)
    before = Path(fleet.home.trust).read_bytes()
    for each in past[:2]:
        assert fleet.follow(each) == "EQ538"
        assert fleet.follow(each, by_login=True) == "EQ538", "nor with the login's authority"
    assert fleet.follow(past[2]) is None, "the one in force changes nothing"
    assert Path(fleet.home.trust).read_bytes() == before, "and its reset is not done twice"
    other = signed(document(3, release=(GOOD, STRANGER), revoked=(LEAKED,)))
    assert fleet.follow(other) == "EQ538", "another document with the version in force"
    assert fleet.follow(signed(document(4), ROOT_A, ROOT_B)) == "EQ536", "a revoked key gets no role again"


def test_a_document_of_another_type(fleet: Fleet) -> None:
    """A signature over the same bytes, as a release or as a change, does not count."""
    for payload_type in (wire.RELEASE_TYPE, wire.TRUST_CHANGE_TYPE):
        assert fleet.follow(signed(document(2), ROOT_A, ROOT_B, payload_type=payload_type)) == "EQ534"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"release": (GOOD,), "revoked": (LEAKED,), "release_threshold": 2}, "EQ538"),
        ({"root": (ROOT_A,), "revoked": (ROOT_B,), "root_threshold": 2}, "EQ538"),
        ({"root": (), "root_threshold": 1}, "EQ538"),
        ({"release": ()}, "EQ538"),
        ({"release_threshold": 0}, "EQ512"),
        ({"root_threshold": 65}, "EQ512"),
        ({"release": (GOOD, LEAKED), "revoked": (LEAKED,)}, "EQ512"),
    ],
)
def test_a_document_that_locks_the_fleet_out_is_refused(
    fleet: Fleet, changes: dict[str, Any], code: str
) -> None:
    assert fleet.follow(signed(document(2, **changes))) == code
    assert fleet.store.version == 1


def test_a_leaked_key_in_the_middle_of_a_soak(fleet: Fleet) -> None:
    """What the leaked key brought before the reset raises the counter no more, whatever commits it."""
    fleet.install(fleet.release(17), GOOD)
    waiting = fleet.release(HIGHEST, variant="evil")
    release = wire.digest(waiting)
    os.makedirs(fleet.home.release(release))
    files.write_json(os.path.join(fleet.home.release(release), "manifest.json"), waiting)
    assert fleet.follow(signed(recovery(2))) is None
    trust_store.commit(fleet.home, "kws", release)  # the end of its soak, or a recovery after a power cut
    assert fleet.store.counters["kws"].counter == 17
    assert trust_store.withdrawn(fleet.home, "kws", release)


def test_a_withdrawn_release_is_refused_although_its_key_is_trusted(fleet: Fleet) -> None:
    """The publisher's own mistake: the highest counter, signed with the good key. Its file is still about."""
    mistake = fleet.release(HIGHEST, variant="mistake")
    fleet.install(mistake, GOOD)
    assert fleet.follow(signed(document(2, counters={"kws": {"version": 2, "counter": 3}}))) is None
    assert fleet.admit(mistake, GOOD) == "EQ535"
    fleet.install(fleet.release(4), GOOD)
    elsewhere = fleet.release(HIGHEST - 1, variant="never here")
    void = {"kws": {"version": 3, "counter": 4, "void": [wire.digest(elsewhere)]}}
    assert fleet.follow(signed(document(3, counters=void))) is None
    assert fleet.admit(elsewhere, GOOD) == "EQ535"


def test_a_reset_only_lowers(fleet: Fleet) -> None:
    """On a device that the attack did not reach, the reset does not jump ahead."""
    fleet.install(fleet.release(3), GOOD)
    assert fleet.follow(signed(recovery(2, counter=17))) is None
    assert fleet.store.counters["kws"].counter == 3
    fleet.install(fleet.release(4), GOOD)


def test_a_store_that_was_lost_takes_the_reset_again(fleet: Fleet) -> None:
    """The counters are then those of what is on the device, the attacker's release among it."""
    leaked_key_published_the_highest_counter(fleet)
    lost = trust_store.EMPTY._replace(counters=fleet.store.counters)
    latest = signed(
        document(3, release=(GOOD,), revoked=(LEAKED,), counters={"kws": {"version": 2, "counter": 17}})
    )
    parsed = Fields({"document": latest}).object("document")
    again = trust_succession.follow(
        fleet.home, lost, trust_succession.parse(Fields({"d": parsed.json()}), "d"), by_login=False
    )
    assert again.store.counters["kws"].counter == 17


def legacy(home: Home, *keys: Ed25519PrivateKey, threshold: int = 1, changes: str = "operator") -> Fleet:
    """Return a device with the store of an earlier agent."""
    fleet = Fleet(home)
    known = {id_of(each): Key(raw(each), "publish", active=True, name="old") for each in keys}
    counters = {"kws": ReleaseCounter(5, "a" * 64)}
    trust_store.save(home, Trust(known, threshold, changes, 4, counters))
    assert json.loads(Path(home.trust).read_text())["schema"] == "edgeq.trust/1"
    return fleet


@pytest.mark.parametrize("changes", ["operator", "signed"])
def test_an_enrolled_device_is_migrated_by_its_own_keys(tmp_path: Path, changes: str) -> None:
    fleet = legacy(Home(str(tmp_path / "home")), GOOD, LEAKED, threshold=2, changes=changes)
    one = document(1, release_threshold=2)
    assert fleet.follow(signed(one, ROOT_A, ROOT_B)) in ("EQ531", "EQ532"), "its keys must agree"
    assert fleet.follow(signed(one, ROOT_A, ROOT_B, GOOD)) in ("EQ531", "EQ532"), "all that it requires"
    assert fleet.follow(signed(one, GOOD, LEAKED)) in ("EQ531", "EQ532"), "and the new root"
    assert fleet.follow(signed(one, ROOT_A, ROOT_B, GOOD, LEAKED)) is None
    assert (fleet.store.counters["kws"].counter, fleet.store.changes) == (5, changes)
    assert json.loads(Path(fleet.home.trust).read_text())["schema"] == "edgeq.trust/2"
    assert fleet.admit(fleet.release(6), GOOD) == "EQ531"
    assert fleet.admit(fleet.release(6), GOOD, LEAKED) is None, "its release keys stay valid"
    assert fleet.follow(signed(document(2), ROOT_A, ROOT_B)) is None


def test_a_login_replaces_a_lost_root_only_where_the_policy_lets_it(tmp_path: Path) -> None:
    fleet = legacy(Home(str(tmp_path / "home")), GOOD)
    mine = document(1, root=(ROOT_A,), changes="signed")
    assert fleet.follow(signed(mine, ROOT_A), by_login=True) is None
    new = document(5, root=(ROOT_C,))
    assert fleet.follow(signed(new, ROOT_C), by_login=True) == "EQ538"
    open_again = signed(document(2, root=(ROOT_A,), changes="operator"), ROOT_A)
    assert fleet.follow(open_again) is None
    assert fleet.follow(signed(new, ROOT_C)) in ("EQ532", "EQ538"), "not without saying so"
    assert fleet.follow(signed(new, ROOT_B), by_login=True) in ("EQ531", "EQ532"), "its own root signs"
    assert fleet.follow(signed(new, ROOT_C), by_login=True) is None
    assert fleet.store.version == 5


def test_a_signed_change_from_before_the_migration_is_refused(tmp_path: Path) -> None:
    """Where the device follows a document, neither a login nor an old signature changes it otherwise."""
    fleet = legacy(Home(str(tmp_path / "home")), GOOD)
    body = {"schema": wire.TRUST_CHANGE_SCHEMA, "device_id": "d", "sequence": 9, "threshold": 1}
    message = wire.signed_bytes(wire.TRUST_CHANGE_TYPE, body)
    by_good = signatures.Signature(id_of(GOOD), GOOD.sign(message))
    change = trust_change.parse(Fields(body))
    assert trust_change.authorize(fleet.store, change, [by_good], "d") == [id_of(GOOD)]
    assert fleet.follow(signed(document(1, root=(ROOT_A,)), ROOT_A, GOOD)) is None
    for given in ([by_good], None):
        with pytest.raises(AgentError) as refused:
            trust_change.authorize(fleet.store, change, given, "d")
        assert (refused.value.code, "trust document" in refused.value.problem) == ("EQ538", True)


def test_weak_keys_get_no_role(fleet: Fleet) -> None:
    small = b"\x01" + bytes(31)
    body = document(2)
    body["keys"][wire.key_id(small)] = {"public": base64.b64encode(small).decode(), "name": "weak"}
    body["roles"]["release"]["keys"].append(wire.key_id(small))
    assert fleet.follow(signed(body)) == "EQ536"


def test_a_store_with_a_document_is_read_as_it_was_written(fleet: Fleet) -> None:
    leaked_key_published_the_highest_counter(fleet)
    assert fleet.follow(signed(recovery(2, expires_s=2**38))) is None
    store = fleet.store
    assert store.document is not None
    assert trust_store.load(fleet.home) == store
    assert store.active == [id_of(GOOD)]
    summary = trust_store.summary(fleet.home).to_json()
    assert (summary["version"], summary["expires_s"], summary["revoked"]) == (2, 2**38, [id_of(LEAKED)])
    body = json.loads(Path(fleet.home.trust).read_text())
    for damage in ({"document": None}, {"document": {**body["document"], "version": 0}}, {"void": [1]}):
        Path(fleet.home.trust).write_text(json.dumps({**body, **damage}))
        assert fleet.admit(fleet.release(18), GOOD) == "EQ537", damage


def test_any_sequence_of_valid_messages_leaves_the_attacker_out(fleet: Fleet) -> None:
    """After the recovery, everything that was ever signed is sent again, twice, in both directions."""
    documents = [
        signed(document(1)),
        signed(document(2, root=(ROOT_A, ROOT_B, ROOT_C), root_threshold=2)),
        signed(recovery(3, root=(ROOT_A, ROOT_C)), ROOT_A, ROOT_B, ROOT_C),
    ]
    releases: list[tuple[dict[str, Any], Ed25519PrivateKey]] = [
        (fleet.release(17), GOOD),
        (fleet.release(HIGHEST, variant="evil"), LEAKED),
        (fleet.release(16, variant="vulnerable"), GOOD),
    ]
    leaked_key_published_the_highest_counter(fleet)
    assert fleet.follow(*documents[1:]) is None
    fleet.install(fleet.release(18), GOOD)
    before = Path(fleet.home.trust).read_bytes()
    everything: list[Iterable[Any]] = [documents, reversed(documents)]
    for order in everything:
        for each in order:
            fleet.follow(each)
            fleet.follow(each, by_login=True)
        for manifest, signer in releases:
            assert fleet.admit(manifest, signer) in ("EQ533", "EQ535")
    assert Path(fleet.home.trust).read_bytes() == before


def test_hints_of_a_document_do_not_speak_of_bundles(fleet: Fleet) -> None:
    parsed = trust_succession.parse(Fields({"d": signed(document(2), STRANGER)}), "d")
    with pytest.raises(AgentError) as refused:
        trust_succession.follow(fleet.home, fleet.store, parsed, by_login=False)
    assert refused.value.hint == signatures.CHANGE_HINTS.unknown
    assert "root" in refused.value.problem
