"""The events of a run, for a live table, for JSON lines, and for a caller's own display."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeq.pipeline.phases import Phase
from edgeq.selection import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBegan:
    """A phase began.

    Attributes:
        candidates: how many it will build, None where measurements decide it.
    """

    phase: Phase
    candidates: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        return {"event": "phase", **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSkipped:
    """A phase was left out, with the reason."""

    phase: Phase
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        return {"event": "skipped", **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateDone:
    """A candidate was built and evaluated, or could not be built.

    Attributes:
        reused: whether it came from the records of an earlier run.
        problem: why it could not be built; empty on success.
        size_bytes, accuracy, worst_sqnr_db: None where it could not be built or has none.
    """

    phase: Phase
    name: str
    reused: bool
    problem: str
    size_bytes: int | None
    accuracy: float | None
    worst_sqnr_db: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        return {"event": "candidate", **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseJudged:
    """The candidates so far were compared with the limits.

    Attributes:
        candidates: all of them, best first.
        chosen: the best that meets every limit; None without one.
        proven: whether it meets them beyond the sampling error.
    """

    phase: Phase
    candidates: tuple[Candidate, ...]
    chosen: str | None
    proven: bool

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types."""
        return {
            "event": "judged",
            "phase": self.phase,
            "candidates": [each.to_json() for each in self.candidates],
            "chosen": self.chosen,
            "proven": self.proven,
        }


Event = PhaseBegan | PhaseSkipped | CandidateDone | PhaseJudged
