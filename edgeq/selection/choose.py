"""Choose a variant: the Pareto front, the blueprint's limits, then its preferences in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint, Preference
from edgeq.errors import GateError, UsageError
from edgeq.evaluation import Details, evaluate, evaluate_model
from edgeq.selection.gates import Gate, Measured, gates_of
from edgeq.store import UNRECORDED, Recorder, recording_store
from edgeq.values import DeviceKind, Metrics, Variant
from edgeq_converters.metrics import Criterion, equal, in_order, same_db, same_latency, same_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A variant with its gates.

    Attributes:
        on_front: no other variant is as good in size, accuracy and SQNR and better in one of them.
        measured: figures of a device; None without one.
        listed: whether the blueprint lists its scheme; another one is shown for comparison only.
    """

    variant: Variant
    gates: tuple[Gate, ...]
    on_front: bool
    measured: Measured | None = None
    listed: bool = True

    @property
    def admissible(self) -> bool:
        """Whether it is listed and no gate fails; a gate that only a device can measure stays open."""
        return self.listed and all(gate.holds is not False for gate in self.gates)

    @property
    def limits_text(self) -> str:
        """What fails, with the figures; how many limits hold; what was not measured yet."""
        parts = [] if self.listed else ["not among the blueprint's schemes"]
        if self.variant.metrics.useless:
            parts.append("useless")
        parts += [f"FAILS {gate.miss}" for gate in self.gates if gate.holds is False]
        holding = sum(gate.holds is True for gate in self.gates)
        if holding:
            parts.append(f"{holding} of {len(self.gates)} hold")
        if open_ := [gate.key for gate in self.gates if gate.holds is None]:
            parts.append(f"not measured yet: {', '.join(open_)}")
        return "; ".join(parts) or "none stated"

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON types."""
        return {
            "name": self.variant.name,
            "size_bytes": self.variant.size_bytes,
            "sha256": self.variant.sha256,
            "metrics": asdict(self.variant.metrics),
            "on_front": self.on_front,
            "admissible": self.admissible,
            "listed": self.listed,
            "gates": [asdict(gate) for gate in self.gates],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """All candidates, best first, and the chosen one; None if no candidate meets every limit.

    A useless candidate is chosen only where every candidate that meets every limit is useless.
    """

    candidates: tuple[Candidate, ...]
    chosen: Candidate | None

    def to_json(self) -> dict[str, Any]:
        """Return the selection as `edgeq.select/1`, for `--json` and the store."""
        chosen = self.chosen
        return {
            "chosen": chosen.variant.name if chosen else None,
            "path": str(chosen.variant.path) if chosen else None,
            "candidates": [candidate.to_json() for candidate in self.candidates],
        }


def evaluate_variants(
    paths: Sequence[Path],
    *,
    reference: Path,
    blueprint: Blueprint,
    on_evaluated: Callable[[], None] = lambda: None,
) -> tuple[Metrics, list[Variant]]:
    """Return the metrics of the float reference, and each variant with its metrics.

    Nothing is recorded; the record of a selection holds the metrics.

    Args:
        paths: .tflite files; their names without suffix are the variants' names.
        on_evaluated: called after each variant.

    Raises:
        UsageError: two files have the same name.
        DataError, ModelError: as `evaluate`.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise UsageError("variants", expected="files with different names", got=", ".join(names))
    columns = [part.where.column for part in blueprint.slices]
    baseline = evaluate(
        reference, blueprint.evaluation, task=blueprint.task, columns=columns, store=UNRECORDED
    )
    variants = []
    for path in paths:
        evaluation = evaluate_model(
            path,
            blueprint.evaluation,
            reference=reference,
            task=blueprint.task,
            columns=columns,
            store=UNRECORDED,
        )
        variants.append(
            Variant(
                name=path.stem,
                path=path,
                sha256=evaluation.model.sha256,
                size_bytes=evaluation.model.size_bytes,
                metrics=evaluation.metrics,
            )
        )
        on_evaluated()
    return baseline, variants


def select(
    variants: Sequence[Variant],
    *,
    baseline: Metrics,
    blueprint: Blueprint,
    kind: DeviceKind | None = None,
    measured: Mapping[str, Measured] | None = None,
    details: Mapping[str, Details] | None = None,
    store: Recorder | None = None,
) -> Selection:
    """Rank the variants by the blueprint, choose one, and record the selection.

    Args:
        variants: evaluated variants with unique names.
        baseline: the float model's metrics on the same data.
        kind: of the device whose limits apply; None takes the general limits.
        measured: {variant's name: figures of a device}.
        details: {variant's name: where it is worse than the float model}; see `gates_of`.
        store: where to record the selection: None is the store of the default workspace, `UNRECORDED` keeps
            no record.

    Raises:
        StoreError: the selection cannot be recorded.
    """
    selection = rank(
        variants, baseline=baseline, blueprint=blueprint, kind=kind, measured=measured, details=details
    )
    with recording_store(store) as records:
        records.record_run("select", blueprint.name, selection.to_json())
    return selection


def rank(
    variants: Sequence[Variant],
    *,
    baseline: Metrics,
    blueprint: Blueprint,
    kind: DeviceKind | None = None,
    measured: Mapping[str, Measured] | None = None,
    details: Mapping[str, Details] | None = None,
    unlisted: Collection[str] = (),
) -> Selection:
    """Return the candidates in the blueprint's order of preference, and the first useful one in all limits.

    A pure function; arguments as in `select`.

    Args:
        unlisted: the names of variants whose scheme the blueprint does not list.
    """
    limits = blueprint.limits_for(kind)
    by_name = measured or {}
    candidates = [
        Candidate(
            variant=variant,
            gates=gates_of(
                variant,
                baseline=baseline,
                limits=limits,
                measured=by_name.get(variant.name),
                details=(details or {}).get(variant.name),
                slices=blueprint.slices,
            ),
            on_front=not any(_dominates(other, variant) for other in variants),
            measured=by_name.get(variant.name),
            listed=variant.name not in unlisted,
        )
        for variant in variants
    ]
    ordered = in_order(
        candidates,
        [_criterion(preference, _samples(variants)) for preference in blueprint.prefer],
        size=lambda each: (each.variant.size_bytes, each.variant.name),
    )
    admissible = [candidate for candidate in ordered if candidate.admissible]
    useful = [candidate for candidate in admissible if not candidate.variant.metrics.useless]
    chosen = next(iter(useful or admissible), None)
    return Selection(candidates=tuple(ordered), chosen=chosen)


def require_chosen(selection: Selection, *, subject: str) -> Candidate:
    """Return the chosen candidate.

    Raises:
        GateError: no candidate meets every limit; the message names the failed limits of the nearest one.
    """
    if selection.chosen is not None:
        return selection.chosen
    if not selection.candidates:
        raise GateError(subject, "no variant was evaluated", hint="name at least one .tflite file")
    listed = [candidate for candidate in selection.candidates if candidate.listed]
    if not listed:
        raise GateError(
            subject,
            "no variant of the blueprint's schemes could be made",
            hint="add a scheme under [variants]",
        )
    nearest = min(listed, key=lambda candidate: _failed(candidate.gates))
    misses = [gate for gate in nearest.gates if gate.holds is False]
    missed = "; ".join(gate.miss for gate in misses)
    raise GateError(
        subject,
        f"no variant meets every limit; the nearest is {nearest.variant.name}: {missed}",
        hint="relax the limit in the blueprint's [require], or add a scheme under [variants]",
    )


def _failed(gates: Sequence[Gate]) -> int:
    return sum(gate.holds is False for gate in gates)


def _qualities(variant: Variant) -> tuple[float, float, float]:
    """Return (negative size, accuracy, SQNR of the worst slice): for each, larger is better."""
    metrics = variant.metrics
    least = float("-inf")
    return (
        -float(variant.size_bytes),
        least if metrics.accuracy is None else metrics.accuracy,
        least if metrics.worst_sqnr_db is None else metrics.worst_sqnr_db,
    )


def _dominates(one: Variant, other: Variant) -> bool:
    left, right = _qualities(one), _qualities(other)
    return left != right and all(a >= b for a, b in zip(left, right, strict=True))


def _samples(variants: Sequence[Variant]) -> int:
    return max((variant.metrics.samples for variant in variants), default=1)


def _criterion(preference: Preference, samples: int) -> Criterion[Candidate]:
    """Return how a preference compares candidates: figures that differ by less than their noise are equal."""
    match preference:
        case Preference.SIZE:
            return Criterion(value=lambda each: -float(each.variant.size_bytes), same=equal)
        case Preference.ACCURACY:
            return Criterion(
                value=lambda each: _qualities(each.variant)[1], same=partial(same_share, samples=samples)
            )
        case Preference.SQNR:
            return Criterion(value=lambda each: _qualities(each.variant)[2], same=same_db)
        case Preference.LATENCY:
            return Criterion(value=lambda each: -_latency_ns(each), same=same_latency)


def _latency_ns(candidate: Candidate) -> float:
    latency = candidate.measured.latency_p95_ns if candidate.measured else None
    return float("inf") if latency is None else float(latency)
