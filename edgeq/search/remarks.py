"""Remarks on a search: the schemes that it adds or leaves out, and the limits that it cannot judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.blueprint import Blueprint, Scheme
from edgeq.search.scoring import searched_schemes
from edgeq.units import limit_key
from edgeq.values import DeviceKind

_OF_A_DEVICE = ("latency_p95_ns_max", "memory_peak_bytes_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remarks:
    """What was done beyond the blueprint, and what may be wrong with the choice."""

    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `edgeq.search/1`."""
        return {"notes": list(self.notes), "warnings": list(self.warnings)}


def remarks_on(blueprint: Blueprint, *, kind: DeviceKind | None, on_device: bool) -> Remarks:
    """Return the remarks on a search. A pure function.

    Args:
        kind: of the device whose limits were applied.
        on_device: whether the candidates were timed on a device.
    """
    allowed = searched_schemes(blueprint, kind)
    notes = []
    if Scheme.INT8_MIXED in allowed and Scheme.INT8_MIXED not in blueprint.schemes:
        notes.append("int8-mixed is not among the blueprint's schemes; the search adds it to int8")
    unlisted = [scheme.value for scheme in (Scheme.INT8, Scheme.INT8_MIXED) if scheme not in allowed]
    if unlisted:
        notes.append(
            f"{' and '.join(unlisted)}: built for comparison only, because the blueprint lists "
            f"{', '.join(blueprint.schemes)}"
        )
    warnings = []
    if others := blueprint.kinds_with_other_limits(kind):
        warnings.append(
            f"the limits of {', '.join(others)} were not applied; --kind or --device applies them"
        )
    stated = blueprint.limits_for(kind).stated()
    judged = [limit_key(name) for name in _OF_A_DEVICE if name in stated]
    if judged and not on_device:
        warnings.append(
            f"{' and '.join(judged)}: judged by figures of this machine; --device measures on a device"
        )
    return Remarks(notes=tuple(notes), warnings=tuple(warnings))
