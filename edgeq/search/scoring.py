"""Score candidates: the blueprint's limits and preferences, and the front in quality, size and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeq.blueprint import Blueprint
from edgeq.search.building import BuiltCandidate
from edgeq.search.measuring import Latency
from edgeq.selection import Gate, Measured, Selection, rank
from edgeq.units import format_duration, format_percent, format_size
from edgeq.values import DeviceKind, Metrics, Variant
from edgeq_converters.metrics import SAME_DB, SAME_LATENCY
from edgeq_converters.values import Scheme

INT8 = "int8"
_FREE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A candidate with its measured figures.

    Attributes:
        on_front: no other candidate is as good in accuracy, SQNR of the worst slice, size and latency and
            better in one.
        admissible: no gate fails, and the blueprint lists the scheme.
        limits_text: the outcome of each limit.
    """

    built: BuiltCandidate
    variant: Variant
    latency: Latency | None
    gates: tuple[Gate, ...]
    on_front: bool
    admissible: bool
    limits_text: str

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON types."""
        return {
            "name": self.variant.name,
            "family": self.built.family,
            "path": str(self.variant.path),
            "sha256": self.variant.sha256,
            "size_bytes": self.variant.size_bytes,
            "metrics": asdict(self.variant.metrics),
            "latency_ns": None if self.latency is None else asdict(self.latency),
            "float_ops": list(self.built.recipe.float_ops),
            "recipe": self.built.recipe.to_dict(),
            "gates": [asdict(gate) for gate in self.gates],
            "on_front": self.on_front,
            "admissible": self.admissible,
            "reused": self.built.reused,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The candidates in the blueprint's order of preference, the chosen one, and the verdict in words."""

    points: tuple[Point, ...]
    chosen: Point | None
    selection: Selection
    verdict: str


def score(
    candidates: Sequence[BuiltCandidate],
    *,
    baseline: Metrics,
    blueprint: Blueprint,
    latencies: Mapping[str, Latency],
    kind: DeviceKind | None,
) -> Scores:
    """Score the candidates and choose one. A pure function.

    Args:
        baseline: the float model's metrics on the same data.
        latencies: {SHA-256 of the model: latency}.
        kind: of the device whose limits apply.
    """
    built = {each.variant.name: each for each in candidates if each.variant is not None}
    variants = [each.variant for each in built.values() if each.variant is not None]
    measured = {
        variant.name: Measured(latency_p95_ns=latency.p95_ns, memory_peak_bytes=latency.memory_peak_bytes)
        for variant in variants
        if (latency := latencies.get(variant.sha256)) is not None
    }
    allowed = searched_schemes(blueprint, kind)
    selection = rank(
        variants,
        baseline=baseline,
        blueprint=blueprint,
        kind=kind,
        measured=measured,
        unlisted=[name for name, each in built.items() if each.recipe.scheme not in allowed],
    )
    points = tuple(
        Point(
            built=built[each.variant.name],
            variant=each.variant,
            latency=latencies.get(each.variant.sha256),
            gates=each.gates,
            on_front=not any(_beats(other, each.variant, latencies) for other in variants),
            admissible=each.admissible,
            limits_text=each.limits_text,
        )
        for each in selection.candidates
    )
    name = None if selection.chosen is None else selection.chosen.variant.name
    chosen = next((point for point in points if point.variant.name == name), None)
    return Scores(points=points, chosen=chosen, selection=selection, verdict=_verdict(points, chosen))


def searched_schemes(blueprint: Blueprint, kind: DeviceKind | None = None) -> frozenset[Scheme]:
    """Return the schemes that a search may choose: the blueprint's, and mixed precision if it lists int8.

    Args:
        kind: of the device that the model is for.
    """
    listed = frozenset(blueprint.schemes_for(kind))
    return listed | {Scheme.INT8_MIXED} if Scheme.INT8 in listed else listed


def _beats(one: Variant, other: Variant, latencies: Mapping[str, Latency]) -> bool:
    """Return whether `one` is nowhere worse and somewhere better, beyond the measurement noise."""
    if one.name == other.name:
        return False
    better = worse = False
    for a, b, same in (
        (-float(one.size_bytes), -float(other.size_bytes), 0.0),
        (_or_least(one.metrics.accuracy), _or_least(other.metrics.accuracy), 0.0),
        (_or_least(one.metrics.worst_sqnr_db), _or_least(other.metrics.worst_sqnr_db), SAME_DB),
        (*_speeds(one, other, latencies), SAME_LATENCY),
    ):
        better = better or a > b + same
        worse = worse or b > a + same
    return better and not worse


def _or_least(value: float | None) -> float:
    return float("-inf") if value is None else value


def _speeds(one: Variant, other: Variant, latencies: Mapping[str, Latency]) -> tuple[float, float]:
    """Return both speeds relative to the faster one; equal if one was not measured."""
    left, right = latencies.get(one.sha256), latencies.get(other.sha256)
    if left is None or right is None:
        return 1.0, 1.0
    fastest = min(left.p50_ns, right.p50_ns)
    return fastest / left.p50_ns, fastest / right.p50_ns


def _verdict(points: Sequence[Point], chosen: Point | None) -> str:
    plain = next((point for point in points if point.variant.name == INT8), None)
    if chosen is None:
        return "no candidate meets every limit"
    if plain is None:
        return f"{chosen.variant.name} is chosen; converting all operations to int8 was not possible"
    if chosen is plain and plain.variant.metrics.useless:
        return "int8 meets every limit, but it is useless, and so is every other candidate within the limits"
    if chosen is plain:
        best = "all int8 is best: it meets every limit, and no candidate is preferred to it"
        return best + _alternative(points, plain)
    failed = ", ".join(gate.key for gate in plain.gates if gate.holds is False)
    what = f"int8 fails {failed}" if failed else "int8 is not among the blueprint's schemes"
    if plain.admissible and plain.variant.metrics.useless:
        return f"int8 is useless; {chosen.variant.name} meets every limit: {difference(chosen, plain)}"
    if plain.admissible:
        what = "int8 meets every limit too, but the blueprint prefers"
        return f"{what} {chosen.variant.name}: {difference(chosen, plain)}"
    mixed = chosen.built.recipe.scheme is Scheme.INT8_MIXED
    count = len(chosen.built.recipe.float_ops)
    how = f" with {count} operation{'s' * (count != 1)} float" if mixed else ""
    return f"{what}; {chosen.variant.name}{how} meets every limit: {difference(chosen, plain)}"


def _alternative(points: Sequence[Point], plain: Point) -> str:
    """Return the best alternative to int8 on the front, in words."""
    mixed = [
        point
        for point in points
        if point.on_front and point.built.recipe.scheme is Scheme.INT8_MIXED and point.built.recipe.float_ops
    ]
    if not mixed:
        return "; no choice of float operations is on the front"
    best = max(mixed, key=lambda point: (_gain_per_cost(point, plain), point.variant.name))
    return f" (for more accuracy, consider {best.variant.name}: {difference(best, plain)})"


def _gain_per_cost(point: Point, plain: Point) -> float:
    """Return the gain in dB divided by the relative cost in size and latency, plus a constant of 5 %."""
    gain = _or_least(point.variant.metrics.worst_sqnr_db) - _or_least(plain.variant.metrics.worst_sqnr_db)
    larger = point.variant.size_bytes / plain.variant.size_bytes - 1
    slower = 0.0
    if point.latency is not None and plain.latency is not None:
        slower = max(point.latency.p50_ns / plain.latency.p50_ns - 1, 0.0)
    return gain / (_FREE + larger + slower)


def difference(point: Point, plain: Point) -> str:
    """Return how a candidate differs from int8, in words."""
    parts = []
    mixed, int8 = point.variant.metrics, plain.variant.metrics
    if mixed.accuracy is not None and int8.accuracy is not None:
        before, after = format_percent(int8.accuracy), format_percent(mixed.accuracy)
        parts.append(f"accuracy {before}" + ("" if before == after else f" -> {after}"))
    if mixed.worst_sqnr_db is not None and int8.worst_sqnr_db is not None:
        what = "worst slice" if any(each.slices for each in int8.outputs) else "output SQNR"
        parts.append(f"{what} {int8.worst_sqnr_db:.1f} -> {mixed.worst_sqnr_db:.1f} dB")
    parts.append(f"size {format_size(plain.variant.size_bytes)} -> {format_size(point.variant.size_bytes)}")
    if point.latency is not None and plain.latency is not None:
        parts.append(
            f"latency p50 {format_duration(plain.latency.p50_ns)} -> {format_duration(point.latency.p50_ns)}"
        )
    return ", ".join(parts)
