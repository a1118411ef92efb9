"""Judging one stream of windows against its reference: which signals shifted, since when, how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError, UsageError
from edgeq.monitor.effects import js_distance, psi
from edgeq.monitor.eprocess import Evidence, average, evidence
from edgeq.monitor.signals import Signal, counts_of, signals_of
from edgeq.store import WindowRecord

Array = NDArray[np.float64]

# e-values are kept as logarithms; beyond this, exp() would be no finite figure.
_LARGEST_LOG = 700.0
# From an e-value of 10, as Jeffreys has it, there is some evidence.
_SOME_LOG = math.log(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalVerdict:
    """What the windows say of one signal.

    Attributes:
        e_value: the largest e-value that was reached.
        log10_e: its path over the windows, decimal logarithms.
        alarm: this signal by itself reached signals/alpha; such alarms hold together with the stated rate.
        at_window: index of the first window after which it did (0-based in this stream), or None.
        since_window: index of the first of the windows that hold the evidence; 0 where there is none.
        psi, js: effect sizes of those windows (all, where there is no evidence) against the reference.
        reference, field: the two histograms that are compared, counts.
        edges: the bins' edges; empty for classes.
    """

    name: str
    e_value: float
    log10_e: tuple[float, ...]
    alarm: bool
    at_window: int | None
    since_window: int
    psi: float
    js: float
    reference: tuple[int, ...]
    field: tuple[int, ...]
    edges: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a stream of windows says; over its whole life it alarms falsely with probability alpha at most.

    Attributes:
        alarm: the average of the signals' e-values reached 1/alpha at some time.
        at_window: the first window (0-based) after which it did, or None.
        at_seq: that window's (boot, sequence number), or None.
        e_value: the largest average e-value that was reached.
        log10_e: the average's path over the windows.
        samples: inferences in the windows.
        skipped: windows that do not fit the reference, one reason each.
    """

    alpha: float
    alarm: bool
    at_window: int | None
    at_seq: tuple[str, int] | None
    e_value: float
    log10_e: tuple[float, ...]
    windows: int
    samples: int
    signals: tuple[SignalVerdict, ...]
    skipped: tuple[str, ...]

    @property
    def shifted(self) -> tuple[SignalVerdict, ...]:
        """Return the signals to name for an alarm: those that alarm by themselves, else the strongest."""
        if not self.alarm:
            return ()
        loud = sorted((signal for signal in self.signals if signal.alarm), key=_strength, reverse=True)
        return tuple(loud) or (max(self.signals, key=_strength),)


def judge(windows: Sequence[WindowRecord], reference: Mapping[str, Any], *, alpha: float = 0.001) -> Verdict:
    """Judge the windows of one device, model and release, in time order.

    Args:
        windows: what the device sent.
        reference: the release's `edgeq.reference/1`.
        alpha: probability of ever alarming on this stream while nothing has changed.

    Raises:
        UsageError: alpha is no probability.
        DataError: the reference holds nothing that can be watched.
    """
    if not 0 < alpha < 1:
        raise UsageError("alpha", expected="a number between 0 and 1", got=str(alpha))
    signals = signals_of(reference)
    if not signals:
        raise DataError("drift reference", "nothing in it can be watched", hint="bundle with more data")
    kept, stacked, skipped = _usable(windows, signals)
    if not kept:
        return _nothing(alpha, skipped)
    found = [
        evidence(signal.reference, counts, ordered=signal.ordered)
        for signal, counts in zip(signals, stacked, strict=True)
    ]
    combined = average(np.stack([each.log_e for each in found]))
    at = _first(combined, -math.log(alpha))
    limit = math.log(len(signals) / alpha)
    return Verdict(
        alpha=alpha,
        alarm=at is not None,
        at_window=at,
        at_seq=None if at is None else (kept[at].boot, kept[at].seq),
        e_value=_e(combined.max()),
        log10_e=_log10(combined),
        windows=len(kept),
        samples=sum(int(window.body.get("inferences", 0)) for window in kept),
        signals=tuple(
            _signal_verdict(signal, counts, each, limit)
            for signal, counts, each in zip(signals, stacked, found, strict=True)
        ),
        skipped=skipped,
    )


def _usable(
    windows: Sequence[WindowRecord], signals: Sequence[Signal]
) -> tuple[list[WindowRecord], list[Array], tuple[str, ...]]:
    kept: list[WindowRecord] = []
    rows: list[list[Array]] = []
    skipped: list[str] = []
    for window in windows:
        counts, reason = counts_of(window.body, signals)
        if reason is None:
            kept.append(window)
            rows.append(counts)
        else:
            skipped.append(f"{window.device} boot {window.boot} seq {window.seq}: {reason}")
    stacked = [np.stack([row[index] for row in rows]) for index in range(len(signals))] if rows else []
    return kept, stacked, tuple(skipped)


def _signal_verdict(signal: Signal, counts: Array, found: Evidence, limit: float) -> SignalVerdict:
    peak = int(found.log_e.argmax())
    # Without evidence, the windows with the most of it are only the noisiest ones: all are compared then.
    since, end = (int(found.start[peak]), peak + 1) if found.log_e[peak] >= _SOME_LOG else (0, len(counts))
    field = counts[since:end].sum(axis=0)
    at = _first(found.log_e, limit)
    return SignalVerdict(
        name=signal.name,
        e_value=_e(found.log_e[peak]),
        log10_e=_log10(found.log_e),
        alarm=at is not None,
        at_window=at,
        since_window=since,
        psi=psi(signal.reference, field),
        js=js_distance(signal.reference, field),
        reference=tuple(int(count) for count in signal.reference),
        field=tuple(int(count) for count in field),
        edges=signal.edges,
    )


def _nothing(alpha: float, skipped: tuple[str, ...]) -> Verdict:
    return Verdict(
        alpha=alpha,
        alarm=False,
        at_window=None,
        at_seq=None,
        e_value=1.0,
        log10_e=(),
        windows=0,
        samples=0,
        signals=(),
        skipped=skipped,
    )


def _first(log_e: Array, limit: float) -> int | None:
    reached = np.flatnonzero(log_e >= limit)
    return int(reached[0]) if len(reached) else None


def _e(log_e: float) -> float:
    return math.exp(min(float(log_e), _LARGEST_LOG))


def _log10(log_e: Array) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in log_e / math.log(10))


def _strength(signal: SignalVerdict) -> float:
    return max(signal.log10_e)
