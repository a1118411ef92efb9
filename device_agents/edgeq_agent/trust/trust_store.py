"""The trust store: the keys whose releases this device accepts, and the highest counter of each model.

Without a trust document the schema is `edgeq.trust/1`, which older agents read, too. With one it is
`edgeq.trust/2`: an older agent does not know the document's rules, so it must accept nothing.

The wall clock plays no part, except where a trust document has a date of expiry: a release is newer when its
counter is higher, and a key is valid until it is revoked.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import NamedTuple

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import NO_TRUSTED_KEY, OLD_RELEASE, TRUST_DAMAGED, TRUST_EXPIRED, AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.storage import clock, files
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import signatures, trust_document
from edgeq_agent.trust.signatures import Key, Signature
from edgeq_agent.trust.trust_document import CHANGES, MAX_KEYS, OPERATOR, PUBLISH, SIGNED, Role, TrustDocument
from edgeq_agent.wire import Json

__all__ = ["CHANGES", "MAX_KEYS", "OPERATOR", "PUBLISH", "SIGNED"]

SCHEMA = "edgeq.trust/1"
DOCUMENT_SCHEMA = "edgeq.trust/2"
ROLES = (PUBLISH,)


# Stands for the release of a counter that a reset lowered: which one had it is not known.
NO_RELEASE = "0" * 64
MAX_VOID = 4 * trust_document.MAX_VOID


class ReleaseCounter(NamedTuple):
    """The highest release counter that was committed for a model, and the release that had it."""

    counter: int
    release: str


class Trust(NamedTuple):
    """The content of `trust.json`.

    Attributes:
        keys: by id.
        threshold: how many distinct active keys must have signed a release.
        changes: `operator`: everyone who can log in may change the keys; `signed`: a change needs signatures.
        sequence: of the last signed change; an older one is refused.
        counters: by model.
        void: by model, releases that a counter reset took out of the count; none of them is admitted.
        document: the trust document in force, which gives `keys` and `threshold`; None where there is none.
    """

    keys: dict[str, Key]
    threshold: int
    changes: str
    sequence: int
    counters: dict[str, ReleaseCounter]
    void: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - a NamedTuple's default; never changed
    document: TrustDocument | None = None

    @property
    def active(self) -> list[str]:
        """The ids of the keys whose signatures count."""
        return sorted(key_id for key_id, key in self.keys.items() if key.active)

    @property
    def version(self) -> int:
        """The version of the trust document; 0 where there is none."""
        return self.document.version if self.document is not None else 0

    @property
    def root(self) -> Role:
        """Who signs the next trust document: without a document, the trusted keys with their threshold."""
        return self.document.root if self.document is not None else Role(tuple(self.active), self.threshold)


class SignedRelease(NamedTuple):
    """A release as a request offers it: its id, its manifest as it was signed, and the signatures."""

    release: str
    manifest: Json
    signatures: tuple[Signature, ...]


class TrustSummary(NamedTuple):
    """Whom the device trusts; with a problem, the store cannot be read and no one is trusted."""

    store: Trust
    problem: str | None

    def to_json(self) -> Json:
        """Return it as the verb `status` reports it."""
        return dict(
            document_to_json(self.store),
            keys=self.store.active,
            revoked=sorted(set(self.store.keys) - set(self.store.active)),
            threshold=self.store.threshold,
            counters=counters_to_json(self.store),
            problem=self.problem,
        )


EMPTY = Trust(keys={}, threshold=1, changes=OPERATOR, sequence=0, counters={})


def parse_release(request: Fields) -> SignedRelease:
    """Return the signed release of a request: its fields `release`, `manifest` and `signatures`.

    Raises:
        AgentError: EQ512.
    """
    return SignedRelease(
        release=request.sha256("release"),
        manifest=request.object("manifest").json(),
        signatures=signatures.parse(request),
    )


def admit(home: Home, offered: SignedRelease) -> list[str]:
    """Return the ids of the trusted keys that signed a release; refuse one that is old or lacks signatures.

    The lock must be held: no other release may be committed between this check and the commit.

    Raises:
        AgentError: EQ530 the device trusts no key yet, EQ531 to EQ534 see `signatures.check`, EQ535 the
            release is old, EQ537 the store is damaged, EQ524 the trust document has expired.
    """
    store = load(home) or EMPTY
    subject = "release " + offered.release[:12]
    if not store.active:
        raise AgentError(
            NO_TRUSTED_KEY,
            subject,
            "this device trusts no key, so it accepts no release",
            hint="run `edgeq keys trust --on DEVICE` to make it trust this workspace's key",
        )
    signers = signatures.check(
        store.keys, store.threshold, wire.RELEASE_TYPE, offered.manifest, offered.signatures, subject
    )
    _check_expiry(store, subject)
    _check_counter(home, store, offered.manifest, subject)
    return signers


def _check_expiry(store: Trust, subject: str) -> None:
    expires_s = store.document.expires_s if store.document is not None else None
    now_s = clock.wall_ns() // 1_000_000_000
    if expires_s is None or now_s < expires_s:
        return
    raise AgentError(
        TRUST_EXPIRED,
        subject,
        f"the trust document of this device (version {store.version}) has expired, so it admits no release",
        expected=f"a time before {_utc(expires_s)}",
        got=_utc(now_s),
        hint="`edgeq keys change --expires DATE`, then `edgeq keys push --on DEVICE`; "
        "or set the device's clock",
    )


def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _check_counter(home: Home, store: Trust, manifest: Json, subject: str) -> None:
    fields = Fields(manifest, "manifest")
    model = fields.model_name()
    counter = fields.integer("counter", 1, wire.LARGEST_COUNTER)
    highest = store.counters.get(model)
    release = wire.digest(manifest)
    if is_void(store, model, release):
        raise AgentError(
            OLD_RELEASE,
            f"{subject} of {model}",
            "a counter reset withdrew it",
            hint="`edgeq bundle MODEL -o FILE` makes a new release with the next counter",
        )
    # The current release may be activated again, for example on another runtime or after a rollback to it.
    if highest is None or counter > highest.counter or release == release_store.current(home, model):
        return
    if (counter, release) == highest:
        return
    raise AgentError(
        OLD_RELEASE,
        f"{subject} of {model}",
        "older than the last committed release, or another release with the same counter",
        expected=f"a release counter above {highest.counter}",
        got=str(counter),
        hint="use `edgeq rollback MODEL --on DEVICE` to go back; `edgeq bundle MODEL -o FILE` makes a new "
        "release with the next counter",
    )


def commit(home: Home, model: str, release: str) -> None:
    """Raise the model's counter to that of a release that is being committed; it never goes down.

    Called before the commit is written, and again by a recovery that finishes an interrupted activation.
    A release that a counter reset withdrew, and that soaks or that a rollback leads to, does not count.
    """
    try:
        store = load(home)
        counter = release_store.read(home, release).counter
    except AgentError:
        return  # a damaged store admits no release; a rollback to an earlier one must still work
    if (
        store is None
        or is_void(store, model, release)
        or counter <= store.counters.get(model, ReleaseCounter(0, "")).counter
    ):
        return
    counters = dict(store.counters)
    counters[model] = ReleaseCounter(counter, release)
    save(home, store._replace(counters=counters))


def is_void(store: Trust, model: str, release: str) -> bool:
    """Return whether a counter reset withdrew a release."""
    return release in store.void.get(model, ())


def withdrawn(home: Home, model: str, release: str) -> bool:
    """Return whether a counter reset withdrew a release; a damaged store withdraws none."""
    return is_void(summary(home).store, model, release)


def reset_counter(home: Home, store: Trust, model: str, counter: int, void: tuple[str, ...] = ()) -> Trust:
    """Return the store with the model's counter lowered to at most `counter`.

    What is on the device with a higher counter is withdrawn, so that no later commit of it (the end of a
    soak, a recovery, a rollback) raises the counter again.

    Args:
        void: further releases to withdraw.
    """
    counters = dict(store.counters)
    highest = counters.get(model)
    withdrawn = list(store.void.get(model, ())) + [release for release in void]
    if highest is not None and highest.counter > counter:
        withdrawn.append(highest.release)
        del counters[model]
        if counter:
            counters[model] = ReleaseCounter(counter, NO_RELEASE)
    for release in release_store.of_model(home, model):
        try:
            above = release_store.read(home, release).counter > counter
        except AgentError:
            continue  # damaged: it cannot be committed either
        if above:
            withdrawn.append(release)
    kept = tuple(release for release in dict.fromkeys(withdrawn) if release != NO_RELEASE)[-MAX_VOID:]
    return store._replace(counters=counters, void=dict(store.void, **({model: kept} if kept else {})))


def summary(home: Home) -> TrustSummary:
    """Return whom the device trusts; a damaged store is a `problem` in it."""
    try:
        store = load(home) or EMPTY
    except AgentError as error:
        return TrustSummary(EMPTY, error.problem)
    return TrustSummary(store, None)


def load(home: Home) -> Trust | None:
    """Return the store, or None when there is none yet.

    Raises:
        AgentError: EQ537, it exists and cannot be read; no release is admitted then.
    """
    try:
        return _parse(Fields(files.read_json(home.trust)))
    except FileNotFoundError:
        return None
    except (ValueError, AgentError) as error:
        raise AgentError(
            TRUST_DAMAGED,
            "trust.json",
            "the device's trust store cannot be read, so the device accepts no release",
            hint=f"run `mv {home.trust} {home.trust}.old` on the device, then `edgeq keys push --on DEVICE` "
            "(without a trust document: `edgeq keys trust --on DEVICE`)",
        ) from error


def save(home: Home, store: Trust) -> None:
    """Replace the store atomically."""
    body: Json = {
        "schema": SCHEMA,
        "keys": {key_id: key_to_json(key) for key_id, key in store.keys.items()},
        "policy": {"threshold": store.threshold, "changes": store.changes},
        "sequence": store.sequence,
        "counters": counters_to_json(store),
    }
    if store.void:
        body["void"] = {model: list(releases) for model, releases in store.void.items()}
    if store.document is not None:
        body.update(schema=DOCUMENT_SCHEMA, document=store.document.document)
    files.write_json(home.trust, body)


def key_to_json(key: Key) -> Json:
    """Return a key as it is stored and reported."""
    return {
        "public": base64.b64encode(key.public).decode("ascii"),
        "role": key.role,
        "state": "active" if key.active else "revoked",
        "name": key.name,
    }


def counters_to_json(store: Trust) -> Json:
    """Return {model: {counter, release}}."""
    return {model: highest._asdict() for model, highest in store.counters.items()}


def document_to_json(store: Trust) -> Json:
    """Return what is reported of the trust document in force; nothing where there is none."""
    if store.document is None:
        return {}
    return {
        "version": store.version,
        "document_sha256": wire.digest(store.document.document),
        "root": {"keys": list(store.document.root.keys), "threshold": store.document.root.threshold},
        "expires_s": store.document.expires_s,
    }


def _parse(fields: Fields) -> Trust:
    schema = fields.one_of("schema", (SCHEMA, DOCUMENT_SCHEMA))
    policy = fields.object("policy")
    keys = fields.object("keys")
    counters = fields.object("counters")
    return Trust(
        keys={key_id: _parse_key(keys, key_id) for key_id in keys.json()},
        threshold=policy.integer("threshold", 1, MAX_KEYS),
        changes=policy.one_of("changes", CHANGES),
        sequence=fields.integer("sequence", 0, wire.LARGEST_COUNTER),
        counters={
            Fields({"model": model}).model_name(): _parse_counter(counters.object(model))
            for model in counters.json()
        },
        void={
            model: tuple(fields.optional_object("void").list_of(model, Fields.sha256))
            for model in fields.optional_object("void").json()
        },
        document=trust_document.parse(fields.object("document")) if schema == DOCUMENT_SCHEMA else None,
    )


def _parse_counter(fields: Fields) -> ReleaseCounter:
    return ReleaseCounter(fields.integer("counter", 1, wire.LARGEST_COUNTER), fields.sha256("release"))


def _parse_key(keys: Fields, key_id: str) -> Key:
    fields = keys.object(key_id)
    public = base64.b64decode(fields.text("public"), validate=True)
    if wire.key_id(public) != key_id:
        raise binascii.Error("the key does not have this id")
    return Key(
        public=public,
        role=fields.one_of("role", ROLES),
        active=fields.one_of("state", ("active", "revoked")) == "active",
        name=str(fields.raw("name")),
    )
