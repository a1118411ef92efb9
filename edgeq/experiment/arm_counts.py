"""Counts of an experiment's arms, from telemetry windows: by window, and by block of both arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.bundle.drift_reference import DriftReference
from edgeq.store import WindowRecord
from edgeq_agent.telemetry.window import Counts, Window

Array = NDArray[np.float64]

# Errors that the caller caused, not the release.
_CALLER_ERRORS = frozenset({"input_mismatch", "input_not_finite"})
_EQUAL_BINS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """Counts of one arm on one device.

    Attributes:
        attempts: inferences without those that the caller made fail.
        failed: of these, the failed ones.
        keyed: calls whose arm was chosen by a key.
        latency: calls by bucket of the latency sketch.
        accuracy: the sketch's relative accuracy.
        confidence: (calls, sum of the lower bin edges, sum of the upper bin edges) of the confidence
            histogram.
        labelled: answers with feedback.
        correct: of these, the right ones.
    """

    attempts: int = 0
    failed: int = 0
    keyed: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    accuracy: float = 0.0
    confidence: tuple[int, float, float] = (0, 0.0, 0.0)
    labelled: int = 0
    correct: int = 0

    @property
    def timed(self) -> int:
        """Calls with a latency."""
        return sum(self.latency.values())


def count_window(window: Window, edges: Array | None) -> ArmCounts:
    """Return the counts of one window.

    Args:
        edges: edges of the release's confidence bins, shape (bins + 1,). None: 20 equal bins, if the window
            has as many.
    """
    caller_errors = sum(count for kind, count in window.errors.items() if kind in _CALLER_ERRORS)
    attempts = max(0, window.inferences - caller_errors)
    return ArmCounts(
        attempts=attempts,
        failed=min(attempts, sum(window.errors.values()) - caller_errors),
        keyed=window.keyed,
        latency=window.latency.counts,
        accuracy=window.latency.relative_accuracy,
        confidence=_confidence(window.output.confidence, edges),
        labelled=window.feedback.labelled if window.feedback else 0,
        correct=window.feedback.correct if window.feedback else 0,
    )


def _confidence(counts: Counts, edges: Array | None) -> tuple[int, float, float]:
    if edges is None and len(counts) == _EQUAL_BINS:
        edges = np.linspace(0.0, 1.0, _EQUAL_BINS + 1)
    if edges is None or len(edges) != len(counts) + 1:
        return 0, 0.0, 0.0
    numbers = np.asarray(counts, dtype=np.float64)
    # The end bins also count values outside of the reference's edges: only 0 and 1 bound them.
    lower, upper = edges[:-1].copy(), edges[1:].copy()
    lower[0], upper[-1] = 0.0, 1.0
    return int(numbers.sum()), float(numbers @ lower.clip(0, 1)), float(numbers @ upper.clip(0, 1))


def total(counts: Iterable[ArmCounts]) -> ArmCounts:
    """Return the sum of counts."""
    parts = list(counts)
    if len(parts) == 1:
        return parts[0]
    latency: Counter[int] = Counter()
    for part in parts:
        latency.update(part.latency)
    return ArmCounts(
        attempts=sum(part.attempts for part in parts),
        failed=sum(part.failed for part in parts),
        keyed=sum(part.keyed for part in parts),
        latency=dict(latency),
        accuracy=max((part.accuracy for part in parts), default=0.0),
        confidence=(
            sum(part.confidence[0] for part in parts),
            sum(part.confidence[1] for part in parts),
            sum(part.confidence[2] for part in parts),
        ),
        labelled=sum(part.labelled for part in parts),
        correct=sum(part.correct for part in parts),
    )


def quantile_bucket(latency: Mapping[int, int], fraction: float) -> int:
    """Return the bucket of a quantile (the inverse of the empirical distribution); there must be a call."""
    least = fraction * sum(latency.values())
    seen = 0
    for index in sorted(latency):
        seen += latency[index]
        if seen >= least:
            return index
    return max(latency)


def share_up_to(latency: Mapping[int, int], bucket: int) -> float:
    """Return the share of calls in buckets up to and including one: exact, since buckets have sharp edges."""
    return sum(count for index, count in latency.items() if index <= bucket) / sum(latency.values())


def confidence_edges(reference: DriftReference | None) -> Array | None:
    """Return the edges of a reference's confidence bins; None without a reference."""
    return None if reference is None else np.asarray(reference.output.confidence.edges, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmWindow:
    """The counts of one window, with its device and arm (`a` or `b`)."""

    device: str
    arm: str
    counts: ArmCounts


def arm_windows(
    records: Iterable[WindowRecord], releases: Mapping[str, str], edges: Mapping[str, Array | None]
) -> tuple[list[ArmWindow], int]:
    """Return the windows of the arms in their order of arrival, and the number of windows of no arm.

    Args:
        releases: arm -> release; a window counts for its arm only if it is of that release.
        edges: release -> edges of its confidence bins.
    """
    of_arms, others = [], 0
    for record in records:
        window = record.window
        if window.arm is None or releases.get(window.arm) != window.release:
            others += 1
            continue
        counts = count_window(window, edges.get(window.release))
        of_arms.append(ArmWindow(device=record.device, arm=window.arm, counts=counts))
    return of_arms, others


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Both arms of one device over the same stretch of time.

    In a split by calls both arms run on the same device at the same time, and chance alone assigns a call to
    an arm. So the difference inside a block is that of the releases: heat, load and the hour of the day
    affect both sides alike. Calls inside a block may depend on each other in any way: a block is one value.
    """

    device: str
    a: ArmCounts
    b: ArmCounts


def blocks(windows: Iterable[ArmWindow], size: Callable[[ArmCounts], int]) -> list[Block]:
    """Return the blocks of all devices in the order in which they became complete.

    Args:
        size: how many values of interest counts hold; a block ends as soon as both arms have one.
    """
    open_blocks: dict[str, dict[str, list[ArmCounts]]] = {}
    complete = []
    for window in windows:
        sides = open_blocks.setdefault(window.device, {"a": [], "b": []})
        sides[window.arm].append(window.counts)
        if all(any(size(counts) for counts in side) for side in sides.values()):
            complete.append(Block(device=window.device, a=total(sides["a"]), b=total(sides["b"])))
            del open_blocks[window.device]
    return complete
