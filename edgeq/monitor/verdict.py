"""Judge one stream of windows against its drift reference: which signals shifted, when, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.bundle.drift_reference import DriftReference
from edgeq.errors import DataError, UsageError
from edgeq.monitor.eprocess import Evidence, average, evidence
from edgeq.monitor.signals import Signal, counts_of, signals_of
from edgeq.store import WindowRecord

Array = NDArray[np.float64]

# e-values are kept as logarithms; beyond this, exp() overflows.
_LARGEST_LOG = 700.0
# Jeffreys' scale: an e-value of 10 is where evidence begins to be strong.
_SOME_LOG = math.log(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalVerdict:
    """The evidence of a shift in one signal.

    Attributes:
        e_value: the largest e-value reached.
        log10_e: decimal logarithm of the e-value after each window.
        alarm: the e-value reached (number of signals) / alpha; with this Bonferroni limit, the probability
            that any signal ever alarms falsely is at most alpha.
        at_window: index (0-based in this stream) of the first window after which it did, or None.
        since_window: index of the first window of the evidence; 0 without evidence.
        psi, js: effect sizes of the windows of the evidence (of all windows without evidence): population
            stability index in nats, Jensen-Shannon distance from 0 to 1.
        reference, field: counts of the two compared histograms.
        edges: bin edges; empty for classes.
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
class DriftVerdict:
    """The drift verdict of a stream; over its whole life it alarms falsely with probability alpha at most.

    Attributes:
        alarm: the average of the signals' e-values reached 1/alpha at some window.
        at_window: index (0-based) of the first window after which it did, or None.
        at_seq: that window's (boot, sequence number), or None.
        e_value: the largest average e-value reached.
        log10_e: decimal logarithm of the average after each window.
        windows: windows that were judged.
        samples: inferences in these windows.
        skipped: one reason for each window that does not match the reference.
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
        """The signals to name for an alarm: those with an alarm of their own, else the strongest one."""
        if not self.alarm:
            return ()
        loud = sorted((signal for signal in self.signals if signal.alarm), key=_strength, reverse=True)
        return tuple(loud) or (max(self.signals, key=_strength),)


def judge(
    windows: Sequence[WindowRecord], reference: DriftReference, *, alpha: float = 0.001
) -> DriftVerdict:
    """Judge the windows of one device, model and release.

    Args:
        windows: in the order in which the device made them.
        reference: of the release.
        alpha: probability of ever alarming on this stream while nothing has changed.

    Raises:
        UsageError: alpha is not in (0, 1).
        DataError: EQ200; no histogram of the reference can show drift.
    """
    if not 0 < alpha < 1:
        raise UsageError("alpha", expected="a number between 0 and 1", got=str(alpha))
    signals = signals_of(reference)
    if not signals:
        raise DataError(
            "drift reference", "no histogram of it can show drift", hint="make the bundle with more data"
        )
    kept, stacked, skipped = _usable(windows, signals)
    if not kept:
        return _nothing(alpha, skipped)
    processes = [
        evidence(signal.reference, counts, ordered=signal.ordered)
        for signal, counts in zip(signals, stacked, strict=True)
    ]
    combined = average(np.stack([process.log_e for process in processes]))
    at = _first(combined, -math.log(alpha))
    limit = math.log(len(signals) / alpha)
    return DriftVerdict(
        alpha=alpha,
        alarm=at is not None,
        at_window=at,
        at_seq=None if at is None else (kept[at].window.boot, kept[at].window.seq),
        e_value=_e(combined.max()),
        log10_e=_log10(combined),
        windows=len(kept),
        samples=sum(record.window.inferences for record in kept),
        signals=tuple(
            _signal_verdict(signal, counts, process, limit)
            for signal, counts, process in zip(signals, stacked, processes, strict=True)
        ),
        skipped=skipped,
    )


def _usable(
    windows: Sequence[WindowRecord], signals: Sequence[Signal]
) -> tuple[list[WindowRecord], list[Array], tuple[str, ...]]:
    kept: list[WindowRecord] = []
    rows: list[list[Array]] = []
    skipped: list[str] = []
    for record in windows:
        counts, reason = counts_of(record.window, signals)
        if reason is None:
            kept.append(record)
            rows.append(counts)
        else:
            skipped.append(f"{record.device} boot {record.window.boot} seq {record.window.seq}: {reason}")
    stacked = [np.stack([row[index] for row in rows]) for index in range(len(signals))] if rows else []
    return kept, stacked, tuple(skipped)


def _signal_verdict(signal: Signal, counts: Array, process: Evidence, limit: float) -> SignalVerdict:
    peak = int(process.log_e.argmax())
    # Without evidence, the windows at the peak are only the noisiest ones: compare all windows then.
    since, end = (
        (int(process.start[peak]), peak + 1) if process.log_e[peak] >= _SOME_LOG else (0, len(counts))
    )
    field = counts[since:end].sum(axis=0)
    at = _first(process.log_e, limit)
    return SignalVerdict(
        name=signal.name,
        e_value=_e(process.log_e[peak]),
        log10_e=_log10(process.log_e),
        alarm=at is not None,
        at_window=at,
        since_window=since,
        psi=psi(signal.reference, field),
        js=js_distance(signal.reference, field),
        reference=tuple(int(count) for count in signal.reference),
        field=tuple(int(count) for count in field),
        edges=signal.edges,
    )


def _nothing(alpha: float, skipped: tuple[str, ...]) -> DriftVerdict:
    return DriftVerdict(
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


def psi(reference: Array, current: Array) -> float:
    """Return the population stability index of two count vectors, in nats; half a count is added to each bin.

    An effect size: never compare it with a fixed limit (ADR 4).
    """
    p, q = _shares(reference, 0.5), _shares(current, 0.5)
    return float(((q - p) * np.log(q / p)).sum())


def js_distance(reference: Array, current: Array) -> float:
    """Return the Jensen-Shannon distance of two count vectors, 0 (equal) to 1 (disjoint)."""
    p, q = _shares(reference, 0.0), _shares(current, 0.0)
    middle = 0.5 * (p + q)
    return math.sqrt(max(0.0, 0.5 * (_divergence(p, middle) + _divergence(q, middle))))


def _shares(counts: Array, add: float) -> Array:
    values = np.asarray(counts, dtype=np.float64) + add
    shares: Array = values / max(float(values.sum()), 1e-300)
    return shares


def _divergence(p: Array, q: Array) -> float:
    filled = p > 0
    return float((p[filled] * np.log2(p[filled] / q[filled])).sum())
