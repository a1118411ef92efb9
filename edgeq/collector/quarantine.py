"""Select quarantined records, drop them, or check them again by the rules of this version."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeq.collector.window_checks import ReleaseChecks, check_window
from edgeq.errors import UnknownName
from edgeq.store import QuarantineRecord, RefusedRecord, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The outcome of a retry.

    Attributes:
        reason: why it stays in the quarantine; None: it is a window of the store now.
    """

    record: QuarantineRecord
    reason: str | None


def select_quarantined(
    store: Store, numbers: Sequence[int] = (), device: str | None = None
) -> list[QuarantineRecord]:
    """Return quarantined records: those with the numbers, else all, of one device if it is given.

    Raises:
        UnknownName: EQ103; there is no record with one of the numbers.
    """
    records = store.quarantine(device)
    if not numbers:
        return records
    by_number = {record.id: record for record in records}
    for number in numbers:
        if number not in by_number:
            raise UnknownName(
                f"record {number}",
                "is not in the quarantine",
                hint="`edgeq quarantine list` shows the records",
            )
    return [by_number[number] for number in dict.fromkeys(numbers)]


def drop_quarantined(store: Store, records: Sequence[QuarantineRecord]) -> int:
    """Delete records for good, note the user in the audit log, and return how many were there."""
    return store.drop_quarantined(records, actor=getpass.getuser())


def retry_quarantined(
    store: Store, records: Sequence[QuarantineRecord], *, now_ns: Callable[[], int] = time.time_ns
) -> list[Retried]:
    """Check records again; those that are valid now become windows of the store and leave the quarantine."""
    releases = ReleaseChecks(store)
    outcomes = []
    for record in records:
        checked = check_window(record.body, now_ns(), releases)
        if isinstance(checked, RefusedRecord):
            outcomes.append(Retried(record=record, reason=checked.reason))
        elif store.readmit(record, checked).stored:
            outcomes.append(Retried(record=record, reason=None))
        else:
            outcomes.append(Retried(record=record, reason="the store has another window with its number"))
    return outcomes
