"""Trust documents on devices: send the missing versions, and predict whether a release is accepted then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.bundle.archive import Bundle
from edgeq.bundle.counters import counted
from edgeq.bundle.trust_chain import TrustChain, chain_path, load_chain
from edgeq.bundle.trust_document import SignedDocument
from edgeq.errors import DeviceError
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.connect import ask
from edgeq.fleet.parallel import Results, on_each
from edgeq.fleet.plan import Action, Component, PlanStep
from edgeq.fleet.responses import DeviceStatus, ReleaseCounter, TrustSummary
from edgeq.fleet.trust import TrustStore, format_day, read_trust, record_trust
from edgeq.store import Store, recording_store
from edgeq.values import Device

_ALL = 10**9
# As many as a device takes in one call.
_IN_ONE_CALL = 16


def push(client: AgentClient, chain: TrustChain, *, by_login: bool = False) -> TrustStore:
    """Let a device follow the workspace's trust document, and return its trust store; idempotent.

    A device that trusts no key yet gets the latest version alone.

    Args:
        by_login: let the login be the authority where the device's root has not signed.

    Raises:
        DeviceError: EQ538 the device follows another document, or its policy forbids the login's authority;
            EQ531 to EQ534, EQ536 as on the device.
    """
    store = read_trust(client)
    latest = chain.documents[-1:]
    if chain.version == store.version and latest and latest[0].digest == store.document_digest:
        return store
    if not by_login:
        _check_same_document(client.device.name, chain, store.version, store.document_digest)
    fresh = not store.keys and not store.version
    pending = latest if by_login or fresh else chain.after(store.version) or latest
    if not by_login and not fresh:
        _check_signed(client.device.name, store, pending[0])
    for start in range(0, len(pending), _IN_ONE_CALL):
        body = {"documents": [each.to_request() for each in pending[start : start + _IN_ONE_CALL]]}
        store = client.request(TrustStore, "trust", {**body, **({"by_login": True} if by_login else {})})
    return store


def push_many(
    devices: Sequence[Device],
    chain: TrustChain,
    *,
    by_login: bool = False,
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> Results[TrustStore]:
    """Let devices follow the workspace's trust document, and write each change to the audit log.

    Args:
        store: holds the audit log; the store of the default workspace if None.
    """
    results = on_each(
        devices,
        lambda device: ask(
            device,
            lambda client: push(client, chain, by_login=by_login),
            repeatable=True,
            retry_policy=retry_policy,
        ),
    )
    with recording_store(store) as opened:
        for name, trust in results.done.items():
            if trust.changed:
                record_trust(opened, "keys push", name, trust)
    return results


def pin_document(client: AgentClient, chain: TrustChain) -> TrustStore:
    """Make a device that trusts no key yet follow the workspace's document; another one stays as it is."""
    body = {"documents": [chain.documents[-1].to_request()], "first": True}
    return client.request(TrustStore, "trust", body)


def pending(chain: TrustChain, trust: TrustSummary | None) -> tuple[SignedDocument, ...]:
    """Return the documents that a device lacks and will accept; none where it follows another document."""
    if trust is None or trust.problem or not (trust.keys or trust.version):
        return ()
    if trust.version:
        same = chain.digest_of(trust.version) in (None, trust.document_digest)
        return chain.after(trust.version) if same else ()
    first = chain.after(0)
    if not first:
        return ()
    signers = first[0].valid_signers(first[0].document.keys) & set(trust.keys)
    return first if len(signers) >= trust.threshold else ()


def document_step(trust: TrustSummary | None, documents: Sequence[SignedDocument]) -> list[PlanStep]:
    """Return the step that sends the documents; none where there are none."""
    if not documents or trust is None:
        return []
    version = documents[-1].document.version
    step = PlanStep(
        action=Action.CHANGE if trust.version else Action.CREATE,
        part=Component.TRUST,
        subject=f"trust document {version}",
        reason=f"the device follows version {trust.version}"
        if trust.version
        else "the device follows none yet",
        key=documents[-1].digest,
    )
    return [step]


def counted_releases(workspace: Path, store: Store) -> list[Mapping[str, Any]]:
    """Return the manifests of the workspace's releases, without those that counter resets withdrew."""
    void = void_releases(load_chain(chain_path(workspace)), store)
    return counted(((record.release, record.manifest) for record in store.releases()), void)


def withdrawn_releases(workspace: Path, store: Store) -> list[Mapping[str, Any]]:
    """Return the manifests of the workspace's releases that counter resets withdrew."""
    void = void_releases(load_chain(chain_path(workspace)), store)
    return [record.manifest for record in store.releases() if record.release in void]


def void_releases(chain: TrustChain, store: Store) -> set[str]:
    """Return the releases that counter resets withdrew, by the trust document or on single devices."""
    void = set(chain.void)
    for record in store.audit(limit=_ALL):
        # A counter reset of single devices recorded what it withdrew.
        withdrawn = record.body.get("void") if record.action == "keys reset-counter" else None
        void.update(map(str, withdrawn or ()))
    return void


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """What a device goes by once it has its documents."""

    keys: frozenset[str]
    revoked: frozenset[str]
    threshold: int
    counters: Mapping[str, ReleaseCounter]
    void: frozenset[str]
    expires_s: int | None


def trust_steps(
    status: DeviceStatus,
    bundle: Bundle,
    documents: Sequence[SignedDocument] = (),
    *,
    device_time_s: float | None = None,
) -> list[PlanStep]:
    """Return the blocked step for a bundle whose signature or counter the device would refuse; else none.

    The device decides, and checks again; this only predicts it before anything is sent.

    Args:
        documents: trust documents that it gets before the release.
        device_time_s: the device's clock, in seconds since 1970; None where it is not known.
    """
    if status.trust is None:
        return []
    if status.trust.problem:
        return [_blocked(bundle, "EQ537", status.trust.problem)]
    trust = _expected(status.trust, bundle.model, documents)
    signers = {signature.key.id for signature in bundle.signed_by}
    floor = trust.counters.get(bundle.model) or ReleaseCounter(counter=0, release=None)
    counter, current = bundle.parsed.counter, status.model(bundle.model).current
    if not trust.keys:
        return [_blocked(bundle, "EQ530", "the device trusts no key yet: `edgeq keys trust --on DEVICE`")]
    if not signers:
        reason = "it is not signed: make it again with `edgeq bundle MODEL -o FILE`"
        return [_blocked(bundle, "EQ531", reason)]
    if len(signers & trust.keys) < trust.threshold:
        reason = (
            f"signed by {_names(signers, trust.revoked)}; the device requires {trust.threshold} "
            f"of {', '.join(sorted(trust.keys))}: `edgeq keys trust KEY --on DEVICE`"
        )
        return [_blocked(bundle, "EQ533" if signers & trust.revoked else "EQ532", reason)]
    if trust.expires_s is not None and device_time_s is not None and device_time_s >= trust.expires_s:
        reason = (
            f"the trust document of the device expired on {format_day(trust.expires_s)}: "
            "`edgeq keys change --expires DATE`"
        )
        return [_blocked(bundle, "EQ524", reason)]
    if bundle.release in trust.void:
        reason = "a counter reset withdrew it: `edgeq bundle MODEL -o FILE` makes a new release"
        return [_blocked(bundle, "EQ535", reason)]
    if counter <= floor.counter and bundle.release not in (floor.release, current):
        reason = (
            f"its counter is {counter}, but the device has committed {floor.counter}: "
            "`edgeq rollback MODEL --on DEVICE` goes back to an older release, "
            "`edgeq bundle MODEL -o FILE` makes a new one"
        )
        return [_blocked(bundle, "EQ535", reason)]
    return []


def _expected(trust: TrustSummary, model: str, documents: Sequence[SignedDocument]) -> _Expected:
    counters = dict(trust.counters)
    void: frozenset[str] = frozenset()
    for signed in documents:
        reset = signed.document.counters.get(model)
        highest = counters.get(model)
        if reset is None or reset.version <= trust.version:
            continue
        void = frozenset(reset.void)
        if highest is not None and highest.counter > reset.counter:
            counters[model] = ReleaseCounter(counter=reset.counter, release=None)
    latest = documents[-1].document if documents else None
    return _Expected(
        keys=frozenset(latest.roles.release.keys if latest else trust.keys),
        revoked=frozenset((*trust.revoked, *(latest.revoked if latest else ()))),
        threshold=latest.roles.release.threshold if latest else trust.threshold,
        counters=counters,
        void=void,
        expires_s=latest.expires_s if latest else trust.expires_s,
    )


def _check_signed(device: str, store: TrustStore, signed: SignedDocument) -> None:
    """Refuse to send what the device's root has not signed; the device would refuse it, too."""
    root = store.root.keys if store.root else store.active
    threshold = store.root.threshold if store.root else store.threshold
    signers = signed.valid_signers(signed.document.keys) & set(root)
    if len(signers) >= threshold:
        return
    raise DeviceError(
        device,
        f"trust document {signed.document.version} is not signed by enough of the keys that it trusts",
        expected=f"{threshold} of " + ", ".join(root),
        got=", ".join(sorted(signers)) or "none of them",
        hint=(
            "make the document where those keys are, and `edgeq keys import FILE` takes it here; "
            "or use `--by-login`, if the policy of the device allows it"
        ),
        code="EQ532",
    )


def _check_same_document(device: str, chain: TrustChain, version: int, digest: str | None) -> None:
    """Refuse to send to a device that follows a document which is not in the chain; it would refuse, too."""
    known = chain.digest_of(version)
    if version and (version > chain.version or (known is not None and known != digest)):
        raise DeviceError(
            device,
            "follows another trust document than this workspace, or a later version",
            expected=f"version {chain.version} or before of this workspace's",
            got=f"version {version}",
            hint=(
                "get the newer file from whoever made it: `edgeq keys import FILE`; if it is lost, run "
                f"`edgeq keys init --restart --version {version + 1}` with the same root keys; with others, "
                "`edgeq keys push --by-login --on DEVICE` replaces it"
            ),
            code="EQ538",
        )


def _names(signers: set[str], revoked: frozenset[str]) -> str:
    return ", ".join(f"{key} (revoked there)" if key in revoked else key for key in sorted(signers))


def _blocked(bundle: Bundle, code: str, reason: str) -> PlanStep:
    return PlanStep(
        action=Action.BLOCKED,
        part=Component.RELEASE,
        subject=f"{bundle.model} {bundle.release[:12]}",
        reason=reason,
        key=bundle.release,
        code=code,
    )
