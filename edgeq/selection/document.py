"""A selection as a document: what `edgeq select --json` prints, the store records, and the report shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgeq.selection.choose import Candidate, Selection


def to_document(selection: Selection) -> dict[str, Any]:
    """Return the selection in JSON types; `chosen` is None where no candidate holds every limit."""
    chosen = selection.chosen
    return {
        "chosen": chosen.variant.name if chosen else None,
        "path": str(chosen.variant.path) if chosen else None,
        "candidates": [_candidate(candidate) for candidate in selection.candidates],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "name": candidate.variant.name,
        "size_bytes": candidate.variant.size_bytes,
        "sha256": candidate.variant.sha256,
        "metrics": asdict(candidate.variant.metrics),
        "on_front": candidate.on_front,
        "admissible": candidate.admissible,
        "gates": [asdict(gate) for gate in candidate.gates],
    }
