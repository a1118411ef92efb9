"""Pulling telemetry from one device: commit first, acknowledge afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgeq.collector.validate import LARGEST, why_refused
from edgeq.errors import AgentProtocolError
from edgeq.store import Refused, Store

BATCH = 500
DEADLINE_S = 120.0


class AgentCall(Protocol):
    """What the collector needs of a connected agent."""

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float = ...,
        on_event: Callable[[Mapping[str, Any]], None] | None = ...,
    ) -> Mapping[str, Any]:
        """Run one verb and return its result; events go to `on_event` as they arrive."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one collection brought.

    Attributes:
        new: windows that are new in the store.
        duplicates: windows that were there already: an acknowledgement got lost.
        refused: records that are no valid windows; they are in the store's quarantine.
        reasons: why they were refused, each reason once.
        pending: windows that the device still holds.
    """

    device: str
    new: int
    duplicates: int
    refused: int
    reasons: tuple[str, ...]
    pending: int


def collect(
    client: AgentCall,
    store: Store,
    device_name: str,
    *,
    limit: int = BATCH,
    now_ns: Callable[[], int] = time.time_ns,
) -> Collected:
    """Pull windows until the device has none left.

    Every batch is committed to the store before its acknowledgement leaves, with the next call. A crash
    between the two makes the device send the batch again, and the store knows every window by (device, boot,
    seq).

    Raises:
        AgentProtocolError: the device sends again what was acknowledged, or answers without a device id.
        StoreError: the store cannot be used; nothing is acknowledged then.
        EdgeqError: whatever the way to the device raises; what was committed stays.
    """
    new = duplicates = refused = 0
    reasons: dict[str, None] = {}
    waiting: dict[str, int] = {}
    acknowledged: dict[str, int] = {}
    while True:
        # While acknowledgements of further boots wait, windows of those boots would only come again.
        ack = _pop(waiting)
        batch, result = _fetch(client, ack, limit=1 if waiting else limit)
        if ack is not None:
            acknowledged[ack["boot"]] = ack["seq"]
        good, bad = _sort(batch, now_ns())
        _check_progress(device_name, batch, acknowledged)
        done = store.ingest(device_name, good, device_id=_device_id(device_name, result), refused=bad)
        new += done.new
        duplicates += done.duplicates
        refused += done.quarantined
        reasons.update(dict.fromkeys(record.reason for record in bad))
        for boot, seq in _highest(batch).items():
            if seq > max(acknowledged.get(boot, 0), waiting.get(boot, 0)):
                waiting[boot] = seq
        if not waiting:
            pending = int(result.get("pending", 0))
            return Collected(
                device=device_name,
                new=new,
                duplicates=duplicates,
                refused=refused,
                reasons=tuple(reasons),
                pending=pending,
            )


def _fetch(
    client: AgentCall, ack: dict[str, Any] | None, *, limit: int
) -> tuple[list[Any], Mapping[str, Any]]:
    batch: list[Any] = []

    def keep(event: Mapping[str, Any]) -> None:
        if event.get("event") == "window":
            batch.append(event.get("window"))

    result = client.call("telemetry", {"ack": ack, "limit": limit}, deadline_s=DEADLINE_S, on_event=keep)
    return batch, result


def _sort(batch: list[Any], now_ns: int) -> tuple[list[dict[str, Any]], list[Refused]]:
    good: list[dict[str, Any]] = []
    bad: list[Refused] = []
    for window in batch:
        reason = why_refused(window, now_ns=now_ns)
        if reason is None:
            good.append(window)
        else:
            bad.append(Refused(reason=reason, body=window))
    return good, bad


def _highest(batch: list[Any]) -> dict[str, int]:
    """Return the largest sequence number of each boot, of refused windows too: they are kept aside."""
    highest: dict[str, int] = {}
    for window in batch:
        if not isinstance(window, dict):
            continue
        boot, seq = window.get("boot"), window.get("seq")
        if isinstance(boot, str) and isinstance(seq, int) and 0 < seq <= LARGEST:
            highest[boot] = max(seq, highest.get(boot, 0))
    return highest


def _pop(waiting: dict[str, int]) -> dict[str, Any] | None:
    if not waiting:
        return None
    boot = next(iter(waiting))
    return {"boot": boot, "seq": waiting.pop(boot)}


def _check_progress(device: str, batch: list[Any], acknowledged: Mapping[str, int]) -> None:
    # Without this, an agent that ignores acknowledgements would keep us here for ever.
    for boot, seq in _highest(batch).items():
        if seq <= acknowledged.get(boot, 0):
            raise AgentProtocolError(
                device,
                f"sends window {seq} of boot {boot} again although it was acknowledged",
                hint=f"run `edgeq deploy` to renew the agent on {device}, then collect again",
            )


def _device_id(device: str, result: Mapping[str, Any]) -> str:
    identity = result.get("device_id")
    if not isinstance(identity, str) or not identity:
        raise AgentProtocolError(device, expected="a device_id with the telemetry", got=repr(identity))
    return identity
