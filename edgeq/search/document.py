"""A search as a document: what `edgeq search --json` prints and the store records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgeq.conversion.lineage import entry
from edgeq.search.run import Searched
from edgeq.search.scoring import Point


def to_document(found: Searched) -> dict[str, Any]:
    """Return the search in JSON types; `chosen` is None where no candidate holds every limit."""
    chosen = found.judged.chosen
    return {
        "chosen": chosen.variant.name if chosen else None,
        "path": str(chosen.variant.path) if chosen else None,
        "recipe": chosen.built.recipe.to_dict() if chosen else None,
        "lineage": _lineage(chosen, found) if chosen else None,
        "verdict": found.judged.verdict,
        "reference": str(found.reference),
        "timed_on": found.where.split()[0],
        "reused": found.reused,
        "done": found.done,
        "candidates": [_candidate(point) for point in found.judged.points],
        "refused": [
            {"name": each.name, "problem": each.problem} for each in found.candidates if each.variant is None
        ],
        "walk": {
            "ranking": list(found.walk.ranking),
            "alone_db": {str(index): value for index, value in found.walk.alone_db.items()},
            "held_out": found.walk.held_out,
            "sets": [
                {
                    "family": each.family,
                    "ops": list(each.indices),
                    "sqnr_db": each.sqnr_db,
                    "added_bytes": each.added_bytes,
                    "work": each.work,
                    "borders": each.borders,
                }
                for each in found.walk.sets
            ],
        },
    }


def _lineage(chosen: Point, found: Searched) -> dict[str, Any]:
    """Return how the chosen file was made, and what it was chosen by: all that decides, but the clock."""
    blueprint = found.blueprint
    return {
        **chosen.built.lineage,
        "chosen_by": {
            "blueprint": {"name": blueprint.name, "sha256": blueprint.digest},
            "evaluation": entry(blueprint.evaluation),
            "candidates": len(found.candidates),
            "timed_on": found.where.split()[0],
        },
    }


def _candidate(point: Point) -> dict[str, Any]:
    return {
        "name": point.variant.name,
        "family": point.built.family,
        "path": str(point.variant.path),
        "sha256": point.variant.sha256,
        "size_bytes": point.variant.size_bytes,
        "metrics": asdict(point.variant.metrics),
        "latency_ns": None if point.latency is None else asdict(point.latency),
        "float_ops": list(point.built.recipe.float_ops),
        "recipe": point.built.recipe.to_dict(),
        "gates": [asdict(gate) for gate in point.gates],
        "on_front": point.on_front,
        "admissible": point.admissible,
        "reused": point.built.reused,
    }
