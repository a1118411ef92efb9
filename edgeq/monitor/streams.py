"""Streams of a store: the windows of one device, model and release, with their summary and drift verdict."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgeq.bundle.drift_reference import stored_reference
from edgeq.crash import unexpected
from edgeq.errors import UsageError
from edgeq.monitor.field import FieldSummary, by_stream, summarise
from edgeq.monitor.verdict import DriftVerdict, judge
from edgeq.store import Store, WindowRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryStream:
    """One stream of windows.

    Attributes:
        field: what the windows add up to.
        verdict: None where the store has no drift reference of the release, or where judging failed.
        problem: why the stream, or a part of it, could not be judged; None where nothing is wrong.
    """

    field: FieldSummary
    verdict: DriftVerdict | None
    problem: str | None = None

    @property
    def device(self) -> str:
        """The device's name."""
        return self.field.device

    @property
    def model(self) -> str:
        """The model's name."""
        return self.field.model

    @property
    def release(self) -> str:
        """The release's id."""
        return self.field.release


def judge_store(
    store: Store, *, devices: Collection[str] = (), model: str | None = None, alpha: float = 0.001
) -> list[TelemetryStream]:
    """Judge every stream in the store, in the order in which they appeared.

    A stream that cannot be judged has its `problem`; the others are judged all the same.

    Args:
        devices: only these; all when empty.
        model: only this one.
        alpha: probability of ever alarming on one stream while nothing has changed.

    Raises:
        UsageError: alpha is not in (0, 1).
        StoreError: EQ610; the store cannot be used.
    """
    if not 0 < alpha < 1:
        raise UsageError("alpha", expected="a number between 0 and 1", got=str(alpha))
    streams = by_stream(store.windows(model=model), devices)
    store.set_aside_invalid()
    return [_judge_stream(store, records, alpha) for records in streams.values()]


def _judge_stream(store: Store, records: list[WindowRecord], alpha: float) -> TelemetryStream:
    field = summarise(records)
    try:
        reference = stored_reference(store, field.release)
        verdict = None if reference is None else judge(records, reference, alpha=alpha)
    except Exception as error:  # noqa: BLE001 - one stream must not end the others: it becomes a line
        subject = f"{field.device}: {field.model} {field.release[:12]}"
        failure = unexpected(error, subject=subject, device=field.device)
        return TelemetryStream(field=field, verdict=None, problem=f"{failure.message}; {failure.hint}")
    return TelemetryStream(field=field, verdict=verdict, problem=field.problem)
