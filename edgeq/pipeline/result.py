"""The result of a run: its candidates, the chosen one, and the verdict in one sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeq.blueprint import Blueprint
from edgeq.conversion.lineage import BlueprintRecord, ChosenBy, Lineage, file_record
from edgeq.evaluation import Details
from edgeq.pipeline import stopping
from edgeq.pipeline.judging import Target
from edgeq.pipeline.phases import REPAIRS, TITLES, Phase
from edgeq.search.building import BuiltCandidate
from edgeq.selection import Candidate, Gate, Selection
from edgeq.units import format_duration, format_size, limit_key
from edgeq.values import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedPhase:
    """A phase that was left out, with the reason."""

    phase: Phase
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        baseline: the float model.
        built: every candidate, and those that could not be built.
        selection: the candidates with their gates, best first, and the chosen one.
        targets: this machine, or the devices, with what was measured there.
        skipped: phases that were left out.
        reused: how many steps came from the records of earlier runs.
        done: how many steps were run.
        details: where the chosen candidate, else the nearest one, is worse than the float model; None for
            detections.
        notes: what is missing in the result.
    """

    blueprint: Blueprint
    baseline: Variant
    built: tuple[BuiltCandidate, ...]
    selection: Selection
    targets: tuple[Target, ...]
    skipped: tuple[SkippedPhase, ...]
    reused: int
    done: int
    seconds: float
    details: Details | None = None
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> Candidate | None:
        """The best candidate that meets every limit; None without one."""
        return self.selection.chosen

    @property
    def nearest(self) -> Candidate | None:
        """The candidate of the blueprint's schemes that misses the fewest limits; None without candidates."""
        listed = [each for each in self.selection.candidates if each.listed]
        return min(listed, key=lambda each: len(_missed(each)), default=None)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.chosen is not None:
            return _success(self.chosen, self.targets)
        nearest = self.nearest
        if nearest is None:
            return "no candidate of the blueprint's schemes could be built"
        missed = "; ".join(gate.miss for gate in _missed(nearest))
        return f"no candidate meets every limit; the nearest is {nearest.variant.name}: {missed}"

    @property
    def advice(self) -> str:
        """What to try next where no candidate meets every limit; empty where one does."""
        if self.chosen is not None:
            return ""
        missed = set() if self.nearest is None else {gate.name for gate in _missed(self.nearest)}
        for each in self.skipped:
            if missed & REPAIRS[each.phase]:
                limits = ", ".join(sorted(limit_key(name) for name in missed & REPAIRS[each.phase]))
                what = TITLES[each.phase].partition(":")[0]
                return f"{what} may improve {limits}, but was left out: {each.reason}"
        return "relax the limit in the blueprint's [require], or add a scheme under [variants]"

    def lineage(self) -> Lineage | None:
        """Return how the chosen file was made and what chose it; None without one."""
        if self.chosen is None:
            return None
        name = self.chosen.variant.name
        built = next(each for each in self.built if each.name == name)
        if built.lineage is None:
            return None
        chosen_by = ChosenBy(
            blueprint=BlueprintRecord(name=self.blueprint.name, sha256=self.blueprint.digest),
            evaluation=file_record(self.blueprint.evaluation),
            candidates=len(self.built),
            timed_on="device" if self.targets[0].name else "host",
        )
        return replace(built.lineage, chosen_by=chosen_by)

    def to_json(self) -> dict[str, Any]:
        """Return the result as `edgeq.run/1`, for `--json` and the store."""
        chosen, lineage = self.chosen, self.lineage()
        return {
            "name": self.blueprint.name,
            "verdict": self.verdict,
            "advice": self.advice,
            "chosen": None if chosen is None else chosen.variant.name,
            "path": None if chosen is None else str(chosen.variant.path),
            "proven": chosen is not None and stopping.is_proven(chosen),
            "baseline": {
                "size_bytes": self.baseline.size_bytes,
                "sha256": self.baseline.sha256,
                "metrics": asdict(self.baseline.metrics),
            },
            "candidates": [self._candidate(each) for each in self.selection.candidates],
            "refused": [
                {"name": each.name, "problem": each.problem} for each in self.built if each.variant is None
            ],
            "skipped": [{"phase": each.phase.value, "reason": each.reason} for each in self.skipped],
            "details": None if self.details is None else self.details.to_json(),
            "lineage": None if lineage is None else lineage.to_json(),
            "notes": list(self.notes),
            "reused": self.reused,
            "done": self.done,
            "seconds": round(self.seconds, 3),
        }

    def _repr_html_(self) -> str:
        """Return the result for a notebook: verdict, plots and table."""
        from edgeq.pipeline.notebook import fragment  # it imports this module

        return fragment(self)

    def _candidate(self, candidate: Candidate) -> dict[str, Any]:
        built = next(each for each in self.built if each.name == candidate.variant.name)
        measured = {
            target.name or "host": asdict(latency)
            for target in self.targets
            if (latency := target.latencies.get(candidate.variant.sha256)) is not None
        }
        return {
            **candidate.to_json(),
            "path": str(candidate.variant.path),
            "family": built.family,
            "recipe": built.recipe.to_dict(),
            "latency_ns": measured,
            "proven": stopping.is_proven(candidate),
            "reused": built.reused,
        }


def _missed(candidate: Candidate) -> list[Gate]:
    return [gate for gate in candidate.gates if gate.holds is False]


def _success(chosen: Candidate, targets: tuple[Target, ...]) -> str:
    variant, metrics = chosen.variant, chosen.variant.metrics
    holding = sum(gate.holds is True for gate in chosen.gates)
    open_ = [limit_key(gate.name) for gate in chosen.gates if gate.holds is None]
    limits = "has no limit to meet" if not chosen.gates else f"holds {_count(holding, len(chosen.gates))}"
    parts = [format_size(variant.size_bytes)]
    if metrics.accuracy_drop is not None:
        parts.append(_points(metrics.accuracy_drop, metrics.accuracy_drop_ci95))
    elif metrics.worst_sqnr_db is not None:
        parts.append(f"{metrics.worst_sqnr_db:.1f} dB in the worst slice")
    for target in targets:
        latency = target.latencies.get(variant.sha256)
        if latency is not None:
            where = f"on {target.name}" if target.name else "on this machine"
            parts.append(f"{format_duration(latency.p50_ns)} {where}")
    more = f"; not measured yet: {', '.join(open_)}" if open_ else ""
    return f"{variant.name} {limits}: {', '.join(parts)}{more}"


def _count(holding: int, all_: int) -> str:
    if holding == all_:
        return {1: "its only gate", 2: "both gates"}.get(all_, f"all {all_} gates")
    return f"{holding} of {all_} gates"


def _points(drop: float, ends: tuple[float, float] | None) -> str:
    """Return a change of accuracy in points, with its interval: negative where accuracy fell."""
    change = f"{-100 * drop + 0.0:+.1f} points"
    if ends is None:
        return change
    return f"{change} (95 %: {-100 * ends[1] + 0.0:+.1f} to {-100 * ends[0] + 0.0:+.1f})"
