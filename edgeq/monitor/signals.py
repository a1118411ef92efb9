"""The signals of a reference, and their counts in windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One histogram that is watched.

    Attributes:
        name: `input NAME`, `input NAME[channel]`, `predicted class`, `confidence`.
        ordered: whether neighbouring bins are alike.
        reference: counts, shape (bins,).
        edges: the bins' edges, bins + 1 of them; empty for classes.
        place: where the counts lie in a window's body.
    """

    name: str
    ordered: bool
    reference: Array
    edges: tuple[float, ...]
    place: tuple[str | int, ...]


def signals_of(reference: Mapping[str, Any]) -> tuple[Signal, ...]:
    """Return what can be watched of a reference (`edgeq.reference/1`).

    A histogram of one bin (a constant channel) or without a sample cannot drift, and is left out.
    """
    found = []
    for number, each in enumerate(reference["inputs"]):
        channels = each["channels"]
        for index, channel in enumerate(channels):
            name = f"input {each['name']}" + (f"[{index}]" if len(channels) > 1 else "")
            found.append(_histogram(name, channel, ("inputs", number, "channels", index)))
    output = reference["output"]
    predicted = np.asarray(output["predicted"], dtype=np.float64)
    found.append(
        Signal(
            name="predicted class",
            ordered=False,
            reference=predicted,
            edges=(),
            place=("output", "predicted"),
        )
    )
    found.append(_histogram("confidence", output["confidence"], ("output", "confidence")))
    return tuple(signal for signal in found if len(signal.reference) > 1 and signal.reference.sum() > 0)


def counts_of(body: Mapping[str, Any], signals: Sequence[Signal]) -> tuple[list[Array], str | None]:
    """Return a window's counts for each signal, or why the window does not fit the reference."""
    found = []
    for signal in signals:
        value: Any = body
        try:
            for step in signal.place:
                value = value[step]
            counts = np.asarray(value, dtype=np.float64)
        except (KeyError, IndexError, TypeError, ValueError):
            return [], f"no counts of {signal.name}"
        if counts.shape != signal.reference.shape:
            return [], f"{signal.name}: expected {len(signal.reference)} bins, got {counts.size}"
        found.append(counts)
    return found, None


def _histogram(name: str, body: Mapping[str, Any], place: tuple[str | int, ...]) -> Signal:
    return Signal(
        name=name,
        ordered=True,
        reference=np.asarray(body["counts"], dtype=np.float64),
        edges=tuple(float(edge) for edge in body["edges"]),
        place=place,
    )
