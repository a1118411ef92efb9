"""Trust stores of devices: pin the first key, add and revoke keys, predict whether a release is accepted."""

from __future__ import annotations

import base64
import getpass
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.bundle.archive import Bundle
from edgeq.bundle.keys import PublicKey, SigningKey
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.connect import ask
from edgeq.fleet.parallel import Results, on_each
from edgeq.fleet.plan import Action, Component, PlanStep
from edgeq.fleet.responses import Count, DeviceStatus, Items, ReleaseCounter, Response, TrustSummary
from edgeq.store import Store, recording_store
from edgeq.values import Device
from edgeq_agent import wire


class TrustedKey(Response):
    """One key of a trust store; `state` is `active` or `revoked`."""

    id: str
    name: str
    state: str


class TrustStore(Response):
    """The response of `trust`.

    Attributes:
        threshold: how many keys must have signed a release.
        changes: `operator` or `signed`: who may change the store.
        sequence: counts the changes; a signed change names the next number.
        counters: by model, the highest release counter that was committed.
        changed: whether this call changed the store.
    """

    verbs = ("trust",)

    device_id: str
    keys: Items[TrustedKey]
    threshold: Count
    changes: str
    sequence: Count
    counters: Mapping[str, ReleaseCounter] = {}
    changed: bool = False

    @property
    def active(self) -> tuple[str, ...]:
        """The ids of the keys whose signatures count."""
        return tuple(key.id for key in self.keys if key.state == "active")


def read_trust(client: AgentClient) -> TrustStore:
    """Return the device's trust store."""
    return client.request(TrustStore, "trust", {})


def pin(client: AgentClient, keys: Sequence[PublicKey]) -> TrustStore:
    """Make a device that trusts no key yet trust these keys, and return its trust store.

    A device that trusts a key already is left unchanged: enrolling it again, for example from another
    workspace, must not grant a new right to publish.
    """
    return client.request(TrustStore, "trust", {"change": _change(add=keys), "first": True})


def change(
    client: AgentClient,
    *,
    add: Sequence[PublicKey] = (),
    revoke: Sequence[str] = (),
    threshold: int | None = None,
    changes: str | None = None,
    signers: Sequence[SigningKey] = (),
) -> TrustStore:
    """Change a device's trust store, and return it.

    Args:
        revoke: ids of keys.
        threshold: how many keys must have signed a release.
        changes: `operator` or `signed`: who may change the store from now on.
        signers: sign the change with these keys; needed if the device accepts only signed changes.

    Raises:
        DeviceError: EQ536 a key is unusable or unknown, EQ538 the device's policy forbids the change.
    """
    body = _change(add=add, revoke=revoke, threshold=threshold, changes=changes)
    if not signers:
        return client.request(TrustStore, "trust", {"change": body})
    store = read_trust(client)
    # Bound to this device and this sequence number: the change cannot be replayed elsewhere or later.
    body |= {"device_id": store.device_id, "sequence": store.sequence + 1}
    message = wire.signed_bytes(wire.TRUST_CHANGE_TYPE, body)
    signatures = [
        {"key": key.public.id, "sig": base64.b64encode(key.sign(message)).decode("ascii")} for key in signers
    ]
    return client.request(TrustStore, "trust", {"change": body, "signatures": signatures})


def change_many(
    devices: Sequence[Device],
    action: str,
    *,
    add: Sequence[PublicKey] = (),
    revoke: Sequence[str] = (),
    threshold: int | None = None,
    changes: str | None = None,
    signers: Sequence[SigningKey] = (),
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> Results[TrustStore]:
    """Change the trust stores of several devices, and write each change to the audit log.

    Only the connection is retried: a signed change is valid for one sequence number, so repeating it fails.

    Args:
        action: names the change in the audit log, such as `keys trust`.
        store: holds the audit log; the store of the default workspace if None.
        add, revoke, threshold, changes, signers: as for `change`.
    """

    def change_one(client: AgentClient) -> TrustStore:
        return change(client, add=add, revoke=revoke, threshold=threshold, changes=changes, signers=signers)

    results = on_each(
        devices, lambda device: ask(device, change_one, repeatable=False, retry_policy=retry_policy)
    )
    fields = ("keys", "threshold", "changes", "sequence")
    with recording_store(store) as opened:
        for name, trust in results.done.items():
            body = {field: trust.document.get(field) for field in fields}
            opened.record_audit(getpass.getuser(), action, name, body)
    return results


def summary(trust: TrustSummary) -> str:
    """Return a device's trust store as one line of text."""
    if trust.problem:
        return f"accepts no release: {trust.problem}"
    if not trust.keys:
        return "trusts no key yet, so it accepts no release"
    threshold = f"{trust.threshold} of " if trust.threshold > 1 else ""
    revoked = f", revoked {', '.join(trust.revoked)}" if trust.revoked else ""
    counters = ", ".join(f"{model} {entry.counter}" for model, entry in sorted(trust.counters.items()))
    return f"trusts {threshold}{', '.join(trust.keys)}{revoked}; counters: {counters or 'none yet'}"


def trust_steps(status: DeviceStatus, bundle: Bundle) -> list[PlanStep]:
    """Return the blocked step for a bundle whose signature or counter the device would refuse; else none.

    The device decides, and checks again; this only predicts it before anything is sent.
    """
    trust = status.trust
    if trust is None:
        return []
    trusted, signers = set(trust.keys), {signature.key.id for signature in bundle.signed_by}
    floor = trust.counters.get(bundle.model) or ReleaseCounter(counter=0, release=None)
    counter, current = bundle.parsed.counter, status.model(bundle.model).current
    if trust.problem:
        return [_blocked(bundle, "EQ537", trust.problem)]
    if not trusted:
        return [_blocked(bundle, "EQ530", "the device trusts no key yet: `edgeq keys trust --on DEVICE`")]
    if not signers:
        return [_blocked(bundle, "EQ531", "it is not signed: make it again with `edgeq bundle`")]
    if len(signers & trusted) < trust.threshold:
        reason = (
            f"signed by {_names(signers, trust.revoked)}; the device requires {trust.threshold} "
            f"of {', '.join(sorted(trusted))}: `edgeq keys trust KEY --on DEVICE`"
        )
        return [_blocked(bundle, "EQ533" if signers & set(trust.revoked) else "EQ532", reason)]
    if counter <= floor.counter and bundle.release not in (floor.release, current):
        reason = (
            f"its counter is {counter}, but the device has committed {floor.counter}: "
            "`edgeq rollback` goes back to an older release, `edgeq bundle` makes a new one"
        )
        return [_blocked(bundle, "EQ535", reason)]
    return []


def _names(signers: set[str], revoked: Sequence[str]) -> str:
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


def _change(
    *,
    add: Sequence[PublicKey] = (),
    revoke: Sequence[str] = (),
    threshold: int | None = None,
    changes: str | None = None,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "schema": wire.TRUST_CHANGE_SCHEMA,
        "add": [{"public": key.base64, "role": "publish", "name": key.name} for key in add],
        "revoke": list(revoke),
    }
    if threshold is not None:
        body["threshold"] = threshold
    if changes is not None:
        body["changes"] = changes
    return body
