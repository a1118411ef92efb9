"""The trust document on the host: amended, signed, exchanged; no version of it locks the fleet out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.bundle.keys import SigningKey, new_key
from edgeq.bundle.trust_chain import TrustChain, load_chain, merged, save_chain
from edgeq.bundle.trust_document import Amendment, TrustDocument, first_document, needed, next_document
from edgeq.errors import TrustDocumentError
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import trust_document as on_device
from edgeq_agent.trust import trust_store, trust_succession


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SigningKey]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: new_key(folder, name) for name in ("alice", "bob", "carol", "release", "next")}


def started(keys: dict[str, SigningKey], **changes: Any) -> TrustChain:
    """Return a chain in which alice and bob must both sign."""
    amendment = Amendment(
        add_root=[keys["alice"].public, keys["bob"].public],
        add_release=[keys["release"].public],
        root_threshold=2,
        **changes,
    )
    chain = TrustChain().proposed(first_document(amendment), [keys["alice"], keys["bob"]])
    assert (chain.version, chain.draft) == (1, None)
    return chain


def latest(chain: TrustChain) -> TrustDocument:
    assert chain.latest is not None
    return chain.latest


def test_a_version_comes_into_force_with_enough_signatures_of_the_old_and_the_new_root(
    keys: dict[str, SigningKey],
) -> None:
    chain = started(keys)
    swap = Amendment(add_root=[keys["carol"].public], revoke=[keys["bob"].public.id])
    draft = next_document(latest(chain), swap)
    one = chain.proposed(draft, [keys["alice"]])
    assert one.draft is not None
    assert needed(one.latest, one.draft) == {
        "old root": (keys["bob"].public.id,),
        "new root": (keys["carol"].public.id,),
    }
    two = one.signed([keys["bob"]], subject="x")
    assert two.version == 1, "the new root has not signed with two keys"
    three = two.signed([keys["carol"]], subject="x")
    assert (three.version, three.draft) == (2, None)
    assert latest(three).revoked == (keys["bob"].public.id,)


def test_a_key_that_has_no_say_does_not_sign(keys: dict[str, SigningKey]) -> None:
    chain = started(keys)
    draft = next_document(latest(chain), Amendment(add_release=[keys["next"].public]))
    waiting = chain.proposed(draft, [keys["alice"]])
    with pytest.raises(TrustDocumentError, match="expected a signature of bob") as caught:
        waiting.signed([keys["release"]], subject="trust.json")
    assert "release" in str(caught.value.got)
    with pytest.raises(TrustDocumentError, match="no draft"):
        chain.signed([keys["bob"]], subject="trust.json")


@pytest.mark.parametrize(
    ("change", "option"),
    [
        (lambda k: Amendment(revoke=[k["bob"].public.id]), "--add-root"),
        (lambda k: Amendment(drop_root=[k["bob"].public.id]), "--add-root"),
        (lambda k: Amendment(root_threshold=3), "--root-threshold"),
        (lambda k: Amendment(revoke=[k["alice"].public.id, k["bob"].public.id]), "--add-root"),
        (lambda k: Amendment(revoke=[k["release"].public.id]), "--add-release"),
        (lambda k: Amendment(drop_release=[k["release"].public.id]), "--add-release"),
        (lambda k: Amendment(release_threshold=2), "--release-threshold"),
    ],
)
def test_a_change_that_would_lock_the_fleet_out_is_refused(
    keys: dict[str, SigningKey], change: Any, option: str
) -> None:
    with pytest.raises(TrustDocumentError, match="locked out") as caught:
        next_document(latest(started(keys)), change(keys))
    assert caught.value.reported_code == "EQ609"
    assert option in str(caught.value.hint)


def test_a_revoked_key_gets_no_role_again(keys: dict[str, SigningKey]) -> None:
    rotate = Amendment(add_release=[keys["next"].public], revoke=[keys["release"].public.id])
    after = next_document(latest(started(keys)), rotate).document
    with pytest.raises(TrustDocumentError, match="final"):
        next_document(after, Amendment(add_release=[keys["release"].public]))
    with pytest.raises(TrustDocumentError, match="not in the trust document"):
        next_document(after, Amendment(revoke=["0" * 16]))


def test_resets_stay_in_later_versions(keys: dict[str, SigningKey]) -> None:
    chain = started(keys)
    reset = Amendment(reset_counters={"kws": 17}, void={"kws": ["a" * 64]})
    two = next_document(latest(chain), reset).document
    assert two.counters["kws"].model_dump() == {"version": 2, "counter": 17, "void": ("a" * 64,)}
    three = next_document(two, Amendment(add_release=[keys["next"].public])).document
    assert three.counters == two.counters
    four = next_document(three, Amendment(reset_counters={"kws": 3}, void={"kws": ["b" * 64]})).document
    assert (four.counters["kws"].version, four.counters["kws"].void) == (4, ("a" * 64, "b" * 64))


def test_a_chain_is_read_as_it_was_written_and_changes_by_others_are_seen(
    keys: dict[str, SigningKey], tmp_path: Path
) -> None:
    chain = started(keys)
    draft = next_document(latest(chain), Amendment(add_release=[keys["next"].public]))
    chain = chain.proposed(draft, [keys["alice"], keys["bob"]])
    chain = chain.proposed(next_document(latest(chain), Amendment(release_threshold=2)), [keys["alice"]])
    path = tmp_path / ".edgeq" / "trust.json"
    assert load_chain(path) == TrustChain()
    save_chain(path, chain)
    assert load_chain(path) == chain
    body = json.loads(path.read_text())
    edited = json.loads(path.read_text())
    edited["documents"][1]["document"]["roles"]["release"]["threshold"] = 2
    damages: tuple[Any, ...] = (
        edited,
        {**body, "documents": body["documents"][:1] + body["documents"][:1]},
        {
            **body,
            "documents": [{**body["documents"][0], "signatures": body["documents"][0]["signatures"][:1]}],
        },
        {**body, "documents": 7},
        {**body, "schema": "x"},
        [],
    )
    for damaged in damages:
        path.write_text(json.dumps(damaged))
        with pytest.raises(TrustDocumentError):
            load_chain(path)
    for text in ("", "{", "\xff", '{"a": "\\ud800"}', "[" * 100_000):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(TrustDocumentError):
            load_chain(path)


def test_copies_of_a_draft_are_signed_apart_and_merged(keys: dict[str, SigningKey]) -> None:
    chain = started(keys)
    draft = next_document(latest(chain), Amendment(expires_s=2**38))
    here, there = chain.proposed(draft, [keys["alice"]]), chain.proposed(draft, [keys["bob"]])
    assert merged(here, there, subject="x").version == 2
    assert merged(here, chain, subject="x") == here
    assert merged(chain, merged(here, there, subject="x"), subject="x").version == 2
    assert merged(TrustChain(), there, subject="x") == there
    other = chain.proposed(next_document(latest(chain), Amendment(expires_s=2**37)), [keys["bob"]])
    with pytest.raises(TrustDocumentError, match="another draft"):
        merged(here, other, subject="x")
    with pytest.raises(TrustDocumentError, match="another trust document"):
        merged(started(keys, changes="signed"), here, subject="x")


def test_a_device_needs_every_version_after_its_own(keys: dict[str, SigningKey]) -> None:
    chain = started(keys)
    for number in range(2, 5):
        draft = next_document(latest(chain), Amendment(expires_s=2**30 + number))
        chain = chain.proposed(draft, [keys["alice"], keys["bob"]])
    assert [each.document.version for each in chain.after(2)] == [3, 4]
    assert chain.after(4) == ()
    assert replace(chain, documents=chain.documents[2:]).after(0) == ()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_the_host_makes_the_device_follows_and_what_it_refuses_the_device_refuses_too(
    keys: dict[str, SigningKey], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any sequence of amendments: no step of it leaves a role that cannot sign, on either side."""
    everyone = list(keys.values())
    by_id = {key.public.id: key for key in everyone}
    home = Home(str(tmp_path_factory.mktemp("device")))
    Path(home.releases).mkdir()
    some = st.lists(
        st.sampled_from([key.public for key in everyone]), max_size=2, unique_by=lambda key: key.id
    )
    chain = started(keys)
    store = trust_store.EMPTY
    for _ in range(data.draw(st.integers(1, 3))):
        amendment = Amendment(
            add_root=data.draw(some),
            add_release=data.draw(some),
            drop_root=[key.id for key in data.draw(some)],
            revoke=[key.id for key in data.draw(some)],
            root_threshold=data.draw(st.none() | st.integers(1, 3)),
            release_threshold=data.draw(st.none() | st.integers(1, 3)),
        )
        try:
            draft = next_document(latest(chain), amendment)
        except TrustDocumentError:
            continue
        chain = chain.proposed(draft, [by_id[key_id] for key_id in sorted(by_id)])
        assert chain.draft is None
    for signed in chain.documents:
        parsed = trust_succession.parse(Fields({"d": signed.to_request()}), "d")
        store = trust_succession.follow(home, store, parsed, by_login=False).store
        assert len(store.active) >= store.threshold
        assert len(store.root.keys) >= store.root.threshold
    locked = json.loads(json.dumps(dict(chain.documents[-1].body)))
    locked["version"] += 1
    locked["roles"]["root"]["threshold"] = len(locked["roles"]["root"]["keys"]) + 1
    with pytest.raises(AgentError):
        on_device.parse(Fields(locked))
