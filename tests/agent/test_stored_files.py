"""Files that the agent stores: what is written is read back as it was, and files of older agents are read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import wire
from edgeq_agent.activation import candidates, counters, states
from edgeq_agent.activation.candidates import CandidateRelease
from edgeq_agent.activation.counters import ReleaseCounts
from edgeq_agent.activation.state_record import Attempts, SoakPolicy, StateRecord
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.storage import clock, files
from edgeq_agent.storage.home import Home, locate
from edgeq_agent.trust import trust_store
from edgeq_agent.trust.signatures import Key, Signature
from edgeq_agent.trust.trust_store import ReleaseCounter, SignedRelease, Trust

RELEASE, OTHER, RUNTIME = "a" * 64, "b" * 64, "c" * 64

STATE: dict[str, Any] = {
    "schema": "edgeq.model-state/1",
    "model": "m",
    "state": "soaking",
    "boot_id": "3f1c",
    "since_boot_ns": 12_000_000_000,
    "target": RELEASE,
    "target_runtime": RUNTIME,
    "target_history": [OTHER],
    "fallback": OTHER,
    "soak": {"soak_ns": 600_000_000_000, "failure_limit": 3},
    "timeout_s": 120.0,
    "tries": 0,
    "attempts": [{"release": RELEASE, "count": 2}],
    "runtimes": {OTHER: RUNTIME},
    "history": [],
    "previous": None,
    "pinned": [RELEASE],
    "health": {"proof": "golden", "latency_p95_ns": 900},
    "since_ns": 1_718_000_000_000_000_000,
    "reason": None,
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home_folder = locate(str(tmp_path / "home"))
    home_folder.ensure()
    os.mkdir(home_folder.model("m"))
    return home_folder


def write(home: Home, name: str, body: dict[str, Any]) -> None:
    Path(home.model("m"), name).write_text(json.dumps(body))


def test_a_state_is_written_as_it_was_read(home: Home) -> None:
    write(home, "state.json", STATE)
    record = states.read(home, "m")
    assert record.to_json() == STATE
    assert record.soak == SoakPolicy(600_000_000_000, 3)
    assert (record.previous, record.runtime_of(RELEASE)) == (OTHER, RUNTIME)


def test_a_state_of_an_agent_before_soaks_and_attempts_is_read(home: Home) -> None:
    old = {"schema": "edgeq.model-state/1", "state": "committed", "runtimes": {OTHER: RUNTIME}}
    write(home, "state.json", {**old, "history": [RELEASE], "previous": RELEASE})
    record = states.read(home, "m")
    assert (record.state, record.previous, record.soak) == ("committed", RELEASE, None)
    assert record.attempts.count(OTHER) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"state": "no such state"},
        {"state": None},
        {"state": []},
        {**STATE, "soak": 600},
        {**STATE, "history": 7},
        {**STATE, "attempts": [RELEASE]},
        {**STATE, "runtimes": RUNTIME},
        {**STATE, "tries": {}},
    ],
)
def test_a_state_that_is_unknown_counts_as_damaged(home: Home, body: dict[str, Any]) -> None:
    write(home, "state.json", body)
    assert states.read(home, "m") == StateRecord("m", reason=states.DAMAGED)


def test_fields_that_a_state_file_does_not_have_get_their_defaults(home: Home) -> None:
    write(home, "state.json", {})
    record = states.read(home, "m")
    assert record == StateRecord("m")
    assert (record.timeout_s, record.tries, record.reason) == (0.0, 0, None)
    assert record.entered == clock.Moment("None", 0)
    assert SoakPolicy.parse(Fields({"soak_ns": 9})) == SoakPolicy(9, 5)
    assert SoakPolicy.parse(Fields({"failure_limit": 2})) == SoakPolicy(0, 2)


def test_the_previous_release_is_the_last_of_the_history_or_the_fallback() -> None:
    record = StateRecord("m", state="committed", target="new", fallback="other", history=("older", "old"))
    assert (record.previous, record.to_json()["previous"]) == ("old", "old")
    assert record.to_json()["pinned"] == ["new", "old"]
    for state in ("soaking", "rolling_back"):
        assert StateRecord("m", state=state, fallback="other", history=("old",)).previous == "other"


@pytest.mark.parametrize("state", ["none", "staged", "verified", "activating", "soaking", "committed"])
def test_the_target_has_its_runtime_once_the_link_is_swapped(state: str) -> None:
    record = StateRecord("m", state=state, target="new", target_runtime="t2", runtimes={"old": "t1"})
    assert record.runtime_of("new") == ("t2" if state in ("activating", "soaking") else None)
    assert record.runtime_of("old") == "t1"
    assert record.runtime_of(None) is None


def test_attempts_are_kept_for_the_last_32_releases_and_limited_to_ten() -> None:
    counts = Attempts()
    for number in range(33):
        counts = counts.incremented(f"r{number}")
    assert [counts.count(f"r{number}") for number in range(33)] == [0] + [1] * 32
    for _ in range(8):
        counts = counts.incremented(RELEASE)
    counts.incremented(RELEASE).check_limit("m", RELEASE, None)
    with pytest.raises(AgentError) as refused:
        counts.incremented(RELEASE).incremented(RELEASE).check_limit("m", RELEASE, None)
    assert refused.value.subject == "m aaaaaaaaaaaa"
    assert (refused.value.expected, refused.value.got) == ("at most 10 attempts", "10 attempts")


def test_candidates_are_written_as_they_were_read(home: Home) -> None:
    entry = {"runtime": RUNTIME, "counter": 7, "health": {"proof": "golden"}, "since_ns": 5}
    body = {"schema": candidates.SCHEMA, "releases": {RELEASE: entry, OTHER: {**entry, "counter": 8}}}
    write(home, "staged.json", body)
    known = candidates.read(home, "m")
    assert known[RELEASE] == CandidateRelease(RUNTIME, 7, {"proof": "golden"}, 5)
    candidates.write(home, "m", known)
    assert json.loads(Path(candidates.path_of(home, "m")).read_text()) == body


def test_counters_of_this_boot_are_read_and_unknown_fields_ignored(home: Home) -> None:
    counts = {"calls": 10, "errors": 2, "errors_by_kind": {"invoke": 2}, "deadline_misses": 1, "new": 1}
    body = {"schema": counters.SCHEMA, "boot_id": clock.now().boot_id, "releases": {RELEASE: counts}}
    write(home, "counters.json", body)
    assert counters.read(home, "m", RELEASE) == ReleaseCounts(10, 2, 1, 0)
    counters.add(home, "m", RELEASE, errors=1)
    stored = json.loads(Path(home.model("m"), "counters.json").read_text())
    assert (stored["errors"], stored["errors_by_kind"]) == (3, {"invoke": 2, "inference": 1})


PUBLIC = {name: bytes([number]) * 32 for number, name in enumerate(("first", "second"))}
KEYS = {
    wire.key_id(public): Key(public, "publish", active=name == "first", name=name)
    for name, public in PUBLIC.items()
}
FIRST, SECOND = KEYS
TRUST = Trust(
    keys=KEYS, threshold=1, changes="signed", sequence=4, counters={"m": ReleaseCounter(7, RELEASE)}
)


def manifest_of(counter: int) -> dict[str, Any]:
    entry = {"sha256": OTHER, "size_bytes": 1}
    return {
        "schema": wire.MANIFEST_SCHEMA,
        "model": "m",
        "counter": counter,
        "files": {"model.tflite": entry, "golden.npz": entry},
        "golden": {"file": "golden.npz"},
    }


def stored_release(home: Home, counter: int) -> str:
    """Store the manifest of a release with this counter; return its id."""
    manifest = manifest_of(counter)
    release = wire.digest(manifest)
    os.makedirs(home.release(release), exist_ok=True)
    files.write_json(os.path.join(home.release(release), "manifest.json"), manifest)
    return release


def test_a_trust_store_is_read_as_it_was_written(home: Home) -> None:
    assert trust_store.load(home) is None
    trust_store.save(home, TRUST)
    assert trust_store.load(home) == TRUST
    assert trust_store.summary(home).to_json() == {
        "keys": [FIRST],
        "revoked": [SECOND],
        "threshold": 1,
        "counters": {"m": {"counter": 7, "release": RELEASE}},
        "problem": None,
    }


def test_a_device_without_a_trust_store_reports_no_keys(home: Home) -> None:
    empty = {"keys": [], "revoked": [], "threshold": 1, "counters": {}}
    assert trust_store.summary(home).to_json() == {**empty, "problem": None}
    assert (trust_store.EMPTY.sequence, trust_store.EMPTY.changes) == (0, "operator")
    Path(home.trust).write_text("{")
    problem = "the device's trust store cannot be read, so the device accepts no release"
    assert trust_store.summary(home).to_json() == {**empty, "problem": problem}


@pytest.mark.parametrize(
    ("changes", "readable"),
    [
        ({"threshold": 1}, True),
        ({"threshold": 64}, True),
        ({"threshold": 0}, False),
        ({"threshold": 65}, False),
        ({"sequence": 0}, True),
        ({"sequence": 2**53 - 1}, True),
        ({"sequence": -1}, False),
        ({"sequence": 2**53}, False),
        ({"changes": "nobody"}, False),
        ({"counters": {"m": ReleaseCounter(1, RELEASE)}}, True),
        ({"counters": {"m": ReleaseCounter(0, RELEASE)}}, False),
        ({"counters": {"m": ReleaseCounter(1, "r")}}, False),
        ({"counters": {"../m": ReleaseCounter(1, RELEASE)}}, False),
        ({"keys": {SECOND: KEYS[FIRST]}}, False),
    ],
)
def test_a_trust_store_with_a_value_out_of_range_counts_as_damaged(
    home: Home, changes: dict[str, Any], readable: bool
) -> None:
    store = TRUST._replace(**changes)
    trust_store.save(home, store)
    if readable:
        assert trust_store.load(home) == store
    else:
        with pytest.raises(AgentError) as refused:
            trust_store.load(home)
        assert refused.value.code == "EQ537"


def test_a_commit_raises_the_counter_and_never_lowers_it(home: Home) -> None:
    trust_store.commit(home, "m", stored_release(home, 1))
    assert trust_store.load(home) is None, "a device without a store gets none from a commit"
    trust_store.save(home, TRUST._replace(counters={}))
    first, eighth = stored_release(home, 1), stored_release(home, 8)
    expected: dict[str, ReleaseCounter] = {}
    for model, release, counter in (("m", first, 1), ("m", eighth, 8), ("n", first, 1)):
        trust_store.commit(home, model, release)
        expected[model] = ReleaseCounter(counter, release)
        assert trust_store.load(home) == TRUST._replace(counters=expected)
    trust_store.commit(home, "m", first)
    trust_store.commit(home, "m", RELEASE)  # not on the device
    assert trust_store.load(home) == TRUST._replace(counters=expected)
    # Another release with the same counter does not replace the one that was committed.
    trust_store.save(home, TRUST._replace(counters={"m": ReleaseCounter(8, OTHER)}))
    trust_store.commit(home, "m", eighth)
    assert trust_store.load(home) == TRUST._replace(counters={"m": ReleaseCounter(8, OTHER)})


@pytest.fixture
def admitting(home: Home) -> Any:
    """Return a function that admits a signed manifest on a device whose highest counter is 7."""
    signer = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = signer.public_key().public_bytes_raw()
    known = {wire.key_id(public): Key(public, "publish", active=True, name="tests")}
    counters = {"m": ReleaseCounter(7, wire.digest(manifest_of(7)))}
    trust_store.save(home, TRUST._replace(keys=known, counters=counters))

    def admit(manifest: dict[str, Any]) -> str | None:
        """Return the error's code; None when it is admitted."""
        signature = signer.sign(wire.signed_bytes(wire.RELEASE_TYPE, manifest))
        offered = SignedRelease(wire.digest(manifest), manifest, (Signature(wire.key_id(public), signature),))
        try:
            trust_store.admit(home, offered)
        except AgentError as error:
            return error.code
        return None

    return admit


def test_a_release_is_admitted_by_its_counter(home: Home, admitting: Any) -> None:
    assert admitting(manifest_of(8)) is None
    assert admitting(manifest_of(7)) is None, "the one that was committed last"
    assert admitting({**manifest_of(7), "variant": "other"}) == "EQ535"
    assert admitting(manifest_of(6)) == "EQ535"
    os.symlink("../../releases/" + wire.digest(manifest_of(6)), os.path.join(home.model("m"), "current"))
    assert admitting(manifest_of(6)) is None, "the one that serves"
    assert admitting(manifest_of(5)) == "EQ535"
    assert admitting({**manifest_of(1), "model": "n"}) is None, "the first of its model"
    assert admitting({**manifest_of(0), "model": "n"}) == "EQ512"
    assert admitting(manifest_of(2**53 - 1)) is None
    assert admitting(manifest_of(2**53)) == "EQ512"


def test_a_refused_release_is_named_with_the_counters(home: Home, admitting: Any) -> None:
    offered = SignedRelease(RELEASE, manifest_of(3), ())
    with pytest.raises(AgentError) as refused:
        trust_store.admit(home, offered)
    assert (refused.value.code, refused.value.subject) == ("EQ531", "release aaaaaaaaaaaa")
    trust_store.save(home, TRUST._replace(keys={SECOND: KEYS[SECOND]}))
    with pytest.raises(AgentError) as refused:
        trust_store.admit(home, offered)
    assert refused.value.code == "EQ530", "its only key was revoked"
