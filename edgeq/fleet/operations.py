"""The agent's everyday verbs: on one device, retried where idempotent; on several, recorded in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeq.fleet.agent.client import AgentClient, Payload
from edgeq.fleet.connect import NO_RETRY, RetryPolicy, ask
from edgeq.fleet.names import one_release
from edgeq.fleet.parallel import Results, on_each
from edgeq.fleet.responses import Activation, Change, Count, DeviceStatus, Items, R, Response
from edgeq.store import Store, recording_store
from edgeq.values import Device

_HEALTH_S = 300.0


class KeptReleases(Response):
    """The releases that `prune` kept, each with the reasons."""

    releases: Mapping[str, Items[str]]


class Pruned(Response):
    """The response of `prune`.

    Attributes:
        removed: names by kind: releases, blobs, runtimes, agents.
        freed_bytes: as the device's file system counts them.
    """

    verbs = ("prune",)

    removed: Mapping[str, Items[str]]
    freed_bytes: Count
    kept: KeptReleases


class Pinned(Change):
    """The response of `pin` and `unpin`."""

    verbs = ("pin", "unpin")

    release: str


class InferenceLatency(Response):
    """Latency of single inferences, in nanoseconds; None when no sample ran."""

    p50: float | None
    p95: float | None


class Inferred(Response):
    """The response of `infer`.

    Attributes:
        predicted: the class of each sample.
        errors: how many samples failed, by the kind of error.
        sequences: how many sequences the samples were, each independent sample being one; None for a model
            that keeps no state, and for an agent from before there were sequences.
    """

    verbs = ("infer",)

    samples: Count
    release: str
    predicted: Items[int]
    latency_ns: InferenceLatency
    errors: Mapping[str, Count] = {}
    sequences: Count | None = None


def read_status(client: AgentClient) -> DeviceStatus:
    """Return what a connected device serves."""
    return client.request(DeviceStatus, "status", {})


def status(device: Device, *, retry_policy: RetryPolicy = NO_RETRY) -> DeviceStatus:
    """Return what a device serves.

    Raises:
        AgentProtocolError: the response is invalid.
        TransportError: the device cannot be reached.
    """
    return ask(device, read_status, repeatable=True, retry_policy=retry_policy)


def rollback(device: Device, model: str, *, retry_policy: RetryPolicy = NO_RETRY) -> Activation:
    """Return a model to its previous release.

    It goes back one release however often it is retried: each attempt names the release to leave.

    Raises:
        DeviceError: EQ507 there is no previous release, EQ504 it is no longer healthy, EQ510 no such model.
    """
    first: list[str] = []

    def attempt(client: AgentClient) -> Activation:
        if not first:
            current = read_status(client).model(model).current
            first.extend([current] if current else [])
        request = {"model": model, **({"from": first[0]} if first else {})}
        result = client.request(Activation, "rollback", request, deadline_s=_HEALTH_S)
        if first and not result.changed and result.release != first[0]:
            # An earlier attempt did it, and its response was lost.
            done = {"previous": first[0], "changed": True}
            return result.model_copy(update={**done, "document": {**result.document, **done}})
        return result

    return ask(device, attempt, repeatable=True, retry_policy=retry_policy)


def prune(device: Device, *, dry_run: bool, retry_policy: RetryPolicy = NO_RETRY) -> Pruned:
    """Remove what nothing on a device refers to, and return what was removed and what was kept.

    A retry removes the rest; the response lists what that attempt removed.

    Args:
        dry_run: list it, and remove nothing.

    Raises:
        DeviceError: EQ508 another call is changing the device.
    """

    def attempt(client: AgentClient) -> Pruned:
        return client.request(Pruned, "prune", {"dry_run": dry_run}, deadline_s=_HEALTH_S)

    return ask(device, attempt, repeatable=True, retry_policy=retry_policy)


def pin(
    device: Device, model: str, release: str | None, *, keep: bool, retry_policy: RetryPolicy = NO_RETRY
) -> Pinned:
    """Pin or unpin a release on a device; `prune` keeps pinned releases.

    Args:
        release: its id, or the first digits of it; None is the current release.
        keep: False unpins it.

    Raises:
        UnknownName: no release, or more than one, starts with these digits.
        DeviceError: EQ509 it is not on the device, EQ510 no such model.
    """

    def attempt(client: AgentClient) -> Pinned:
        request = {"model": model}
        if release is not None:
            status = read_status(client).model(model)
            known = {*status.releases, *status.pins}
            request["release"] = one_release(release, known, f"{device.name}: {model}")
        return client.request(Pinned, "pin" if keep else "unpin", request, deadline_s=_HEALTH_S)

    return ask(device, attempt, repeatable=True, retry_policy=retry_policy)


def infer(
    device: Device,
    model: str,
    payload: Payload,
    *,
    window: int = 50,
    outputs: bool = False,
    sequence: bool = False,
    timeout_s: float = 120,
    retry_policy: RetryPolicy = NO_RETRY,
) -> Inferred:
    """Run samples through a device's current model.

    Only the connection is retried: the device records each inference, and must not record it twice.

    Args:
        payload: an .npz of `input_0`, ..., each of shape (samples, ...).
        window: samples per telemetry window.
        outputs: return the raw outputs in the response's document.
        sequence: do not reset the state of a model that keeps one between the samples; an array
            `sequence_id` of the payload separates several sequences in any case.
        timeout_s: time limit of the inference on the device.
    """
    request: dict[str, object] = {
        "model": model, "window": window, "outputs": outputs, "timeout_s": timeout_s,
    }  # fmt: skip
    if sequence:
        request["sequence"] = True

    def attempt(client: AgentClient) -> Inferred:
        # The device's own deadline passes first: its error says more than a timeout on the host.
        return client.request(Inferred, "infer", request, payload=payload, deadline_s=timeout_s + 30)

    return ask(device, attempt, repeatable=False, retry_policy=retry_policy)


def rollback_many(
    devices: Sequence[Device],
    model: str,
    *,
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> Results[Activation]:
    """Return a model to its previous release on several devices, and record it.

    Args:
        store: where it is recorded; the store of the default workspace if None.
    """
    results = on_each(devices, lambda device: rollback(device, model, retry_policy=retry_policy))
    _record("rollback", model, results, store)
    return results


def pin_many(
    devices: Sequence[Device],
    model: str,
    release: str | None,
    *,
    keep: bool,
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> Results[Pinned]:
    """Pin or unpin a release on several devices, and record it; arguments as for `pin`."""
    results = on_each(
        devices, lambda device: pin(device, model, release, keep=keep, retry_policy=retry_policy)
    )
    _record("pin" if keep else "unpin", model, results, store)
    return results


def prune_many(
    devices: Sequence[Device],
    *,
    dry_run: bool,
    subject: str = "",
    retry_policy: RetryPolicy = NO_RETRY,
    store: Store | None = None,
) -> Results[Pruned]:
    """Prune several devices, and record it unless it is a dry run; arguments as for `prune`.

    Args:
        subject: what the record calls the devices; their names by default.
    """
    results = on_each(devices, lambda device: prune(device, dry_run=dry_run, retry_policy=retry_policy))
    if not dry_run:
        _record("prune", subject or " ".join(device.name for device in devices), results, store)
    return results


def _record(kind: str, subject: str, results: Results[R], store: Store | None) -> None:
    with recording_store(store) as opened:
        opened.record_run(kind, subject, {"devices": results.entries(lambda value: value.document)})
