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
from edgeq.kernels import KernelTable, table_for, unsuited
from edgeq.search import building, finalists, latencies
from edgeq.search.building import BuiltCandidate, CandidateBuilder
from edgeq.search.measuring import measure_float_regions
from edgeq.search.records import Records, StepKind, digest_of, key_of
from edgeq.search.scoring import INT8, Point, Scores, score
from edgeq.store import Store, recording_store
from edgeq.values import DeviceKind
from edgeq_converters.sensitivity.float_region_values import FloatRegionSearch, FloatRegionSet
from edgeq_converters.worker import protocol

REGIONS_KIND = StepKind(
    name="search-walk",
    read=lambda body: protocol.from_json(FloatRegionSearch, body["walk"]),
    write=lambda regions: {"walk": protocol.to_json(regions)},
)
FINALISTS = 6
FLOAT = "float32"
_MOST_CHOICES = 96


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
        builder, float_model = _prepare(blueprint, blueprint.calibration, folder, opened, on_progress)
        common = replace(
            base or Recipe(scheme=Scheme.INT8), scheme=Scheme.INT8, io=blueprint.io or "int8", float_ops=()
        )
        regions, regions_reused = _measure_regions(
            builder, blueprint.calibration, common, opened, on_progress
        )
        table = table_for(timing.machine, opened)
        built = [float_model, *(_build(builder, table, *each) for each in _schemes(blueprint, common))]
        if built[1].variant is None:
            # Some operation cannot be int8, so the basis of all candidates keeps it float.
            mixed = replace(common, scheme=Scheme.INT8_MIXED)
            built.append(builder.build(Scheme.INT8_MIXED.value, INT8, mixed))
        for number, choice in enumerate(finalists.finalists(regions.sets, count), start=1):
            kept = len(choice.float_ops)
            sqnr = f"{choice.sqnr_db:.1f} dB in the worst slice at the logits, uncorrected"
            say(f"candidate {number}: {kept} operations float, {sqnr}")
            built.append(_build_regions(builder, choice, regions, common))
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
            reference=builder.reference,
            where=timing.where,
            reused=sum(reused),
            done=len(reused) - sum(reused),
        )
        opened.record_run("search", blueprint.name, result.to_json())
    return result


def _prepare(
    blueprint: Blueprint, calibration: Path, folder: Path, store: Store, on_progress: Progress | None
) -> tuple[CandidateBuilder, BuiltCandidate]:
    """Return the builder of candidates, and the float model that it converts from."""
    data = {"calibration": digest_of(calibration), "evaluation": digest_of(blueprint.evaluation)}
    from_source = CandidateBuilder(
        blueprint=blueprint,
        reference=blueprint.source,
        digests={"source": digest_of(blueprint.source), **data},
        folder=folder,
        records=Records(store, building.KIND),
        on_progress=on_progress,
    )
    float_model = from_source.build(FLOAT, FLOAT, Recipe(scheme=Scheme.FLOAT32))
    if float_model.variant is None:
        raise ModelError(str(blueprint.source), float_model.problem)
    variant = float_model.variant
    builder = replace(from_source, reference=variant.path, digests={"source": variant.sha256, **data})
    return builder, float_model


def _measure_regions(
    builder: CandidateBuilder,
    calibration: Path,
    common: Recipe,
    store: Store,
    on_progress: Progress | None,
) -> tuple[FloatRegionSearch, bool]:
    # The ranking is of uncorrected models; `auto` compares whole models, which takes more than ranges.
    calibrator = "minmax" if common.calibrator == "auto" else common.calibrator
    records = Records(store, REGIONS_KIND)
    key = key_of(
        source=builder.digests["source"],
        calibration=builder.digests["calibration"],
        calibrator=calibrator,
        most=_MOST_CHOICES,
        ranked_by="worst slice",
    )
    known = records.find(key)
    if known is not None:
        return known, True
    regions = measure_float_regions(
        builder.reference, calibration, calibrator=calibrator, most=_MOST_CHOICES, on_progress=on_progress
    )
    records.put(key, builder.blueprint.name, regions)
    return regions, False


def _schemes(blueprint: Blueprint, common: Recipe) -> list[tuple[str, str, Recipe]]:
    """Return (name, family, recipe) of the fixed candidates: int8, and the blueprint's other schemes."""
    fixed = [(INT8, INT8, common)]
    for scheme in blueprint.schemes:
        if scheme not in {Scheme.INT8, Scheme.INT8_MIXED, Scheme.FLOAT32}:
            fixed.append((scheme.value, scheme.value, Recipe(scheme=scheme)))
    return fixed


def _build(
    builder: CandidateBuilder, table: KernelTable | None, name: str, family: str, recipe: Recipe
) -> BuiltCandidate:
    """Return the candidate of a scheme; one that the machine runs slowly is not built, and says why."""
    reason = None if table is None or name == INT8 else unsuited(table, recipe.scheme)
    if reason is None:
        return builder.build(name, family, recipe)
    return BuiltCandidate(name=name, family=family, recipe=recipe, variant=None, problem=reason, reused=False)


def _build_regions(
    builder: CandidateBuilder, choice: FloatRegionSet, regions: FloatRegionSearch, common: Recipe
) -> BuiltCandidate:
    kept = choice.float_ops
    if common.io == "float32":
        # With float outputs, the operations after the logits stay float too: no conversion is needed there.
        kept = tuple(dict.fromkeys((*kept, *regions.after_logits)))
    recipe = replace(common, scheme=Scheme.INT8_MIXED, float_ops=kept)
    return builder.build(f"mixed-{_short(choice)}", choice.family, recipe)


def _short(choice: FloatRegionSet) -> str:
    """Return the positions as a name, for example 0-2_5; a long list becomes its length and a digest."""
    runs: list[list[int]] = []
    for index in choice.indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    text = "_".join(parts)
    return text if len(text) <= 32 else f"{len(choice.indices)}ops-{key_of(indices=list(choice.indices))[:8]}"
