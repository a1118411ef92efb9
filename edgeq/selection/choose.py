"""Choosing a variant: the Pareto front, the gates, then the blueprint's preferences in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.blueprint import Blueprint, Preference
from edgeq.errors import GateError
from edgeq.selection.gates import Gate, Measured, gates_of
from edgeq.values import DeviceKind, Metrics, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A variant with its gates.

    Attributes:
        on_front: no other variant is as good in size, accuracy and SQNR and better in one of them.
    """

    variant: Variant
    gates: tuple[Gate, ...]
    on_front: bool
    measured: Measured | None = None

    @property
    def admissible(self) -> bool:
        """Whether no gate fails; gates that only a device can measure are open until it did."""
        return all(gate.holds is not False for gate in self.gates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """All candidates, best first, and the chosen one (None where no candidate holds every limit)."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate | None


def select(
    variants: Sequence[Variant],
    *,
    baseline: Metrics,
    blueprint: Blueprint,
    kind: DeviceKind | None = None,
    measured: Mapping[str, Measured] | None = None,
) -> Selection:
    """Return the candidates in the blueprint's order of preference, and the first that holds every limit.

    Args:
        variants: evaluated variants; names are unique.
        baseline: the float model's metrics on the same data.
        measured: by variant name, what a device measured.
    """
    limits = blueprint.limits_for(kind)
    seen = measured or {}
    candidates = [
        Candidate(
            variant=variant,
            gates=gates_of(variant, baseline=baseline, limits=limits, measured=seen.get(variant.name)),
            on_front=not any(_dominates(other, variant) for other in variants),
            measured=seen.get(variant.name),
        )
        for variant in variants
    ]
    ordered = sorted(candidates, key=lambda candidate: _rank(candidate, blueprint.prefer))
    chosen = next((candidate for candidate in ordered if candidate.admissible), None)
    return Selection(candidates=tuple(ordered), chosen=chosen)


def require_chosen(selection: Selection, *, subject: str) -> Candidate:
    """Return the chosen candidate.

    Raises:
        GateError: no candidate holds every limit; names what failed in the nearest one.
    """
    if selection.chosen is not None:
        return selection.chosen
    if not selection.candidates:
        raise GateError(subject, "no variant was evaluated", hint="name at least one .tflite file")
    nearest = min(selection.candidates, key=lambda candidate: _failed(candidate.gates))
    misses = [gate for gate in nearest.gates if gate.holds is False]
    missed = ", ".join(f"{gate.name} {_figure(gate.value)} (limit {_figure(gate.limit)})" for gate in misses)
    raise GateError(
        subject,
        f"no variant holds every limit; the nearest is {nearest.variant.name}: {missed}",
        hint="widen the limit in the blueprint's [require], or add a scheme under [variants]",
    )


def _failed(gates: Sequence[Gate]) -> int:
    return sum(gate.holds is False for gate in gates)


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"


def _goods(variant: Variant) -> tuple[float, float, float]:
    """Return what is better when it is larger."""
    metrics = variant.metrics
    least = float("-inf")
    return (
        -float(variant.size_bytes),
        least if metrics.accuracy is None else metrics.accuracy,
        least if metrics.output_sqnr_db is None else metrics.output_sqnr_db,
    )


def _dominates(one: Variant, other: Variant) -> bool:
    mine, theirs = _goods(one), _goods(other)
    return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))


def _rank(candidate: Candidate, prefer: Sequence[Preference]) -> tuple[float | str, ...]:
    size, accuracy, sqnr = _goods(candidate.variant)
    latency = candidate.measured.latency_p95_ns if candidate.measured else None
    keys = {
        Preference.SIZE: -size,
        Preference.ACCURACY: -accuracy,
        Preference.SQNR: -sqnr,
        Preference.LATENCY: float("inf") if latency is None else float(latency),
    }
    # The name last: equal variants have one order on every machine.
    return (*(keys[preference] for preference in prefer), candidate.variant.name)
