"""What one telemetry window says of its arm, and parts added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.store import WindowRecord

Array = NDArray[np.float64]

# The caller's doing, not the release's.
_CALLERS = frozenset({"input_mismatch", "input_not_finite"})
_EQUAL_BINS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Counts of one arm on one device.

    Attributes:
        attempts: inferences that the release is answerable for, and `failed` of them.
        keyed: calls whose arm came from a key.
        latency: calls by bucket of the sketch, whose `accuracy` it is.
        confident: (calls, sum of the lower edges, sum of the upper edges) of the confidence bins.
        labelled: answers with feedback, and `correct` of them.
    """

    attempts: int = 0
    failed: int = 0
    keyed: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    accuracy: float = 0.0
    confident: tuple[int, float, float] = (0, 0.0, 0.0)
    labelled: int = 0
    correct: int = 0

    @property
    def timed(self) -> int:
        """How many calls have a latency."""
        return sum(self.latency.values())


def part_of(body: Mapping[str, Any], edges: Array | None) -> Part:
    """Return what a window says.

    Args:
        edges: of the release's confidence bins; None: 20 equal ones where there are as many.
    """
    errors: Mapping[str, int] = body["errors"]
    failed = sum(count for kind, count in errors.items() if kind not in _CALLERS)
    callers = sum(count for kind, count in errors.items() if kind in _CALLERS)
    feedback = body.get("feedback") or {}
    return Part(
        attempts=max(0, int(body["inferences"]) - callers),
        failed=min(failed, max(0, int(body["inferences"]) - callers)),
        keyed=int(body.get("keyed") or 0),
        latency={int(index): int(count) for index, count in body["latency"]["counts"].items()},
        accuracy=float(body["latency"]["relative_accuracy"]),
        confident=_confident(body["output"]["confidence"], edges),
        labelled=int(feedback.get("labelled", 0)),
        correct=int(feedback.get("correct", 0)),
    )


def _confident(counts: list[int], edges: Array | None) -> tuple[int, float, float]:
    if edges is None and len(counts) == _EQUAL_BINS:
        edges = np.linspace(0.0, 1.0, _EQUAL_BINS + 1)
    if edges is None or len(edges) != len(counts) + 1:
        return 0, 0.0, 0.0
    numbers = np.asarray(counts, dtype=np.float64)
    # What lies outside of the reference's edges is counted in its end bins: there only 0 and 1 are bounds.
    lower, upper = edges[:-1].copy(), edges[1:].copy()
    lower[0], upper[-1] = 0.0, 1.0
    return int(numbers.sum()), float(numbers @ lower.clip(0, 1)), float(numbers @ upper.clip(0, 1))


def total(parts: Iterable[Part]) -> Part:
    """Return the sum of parts."""
    found = list(parts)
    if len(found) == 1:
        return found[0]
    latency: Counter[int] = Counter()
    for part in found:
        latency.update(part.latency)
    return Part(
        attempts=sum(part.attempts for part in found),
        failed=sum(part.failed for part in found),
        keyed=sum(part.keyed for part in found),
        latency=dict(latency),
        accuracy=max((part.accuracy for part in found), default=0.0),
        confident=(
            sum(part.confident[0] for part in found),
            sum(part.confident[1] for part in found),
            sum(part.confident[2] for part in found),
        ),
        labelled=sum(part.labelled for part in found),
        correct=sum(part.correct for part in found),
    )


def bucket_at(latency: Mapping[int, int], fraction: float) -> int:
    """Return the bucket of a quantile; there must be a call."""
    wanted = fraction * sum(latency.values())
    seen = 0
    for index in sorted(latency):
        seen += latency[index]
        if seen >= wanted:
            return index
    return max(latency)


def within(latency: Mapping[int, int], bucket: int) -> float:
    """Return the share of calls up to and with a bucket: exact, since buckets have sharp edges."""
    return sum(count for index, count in latency.items() if index <= bucket) / sum(latency.values())


def edges_of(reference: Mapping[str, Any] | None) -> Array | None:
    """Return the edges of a reference's confidence bins."""
    try:
        edges = np.asarray((reference or {})["output"]["confidence"]["edges"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        return None
    return edges if edges.ndim == 1 and len(edges) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One window of an experiment: whose it is, and what it says."""

    device: str
    arm: str
    part: Part


def seen_in(
    windows: Iterable[WindowRecord], releases: Mapping[str, str], edges: Mapping[str, Array | None]
) -> tuple[list[Seen], int]:
    """Return the windows of the arms in the order of their arrival, and how many belong to no arm.

    Args:
        releases: arm -> release; a window of an arm must be of that release.
        edges: release -> edges of its confidence bins.
    """
    found, others = [], 0
    for window in windows:
        arm = window.body.get("arm")
        if not isinstance(arm, str) or releases.get(arm) != window.release:
            others += 1
            continue
        part = part_of(window.body, edges.get(window.release))
        found.append(Seen(device=window.device, arm=arm, part=part))
    return found, others
