"""Whom devices trust: the first key, adding and revoking, and what a plan can tell of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.bundle.keys import PublicKey, SigningKey
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.plan import Action, Part, Step
from edgeq.fleet.protocols import DeployableBundle
from edgeq_agent import wire


def shown(client: AgentClient) -> dict[str, Any]:
    """Return the device's trust store: `keys`, `threshold`, `changes`, `sequence`, `counters`."""
    return client.call("trust", {})


def pin(client: AgentClient, keys: Sequence[PublicKey]) -> dict[str, Any]:
    """Let a device that trusts nobody yet trust these keys, and return its trust store.

    A device that trusts somebody already is left as it is: enrolling it a second time, from another
    workspace say, gives no new right to publish.
    """
    return client.call("trust", {"change": _change(add=keys), "first": True})


def change(
    client: AgentClient,
    *,
    add: Sequence[PublicKey] = (),
    revoke: Sequence[str] = (),
    threshold: int | None = None,
    changes: str | None = None,
    signers: Sequence[SigningKey] = (),
) -> dict[str, Any]:
    """Change a device's trust store, and return it.

    Args:
        revoke: ids of keys.
        threshold: how many keys must have signed a release.
        changes: `operator` or `signed`: who may change the store from now on.
        signers: sign the change with these; needed where the device takes only signed changes.

    Raises:
        DeviceError: EQ536 a key that cannot be trusted or is not known, EQ538 the device's policy refuses.
    """
    body = _change(add=add, revoke=revoke, threshold=threshold, changes=changes)
    if not signers:
        return client.call("trust", {"change": body})
    store = shown(client)
    # For this device and this moment alone: what one device was told cannot be told to another.
    body |= {"device_id": store["device_id"], "sequence": int(store["sequence"]) + 1}
    message = wire.signed_bytes(wire.TRUST_CHANGE_TYPE, body)
    signatures = [
        {"key": key.public.id, "sig": base64.b64encode(key.sign(message)).decode("ascii")} for key in signers
    ]
    return client.call("trust", {"change": body, "signatures": signatures})


def summary(trust: Mapping[str, Any]) -> str:
    """Return a device's trust store, as its `status` tells of it, in one line."""
    if trust.get("problem"):
        return f"accepts nothing: {trust['problem']}"
    if not trust["keys"]:
        return "trusts no key yet, so it accepts no release"
    wanted = f"{trust['threshold']} of " if int(trust["threshold"]) > 1 else ""
    revoked = f", revoked {', '.join(trust['revoked'])}" if trust["revoked"] else ""
    counters = ", ".join(f"{model} {entry['counter']}" for model, entry in sorted(trust["counters"].items()))
    return f"trusts {wanted}{', '.join(trust['keys'])}{revoked}; counters: {counters or 'none yet'}"


def blocked_by_trust(status: Mapping[str, Any], bundle: DeployableBundle) -> list[Step]:
    """Return the step that says why a device would refuse a bundle's signature or age; none if it would not.

    The device decides, and looks again; this is to know it before anything is sent.
    """
    trust = status.get("trust")
    if trust is None:
        return []
    served = status.get("models", {}).get(bundle.model, {}).get("current")
    trusted, signers = set(trust["keys"]), {entry["key"] for entry in bundle.signatures}
    counter = int(bundle.manifest.get("counter", 0))
    floor = trust["counters"].get(bundle.model, {"counter": 0, "release": None})
    if trust.get("problem"):
        return [_blocked(bundle, "EQ537", str(trust["problem"]))]
    if not trusted:
        return [_blocked(bundle, "EQ530", "the device trusts no key yet: `edgeq keys trust --on DEVICE`")]
    if not signers:
        return [_blocked(bundle, "EQ531", "it is not signed: make it again with `edgeq bundle`")]
    if len(signers & trusted) < int(trust["threshold"]):
        reason = (
            f"signed by {_told(signers, trust['revoked'])}; the device wants {trust['threshold']} "
            f"of {', '.join(sorted(trusted))}: `edgeq keys trust KEY --on DEVICE`"
        )
        return [_blocked(bundle, "EQ533" if signers & set(trust["revoked"]) else "EQ532", reason)]
    if counter <= int(floor["counter"]) and bundle.release not in (floor["release"], served):
        reason = (
            f"its counter is {counter}, the device committed {floor['counter']}: "
            "`edgeq rollback` goes back, `edgeq bundle` makes a new release"
        )
        return [_blocked(bundle, "EQ535", reason)]
    return []


def _told(signers: set[str], revoked: Sequence[str]) -> str:
    return ", ".join(f"{key} (revoked there)" if key in revoked else key for key in sorted(signers))


def _blocked(bundle: DeployableBundle, code: str, reason: str) -> Step:
    return Step(
        action=Action.BLOCKED,
        part=Part.RELEASE,
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
