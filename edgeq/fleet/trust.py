"""Trust stores of devices: pin the first key, add and revoke keys, lower counters."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from socket import gethostname
from typing import Annotated, Any

from pydantic import Field

from edgeq.bundle.counters import above
from edgeq.bundle.keys import PublicKey, SigningKey
from edgeq.command_line import command_line
from edgeq.errors import DeviceError
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.audit import actor
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy
from edgeq.fleet.connect import ask
from edgeq.fleet.parallel import Results, on_each
from edgeq.fleet.responses import Count, Items, ReleaseCounter, Response, TrustSummary
from edgeq.store import Store, recording_store
from edgeq.values import Device
from edgeq_agent import wire


class TrustedKey(Response):
    """One key of a trust store; `state` is `active` or `revoked`."""

    id: str
    name: str
    state: str


# The last second of the year 9999.
_LAST_S = 253_402_300_799


class RootRole(Response):
    """The role root of the trust document in force."""

    keys: Items[str]
    threshold: Count


class TrustStore(Response):
    """The response of `trust`.

    Attributes:
        version, document_digest: of the trust document in force; 0 and None where there is none.
        root: who signs the next trust document; None where there is none.
        expires_s: when the document expires, in seconds since 1970.
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
    version: Count = 0
    document_digest: Annotated[str | None, Field(validation_alias="document_sha256")] = None
    root: RootRole | None = None
    expires_s: Count | None = None

    @property
    def active(self) -> tuple[str, ...]:
        """The ids of the keys whose signatures count."""
        return tuple(key.id for key in self.keys if key.state == "active")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustChange:
    """What a trust store is asked to change.

    Attributes:
        revoke: ids of keys.
        threshold: how many keys must have signed a release.
        changes: `operator` or `signed`: who may change the store from now on.
        reset_counters: by model, the counter to which the device lowers its own.
    """

    add: Sequence[PublicKey] = ()
    revoke: Sequence[str] = ()
    threshold: int | None = None
    changes: str | None = None
    reset_counters: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the change as the device reads it, unsigned."""
        body: dict[str, Any] = {
            "schema": wire.TRUST_CHANGE_SCHEMA,
            "add": [{"public": key.base64, "role": "publish", "name": key.name} for key in self.add],
            "revoke": list(self.revoke),
        }
        if self.threshold is not None:
            body["threshold"] = self.threshold
        if self.changes is not None:
            body["changes"] = self.changes
        if self.reset_counters:
            body["reset_counters"] = dict(self.reset_counters)
        return body


def read_trust(client: AgentClient) -> TrustStore:
    """Return the device's trust store."""
    return client.request(TrustStore, "trust", {})


def pin(client: AgentClient, keys: Sequence[PublicKey]) -> TrustStore:
    """Make a device that trusts no key yet trust these keys, and return its trust store.

    A device that trusts a key already is left unchanged: enrolling it again, for example from another
    workspace, must not grant a new right to publish.
    """
    return client.request(TrustStore, "trust", {"change": TrustChange(add=keys).to_json(), "first": True})


def change(
    client: AgentClient, trust_change: TrustChange, *, signers: Sequence[SigningKey] = ()
) -> TrustStore:
    """Change a device's trust store, and return it.

    Args:
        signers: sign the change with these keys; needed if the device accepts only signed changes.

    Raises:
        DeviceError: EQ536 a key is unusable or unknown, EQ538 the device's policy forbids the change, or it
            would leave fewer keys than must sign; then nothing is sent.
    """
    body = trust_change.to_json()
    if not signers and not trust_change.revoke and trust_change.threshold is None:
        return client.request(TrustStore, "trust", {"change": body})
    store = read_trust(client)
    _check_not_locked_out(client.device.name, store, trust_change)
    if not signers:
        return client.request(TrustStore, "trust", {"change": body})
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
    trust_change: TrustChange,
    *,
    signers: Sequence[SigningKey] = (),
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> Results[TrustStore]:
    """Change the trust stores of several devices, and write each change to the audit log.

    Only the connection is retried: a signed change is valid for one sequence number, so repeating it fails.

    Args:
        action: names the change in the audit log, such as `keys trust`.
        signers: as for `change`.
        store: holds the audit log; the store of the default workspace if None.
    """
    results = on_each(
        devices,
        lambda device: ask(
            device,
            lambda client: change(client, trust_change, signers=signers),
            repeatable=False,
            retry_policy=retry_policy,
        ),
    )
    counters = trust_change.reset_counters
    with recording_store(store) as opened:
        known = [(record.release, record.manifest) for record in opened.releases()] if counters else []
        void = [release for model, counter in counters.items() for release in above(known, model, counter)]
        for name, trust in results.done.items():
            record_trust(opened, action, name, trust, void)
    return results


def record_trust(store: Store, action: str, device: str, trust: TrustStore, void: Sequence[str] = ()) -> None:
    """Write a device's trust store after a change to the audit log.

    Args:
        void: the workspace's releases that a counter reset withdrew.
    """
    fields = ("keys", "threshold", "changes", "sequence", "version")
    body = {field: trust.document[field] for field in fields if field in trust.document}
    if void:
        body["void"] = list(void)
    store.record_audit(
        actor(), action, device, body, host=gethostname(), command=command_line(), result="done"
    )


def format_day(seconds: int) -> str:
    """Return a time as text, in UTC; a device may report one that no calendar has."""
    return datetime.datetime.fromtimestamp(min(seconds, _LAST_S), datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def summary(trust: TrustSummary) -> str:
    """Return a device's trust store as one line of text."""
    if trust.problem:
        return f"accepts no release: {trust.problem}"
    if not trust.keys:
        return "trusts no key yet, so it accepts no release"
    threshold = f"{trust.threshold} of " if trust.threshold > 1 else ""
    revoked = f", revoked {', '.join(trust.revoked)}" if trust.revoked else ""
    counters = ", ".join(f"{model} {entry.counter}" for model, entry in sorted(trust.counters.items()))
    document = f", by trust document {trust.version}" if trust.version else ""
    if trust.expires_s is not None:
        document += f" (expires {format_day(trust.expires_s)})"
    return f"trusts {threshold}{', '.join(trust.keys)}{revoked}{document}; counters: {counters or 'none yet'}"


def _check_not_locked_out(device: str, store: TrustStore, trust_change: TrustChange) -> None:
    active = ({*store.active} | {key.id for key in trust_change.add}) - set(trust_change.revoke)
    required = store.threshold if trust_change.threshold is None else trust_change.threshold
    repairs = len(active) >= len(store.active) and required <= store.threshold
    if store.version or len(active) >= required or repairs:
        return
    raise DeviceError(
        device,
        "the change would lock it out: nothing could have enough signatures any more; nothing was sent",
        expected=f"at least {required} trusted keys",
        got=str(len(active)),
        hint=(
            f"trust another key first (`edgeq keys trust KEY --on {device}`), replace the key in one step "
            f"(`edgeq keys rotate OLD NEW --on {device}`), or lower the number of signatures "
            f"(`edgeq keys policy --threshold N --on {device}`)"
        ),
        code="EQ538",
    )
