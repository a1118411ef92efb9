"""Search mixed precision: measure float regions, build the best, time all, and choose by the blueprint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint, Scheme
from edgeq.conversion import Recipe
from edgeq.conversion.lineage import BlueprintRecord, ChosenBy, file_record
from edgeq.converters_client import Progress
from edgeq.errors import BlueprintError, ModelError
from edgeq.kernels import table_for
from edgeq.search import finalists, latencies, steps
from edgeq.search.building import BuiltCandidate
from edgeq.search.records import Records
from edgeq.search.scoring import INT8, Point, Scores, score
from edgeq.store import Store, recording_store
from edgeq.values import DeviceKind
from edgeq_converters.sensitivity.float_region_values import FloatRegionSearch

FINALISTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        candidates: everything that was tried, including what could not be built.
        regions: the choices of float regions whose SQNR was measured.
        reference: the float `.tflite` that the candidates were converted from.
        where: the name of the machine or device that timed the candidates.
        reused: how many steps (float regions, candidates, timing session) came from records.
        done: how many steps were run.
    """

    blueprint: Blueprint
    scores: Scores
    candidates: tuple[BuiltCandidate, ...]
    regions: FloatRegionSearch
    reference: Path
    where: str
    reused: int
    done: int

    def to_json(self) -> dict[str, Any]:
        """Return the search as `edgeq.search/1`; `chosen` is None if no candidate meets every limit."""
        chosen = self.scores.chosen
        return {
            "chosen": chosen.variant.name if chosen else None,
            "path": str(chosen.variant.path) if chosen else None,
            "recipe": chosen.built.recipe.to_dict() if chosen else None,
            "lineage": self._lineage(chosen) if chosen else None,
            "verdict": self.scores.verdict,
            "reference": str(self.reference),
            "timed_on": self.where.split()[0],
            "reused": self.reused,
            "done": self.done,
            "candidates": [point.to_json() for point in self.scores.points],
            "refused": [
                {"name": each.name, "problem": each.problem}
                for each in self.candidates
                if each.variant is None
            ],
            "walk": {
                "ranking": list(self.regions.ranking),
                "alone_db": {str(index): value for index, value in self.regions.alone_db.items()},
                "held_out": self.regions.held_out,
                "sets": [
                    {
                        "family": each.family,
                        "ops": list(each.indices),
                        "sqnr_db": each.sqnr_db,
                        "added_bytes": each.added_bytes,
                        "work": each.work,
                        "borders": each.borders,
                    }
                    for each in self.regions.sets
                ],
            },
        }

    def _lineage(self, chosen: Point) -> dict[str, Any] | None:
        if chosen.built.lineage is None:
            return None
        chosen_by = ChosenBy(
            blueprint=BlueprintRecord(name=self.blueprint.name, sha256=self.blueprint.digest),
            evaluation=file_record(self.blueprint.evaluation),
            candidates=len(self.candidates),
            timed_on=self.where.split()[0],
        )
        return replace(chosen.built.lineage, chosen_by=chosen_by).to_json()


def search(
    blueprint: Blueprint,
    *,
    workspace: Path,
    timing: latencies.Timing,
    store: Store | None = None,
    kind: DeviceKind | None = None,
    count: int = FINALISTS,
    base: Recipe | None = None,
    on_progress: Progress | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> SearchResult:
    """Search for the operations that should stay float under a blueprint, and record the result.

    Every step is recorded under the digests of model, data and recipe. An interrupted search resumes, and a
    second search repeats no step.

    Args:
        workspace: the candidates' files are kept below it.
        timing: the machine or device that times the models.
        store: where to record the steps and the result; None is the store of the default workspace.
        kind: of the device whose limits apply.
        count: how many choices of float regions to build, besides the blueprint's schemes.
        base: settings that all candidates share; scheme and io come from the blueprint.
        on_progress: called with (step, done, total).
        say: called with a line for the user when a step begins.

    Raises:
        BlueprintError: the blueprint names no calibration data.
        DataError, ModelError: the data or the float model cannot be used.
    """
    if blueprint.calibration is None:
        raise BlueprintError(
            blueprint.name,
            expected="calibration data for int8",
            got="none",
            hint='add calibration = "calibration.npz" under [data]',
        )
    folder = workspace / ".edgeq" / "search" / blueprint.name
    folder.mkdir(parents=True, exist_ok=True)
    with recording_store(store) as opened:
        builder, float_model = steps.prepare(blueprint, folder, opened, on_progress)
        common = replace(
            base or Recipe(scheme=Scheme.INT8), scheme=Scheme.INT8, io=blueprint.io or "int8", float_ops=()
        )
        regions, regions_reused = steps.measure_regions(
            builder, blueprint.calibration, common, opened, on_progress
        )
        table = table_for(timing.machine, opened)
        built = [
            float_model,
            *(steps.build_scheme(builder, table, *each) for each in steps.schemes(blueprint, common)),
        ]
        if built[1].variant is None:
            # Some operation cannot be int8, so the basis of all candidates keeps it float.
            mixed = replace(common, scheme=Scheme.INT8_MIXED)
            built.append(builder.build(Scheme.INT8_MIXED.value, INT8, mixed))
        for number, choice in enumerate(finalists.finalists(regions.sets, count), start=1):
            kept = len(choice.float_ops)
            sqnr = f"{choice.sqnr_db:.1f} dB in the worst slice at the logits, uncorrected"
            say(f"candidate {number}: {kept} operations float, {sqnr}")
            built.append(steps.build_regions(builder, choice, regions, common))
        variants = [each.variant for each in built if each.variant is not None]
        timed, timing_reused = latencies.timed(
            variants, timing, Records(opened, latencies.KIND), subject=blueprint.name, say=say
        )
        if float_model.variant is None:
            raise ModelError(str(blueprint.source), float_model.problem)
        scores = score(
            built,
            baseline=float_model.variant.metrics,
            blueprint=blueprint,
            latencies=timed,
            kind=kind,
        )
        reused = [regions_reused, timing_reused, *(each.reused for each in built)]
        result = SearchResult(
            blueprint=blueprint,
            scores=scores,
            candidates=tuple(built),
            regions=regions,
            reference=float_model.variant.path,
            where=timing.where,
            reused=sum(reused),
            done=len(reused) - sum(reused),
        )
        opened.record_run("search", blueprint.name, result.to_json())
    return result
