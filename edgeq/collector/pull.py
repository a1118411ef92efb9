"""Pull telemetry windows from one device: store each batch first, acknowledge it afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import Field

from edgeq.collector.window_checks import FUTURE_TOLERANCE_NS, ReleaseChecks, check_window
from edgeq.errors import AgentProtocolError, DeviceTimeout
from edgeq.fleet.agent.client import AgentMessage, OnEvent
from edgeq.fleet.responses import Count, Response, parse
from edgeq.store import ReceivedWindow, RefusedRecord, Store, recording_store

__all__ = ["FUTURE_TOLERANCE_NS", "Collected", "WindowSource", "collect"]

BATCH = 500
DEADLINE_S = 120.0
# An outbox holds 2,000 windows. A device that sends far more in one collection makes them up.
MOST_WINDOWS = 20_000
# A device that is slower than this is left for the next collection.
COLLECTION_S = 1800.0
# The largest number that an agent accepts in an acknowledgement.
_LARGEST_ACK = 1 << 62


Owners = Mapping[str, Collection[str]]
"""The names of the enrolled devices by their device id; a device may have two names."""
NO_OWNERS: Owners = {}


class WindowSource(Protocol):
    """The connected agent as the collector uses it."""

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float = ...,
        on_event: OnEvent | None = ...,
    ) -> Mapping[str, Any]:
        """Run one verb and return its result; pass events to `on_event` as they arrive."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The outcome of one collection.

    Attributes:
        new: windows added to the store.
        duplicates: windows that the store already had, because an earlier acknowledgement was lost.
        refused: records that are not valid windows; the store has quarantined them.
        reasons: why they were refused, each reason once.
        pending: windows that the device still holds.
    """

    device: str
    new: int
    duplicates: int
    refused: int
    reasons: tuple[str, ...]
    pending: int


class Sent(Response):
    """The response of `telemetry`; the windows arrive before it, as events.

    Attributes:
        pending: windows that the device still holds.
    """

    verbs = ("telemetry",)

    device_id: Annotated[str, Field(min_length=1)]
    pending: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Records of one call, not validated yet, with the fields of its result."""

    records: list[Any]
    device_id: str
    pending: int


def collect(
    client: WindowSource,
    device_name: str,
    *,
    store: Store | None = None,
    owners: Owners = NO_OWNERS,
    limit: int = BATCH,
    now_ns: Callable[[], int] = time.time_ns,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Collected:
    """Pull windows until the device has none left, and store each exactly once.

    The store commits a batch before the next call acknowledges it. After a crash between the two, the device
    sends the batch again, and the store recognises each window by device, boot and sequence number.

    Args:
        client: a connected agent, as `open_agent` returns it.
        device_name: the device's name in the inventory.
        store: where to keep the windows; default: the store of the current workspace.
        owners: who has which device id. A device that says that it is another one
            would take that one's numbers, and its windows would be refused.
        limit: windows requested in one call.
        now_ns: the host's clock, ns since the epoch; windows from the future are marked.
        monotonic_s: a clock for the duration of the collection, in seconds.

    Raises:
        AgentProtocolError: EQ502; the device sends acknowledged windows again, or more windows than asked for
            or than an outbox holds, it has the id of another device, or its result is invalid.
        DeviceTimeout: EQ404; the collection took longer than `COLLECTION_S`.
        StoreError: EQ610; the store cannot be used. Nothing that it did not commit is acknowledged.
        EdgeqError: the connection failed. Committed windows stay in the store.
    """
    with recording_store(store) as opened:
        return _pull(client, device_name, opened, owners, limit, now_ns, monotonic_s)


def _pull(
    client: WindowSource,
    device_name: str,
    store: Store,
    owners: Owners,
    limit: int,
    now_ns: Callable[[], int],
    monotonic_s: Callable[[], float],
) -> Collected:
    releases = ReleaseChecks(store)
    end_s = monotonic_s() + COLLECTION_S
    received = 0
    new = duplicates = refused = 0
    reasons: dict[str, None] = {}
    waiting: dict[str, int] = {}
    acknowledged: dict[str, int] = {}
    while True:
        # While acknowledgements of other boots wait, the device would send windows of those boots again.
        acknowledgement = _pop(waiting)
        batch = _fetch(client, device_name, acknowledgement, limit=1 if waiting else limit)
        if acknowledgement is not None:
            boot, seq = acknowledgement
            acknowledged[boot] = seq
        _check_identity(device_name, batch.device_id, owners)
        windows, invalid = _validate(batch.records, now_ns(), releases)
        _check_progress(device_name, batch.records, acknowledged)
        received += len(batch.records)
        ingested = store.ingest(device_name, windows, device_id=batch.device_id, refused=invalid)
        new += ingested.new
        duplicates += ingested.duplicates
        refused += ingested.quarantined
        reasons.update(dict.fromkeys(record.reason for record in invalid))
        for boot, seq in _highest(batch.records).items():
            if seq > max(acknowledged.get(boot, 0), waiting.get(boot, 0)):
                waiting[boot] = seq
        if not waiting:
            return Collected(
                device=device_name,
                new=new,
                duplicates=duplicates,
                refused=refused,
                reasons=tuple(reasons),
                pending=batch.pending,
            )
        if received > MOST_WINDOWS:
            raise AgentProtocolError(
                device_name,
                f"sends windows without end: {received} in one collection",
                hint=f"what was stored stays; `edgeq deploy BUNDLE --to {device_name}` renews the agent",
            )
        if monotonic_s() > end_s:
            raise DeviceTimeout(
                device_name,
                f"not finished after {COLLECTION_S:.0f} s",
                hint="what was stored stays; collect again to get the rest",
            )


def _fetch(
    client: WindowSource, device: str, acknowledgement: tuple[str, int] | None, *, limit: int
) -> _Batch:
    records: list[Any] = []

    def keep(message: AgentMessage) -> None:
        if message.event != "window":
            return
        if len(records) == limit:
            raise AgentProtocolError(
                device,
                "sends more windows than it was asked for",
                expected=f"at most {limit}",
                got="more",
                hint=f"run `edgeq deploy BUNDLE --to {device}` to renew the agent, then collect again",
            )
        records.append(message.document.get("window"))

    ack = None if acknowledgement is None else dict(zip(("boot", "seq"), acknowledgement, strict=True))
    result = client.call("telemetry", {"ack": ack, "limit": limit}, deadline_s=DEADLINE_S, on_event=keep)
    sent = parse(Sent, result, device=device, verb="telemetry")
    return _Batch(records=records, device_id=sent.device_id, pending=sent.pending)


def _validate(
    records: list[Any], now_ns: int, releases: ReleaseChecks
) -> tuple[list[ReceivedWindow], list[RefusedRecord]]:
    windows: list[ReceivedWindow] = []
    refused: list[RefusedRecord] = []
    for record in records:
        checked = check_window(record, now_ns, releases)
        if isinstance(checked, ReceivedWindow):
            windows.append(checked)
        else:
            refused.append(checked)
    return windows, refused


def _highest(records: list[Any]) -> dict[str, int]:
    """Return the largest sequence number of each boot; refused records count, since they are stored too."""
    highest: dict[str, int] = {}
    for record in records:
        if not isinstance(record, dict):
            continue
        boot, seq = record.get("boot"), record.get("seq")
        # A number that the agent would refuse cannot be acknowledged; the record is in the quarantine.
        if isinstance(boot, str) and boot and type(seq) is int and 0 < seq <= _LARGEST_ACK:
            highest[boot] = max(seq, highest.get(boot, 0))
    return highest


def _pop(waiting: dict[str, int]) -> tuple[str, int] | None:
    if not waiting:
        return None
    boot = next(iter(waiting))
    return boot, waiting.pop(boot)


def _check_identity(device: str, device_id: str, owners: Owners) -> None:
    names = owners.get(device_id, (device,))
    if device not in names:
        raise AgentProtocolError(
            device,
            f"telemetry: device_id is that of {min(names)!r}; nothing was stored",
            hint="on a copied card, delete device.json in the agent's folder, then collect again",
        )


def _check_progress(device: str, records: list[Any], acknowledged: Mapping[str, int]) -> None:
    # Without this check, an agent that ignores acknowledgements would cause an endless loop.
    for boot, seq in _highest(records).items():
        if seq <= acknowledged.get(boot, 0):
            raise AgentProtocolError(
                device,
                f"sends window {seq} of boot {boot} again although it was acknowledged",
                hint=f"run `edgeq deploy BUNDLE --to {device}` to renew the agent, then collect again",
            )
