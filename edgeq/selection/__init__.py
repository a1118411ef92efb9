"""Choosing among variants: gates, Pareto front, preferences; pure functions."""

from __future__ import annotations

from edgeq.selection.choose import Candidate, Selection, require_chosen, select
from edgeq.selection.document import to_document
from edgeq.selection.gates import Gate, Measured, gates_of

__all__ = [
    "Candidate",
    "Gate",
    "Measured",
    "Selection",
    "gates_of",
    "require_chosen",
    "select",
    "to_document",
]
