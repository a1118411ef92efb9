"""Judging candidates: gates and preference of the blueprint, the front in quality, size and latency; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.blueprint import Blueprint
from edgeq.search.building import Built
from edgeq.search.measuring import Latency
from edgeq.selection import Gate, Measured, Selection, select
from edgeq.units import format_duration, format_percent, format_size
from edgeq.values import DeviceKind, Metrics, Variant
from edgeq_converters.values import Scheme

INT8 = "int8"
# Medians of the same model in the same session differ by about this much.
_SAME_LATENCY = 0.03
# Two models whose SQNR differs less are as good as each other.
_SAME_DB = 0.1
_FREE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate with all that was measured of it.

    Attributes:
        on_front: no other candidate is as good in accuracy, SQNR, size and latency and better in one.
        admissible: no gate fails.
    """

    built: Built
    variant: Variant
    latency: Latency | None
    gates: tuple[Gate, ...]
    on_front: bool
    admissible: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The points in the blueprint's order of preference, the chosen one, and what to say about it."""

    points: tuple[Point, ...]
    chosen: Point | None
    selection: Selection
    verdict: str


def judge(
    candidates: Sequence[Built],
    *,
    baseline: Metrics,
    blueprint: Blueprint,
    latencies: Mapping[str, Latency],
    kind: DeviceKind | None,
) -> Judged:
    """Return the candidates judged.

    Args:
        baseline: the float model's metrics on the same data.
        latencies: by SHA-256 of the model.
        kind: of the device, for its limits.
    """
    made = {each.variant.name: each for each in candidates if each.variant is not None}
    variants = [each.variant for each in made.values() if each.variant is not None]
    measured = {
        variant.name: Measured(latency_p95_ns=found.p95_ns, memory_peak_bytes=found.memory_peak_bytes)
        for variant in variants
        if (found := latencies.get(variant.sha256)) is not None
    }
    selection = select(variants, baseline=baseline, blueprint=blueprint, kind=kind, measured=measured)
    points = tuple(
        Point(
            built=made[each.variant.name],
            variant=each.variant,
            latency=latencies.get(each.variant.sha256),
            gates=each.gates,
            on_front=not any(_beats(other, each.variant, latencies) for other in variants),
            admissible=each.admissible,
        )
        for each in selection.candidates
    )
    chosen = next((point for point in points if point.admissible), None)
    return Judged(points=points, chosen=chosen, selection=selection, verdict=_verdict(points, chosen))


def _beats(one: Variant, other: Variant, latencies: Mapping[str, Latency]) -> bool:
    """Whether `one` is nowhere worse and somewhere better, where differences within the noise are none."""
    if one.name == other.name:
        return False
    better = worse = False
    for a, b, same in (
        (-float(one.size_bytes), -float(other.size_bytes), 0.0),
        (_or_least(one.metrics.accuracy), _or_least(other.metrics.accuracy), 0.0),
        (_or_least(one.metrics.output_sqnr_db), _or_least(other.metrics.output_sqnr_db), _SAME_DB),
        (*_speeds(one, other, latencies), _SAME_LATENCY),
    ):
        better = better or a > b + same
        worse = worse or b > a + same
    return better and not worse


def _or_least(value: float | None) -> float:
    return float("-inf") if value is None else value


def _speeds(one: Variant, other: Variant, latencies: Mapping[str, Latency]) -> tuple[float, float]:
    """Return both speeds, the faster one being 1; equal where one was not measured."""
    mine, theirs = latencies.get(one.sha256), latencies.get(other.sha256)
    if mine is None or theirs is None:
        return 1.0, 1.0
    fastest = min(mine.p50_ns, theirs.p50_ns)
    return fastest / mine.p50_ns, fastest / theirs.p50_ns


def _verdict(points: Sequence[Point], chosen: Point | None) -> str:
    plain = next((point for point in points if point.variant.name == INT8), None)
    if chosen is None:
        return "no candidate holds every limit"
    if plain is None:
        return f"{chosen.variant.name} is chosen; all operations int8 was not possible"
    if chosen is plain:
        best = "all int8 is best: it holds every limit, and no candidate is preferred to it"
        return best + _tempting(points, plain)
    what = "int8 fails " + ", ".join(gate.name for gate in plain.gates if gate.holds is False)
    if plain.admissible:
        what = "int8 holds every limit too, but the blueprint prefers"
        return f"{what} {chosen.variant.name}: {difference(chosen, plain)}"
    mixed = chosen.built.recipe.scheme is Scheme.INT8_MIXED
    count = len(chosen.built.recipe.float_ops)
    how = f" with {count} operation{'s' * (count != 1)} float" if mixed else ""
    return f"{what}; {chosen.variant.name}{how} holds every limit: {difference(chosen, plain)}"


def _tempting(points: Sequence[Point], plain: Point) -> str:
    """Return what the front offers beside int8, for those who would pay for it."""
    offers = [
        point
        for point in points
        if point.on_front and point.built.recipe.scheme is Scheme.INT8_MIXED and point.built.recipe.float_ops
    ]
    if not offers:
        return "; no choice of float operations is on the front"
    best = max(offers, key=lambda point: (_bargain(point, plain), point.variant.name))
    return f" (for more quality the front offers {best.variant.name}: {difference(best, plain)})"


def _bargain(point: Point, plain: Point) -> float:
    """Return the gain in dB over what it costs in relative size and latency; a twentieth costs nothing."""
    gain = _or_least(point.variant.metrics.output_sqnr_db) - _or_least(plain.variant.metrics.output_sqnr_db)
    larger = point.variant.size_bytes / plain.variant.size_bytes - 1
    slower = 0.0
    if point.latency is not None and plain.latency is not None:
        slower = max(point.latency.p50_ns / plain.latency.p50_ns - 1, 0.0)
    return gain / (_FREE + larger + slower)


def difference(point: Point, plain: Point) -> str:
    """Return how a candidate differs from int8, in words."""
    parts = []
    mine, theirs = point.variant.metrics, plain.variant.metrics
    if mine.accuracy is not None and theirs.accuracy is not None:
        before, after = format_percent(theirs.accuracy), format_percent(mine.accuracy)
        parts.append(f"accuracy {before}" + ("" if before == after else f" -> {after}"))
    if mine.output_sqnr_db is not None and theirs.output_sqnr_db is not None:
        parts.append(f"output SQNR {theirs.output_sqnr_db:.1f} -> {mine.output_sqnr_db:.1f} dB")
    parts.append(f"size {format_size(plain.variant.size_bytes)} -> {format_size(point.variant.size_bytes)}")
    if point.latency is not None and plain.latency is not None:
        parts.append(
            f"latency p50 {format_duration(plain.latency.p50_ns)} -> {format_duration(point.latency.p50_ns)}"
        )
    return ", ".join(parts)
