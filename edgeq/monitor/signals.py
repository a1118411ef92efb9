"""Signals: the histograms of a drift reference that are watched, and where a window has their counts.

To watch a new histogram, add it to the reference, to the window, and as one `Signal` to `signals_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.bundle.drift_reference import DriftReference, Histogram
from edgeq_agent.telemetry.window import Counts, Window

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One watched histogram.

    Attributes:
        name: `input NAME`, `input NAME[channel]`, `predicted class`, `confidence`.
        ordered: whether neighbouring bins are alike.
        reference: counts, shape (bins,).
        edges: bin edges, bins + 1 of them; empty for classes.
        counts: returns a window's counts; raises IndexError where the window has none.
    """

    name: str
    ordered: bool
    reference: Array
    edges: tuple[float, ...]
    counts: Callable[[Window], Counts]


def signals_of(reference: DriftReference) -> tuple[Signal, ...]:
    """Return the signals of a reference.

    A histogram with one bin (a constant channel) or without samples cannot show drift and is left out.
    """
    signals = []
    for number, each in enumerate(reference.inputs):
        for index, channel in enumerate(each.channels):
            name = f"input {each.name}" + (f"[{index}]" if len(each.channels) > 1 else "")
            signals.append(_histogram(name, channel, _channel_counts(number, each.name, index)))
    output = reference.output
    signals.append(
        Signal(
            name="predicted class",
            ordered=False,
            reference=np.asarray(output.predicted, dtype=np.float64),
            edges=(),
            counts=lambda window: window.output.predicted,
        )
    )
    signals.append(_histogram("confidence", output.confidence, lambda window: window.output.confidence))
    return tuple(signal for signal in signals if len(signal.reference) > 1 and signal.reference.sum() > 0)


def counts_of(window: Window, signals: Sequence[Signal]) -> tuple[list[Array], str | None]:
    """Return a window's counts for each signal, or the reason why the window does not match the reference."""
    rows = []
    for signal in signals:
        try:
            counts = np.asarray(signal.counts(window), dtype=np.float64)
        except IndexError:
            return [], f"no counts of {signal.name}"
        if counts.shape != signal.reference.shape:
            return [], f"{signal.name}: expected {len(signal.reference)} bins, got {counts.size}"
        rows.append(counts)
    return rows, None


def _channel_counts(number: int, name: str, channel: int) -> Callable[[Window], Counts]:
    def counts(window: Window) -> Counts:
        tensor = window.inputs[number]
        if tensor.name != name:
            raise IndexError(f"input {number} is {tensor.name}, not {name}")
        return tensor.channels[channel]

    return counts


def _histogram(name: str, known: Histogram, counts: Callable[[Window], Counts]) -> Signal:
    return Signal(
        name=name,
        ordered=True,
        reference=np.asarray(known.counts, dtype=np.float64),
        edges=known.edges,
        counts=counts,
    )
