"""Choose among variants: limits, Pareto front, preferences."""

from __future__ import annotations

from edgeq.selection.choose import Candidate, Selection, evaluate_variants, rank, require_chosen, select
from edgeq.selection.gates import Gate, Measured, gates_of

__all__ = [
    "Candidate",
    "Gate",
    "Measured",
    "Selection",
    "evaluate_variants",
    "gates_of",
    "rank",
    "require_chosen",
    "select",
]
