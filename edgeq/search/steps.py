"""The steps of a search: the float model, the SQNR of float regions, and the candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeq.blueprint import Blueprint, Scheme
from edgeq.conversion import Recipe
from edgeq.converters_client import Progress
from edgeq.errors import ModelError
from edgeq.kernels import KernelTable, unsuited
from edgeq.search import building
from edgeq.search.building import BuiltCandidate, CandidateBuilder
from edgeq.search.measuring import measure_float_regions
from edgeq.search.records import Records, StepKind, digest_of, key_of
from edgeq.search.scoring import INT8
from edgeq.store import Store
from edgeq_converters.sensitivity.float_region_values import FloatRegionSearch, FloatRegionSet
from edgeq_converters.worker import protocol

REGIONS_KIND = StepKind(
    name="search-walk",
    read=lambda body: protocol.from_json(FloatRegionSearch, body["walk"]),
    write=lambda regions: {"walk": protocol.to_json(regions)},
)
FLOAT = "float32"
_MOST_CHOICES = 96


def prepare(
    blueprint: Blueprint, folder: Path, store: Store, on_progress: Progress | None
) -> tuple[CandidateBuilder, BuiltCandidate]:
    """Return the builder of candidates, and the float model that it converts from.

    Raises:
        DataError, ModelError: the data or the float model cannot be used.
    """
    data = {"evaluation": digest_of(blueprint.evaluation)}
    if blueprint.calibration is not None:
        data["calibration"] = digest_of(blueprint.calibration)
    from_source = CandidateBuilder(
        blueprint=blueprint,
        source=blueprint.source,
        reference=None,
        digests={"source": digest_of(blueprint.source), **data},
        folder=folder,
        records=Records(store, building.KIND),
        on_progress=on_progress,
    )
    float_model = from_source.build(FLOAT, FLOAT, Recipe(scheme=Scheme.FLOAT32))
    if float_model.variant is None:
        raise ModelError(str(blueprint.source), float_model.problem)
    variant = float_model.variant
    builder = replace(
        from_source,
        source=variant.path,
        reference=variant.path,
        digests={"source": variant.sha256, **data},
    )
    return builder, float_model


def measure_regions(
    builder: CandidateBuilder,
    calibration: Path,
    common: Recipe,
    store: Store,
    on_progress: Progress | None,
) -> tuple[FloatRegionSearch, bool]:
    """Return the SQNR of many choices of float regions, and whether it came from a record.

    Args:
        common: the settings that all candidates share.

    Raises:
        DataError, ModelError: the data or the model cannot be used.
    """
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
        builder.source, calibration, calibrator=calibrator, most=_MOST_CHOICES, on_progress=on_progress
    )
    records.put(key, builder.blueprint.name, regions)
    return regions, False


def schemes(blueprint: Blueprint, common: Recipe) -> list[tuple[str, str, Recipe]]:
    """Return (name, family, recipe) of the fixed candidates: int8, and the blueprint's other schemes."""
    fixed = [(INT8, INT8, common)]
    for scheme in blueprint.schemes:
        if scheme not in {Scheme.INT8, Scheme.INT8_MIXED, Scheme.FLOAT32}:
            fixed.append((scheme.value, scheme.value, Recipe(scheme=scheme)))
    return fixed


def build_scheme(
    builder: CandidateBuilder, table: KernelTable | None, name: str, family: str, recipe: Recipe
) -> BuiltCandidate:
    """Return the candidate of a scheme; one that the machine runs slowly is not built, and says why."""
    reason = None if table is None or name == INT8 else unsuited(table, recipe.scheme)
    if reason is None:
        return builder.build(name, family, recipe)
    return BuiltCandidate(name=name, family=family, recipe=recipe, variant=None, problem=reason, reused=False)


def build_regions(
    builder: CandidateBuilder, choice: FloatRegionSet, regions: FloatRegionSearch, common: Recipe
) -> BuiltCandidate:
    """Return the candidate of a choice of float regions."""
    return builder.build(*regions_candidate(choice, regions, common))


def regions_candidate(
    choice: FloatRegionSet, regions: FloatRegionSearch, common: Recipe
) -> tuple[str, str, Recipe]:
    """Return (name, family, recipe) of a choice of float regions."""
    kept = choice.float_ops
    if common.io == "float32":
        # With float outputs, the operations after the logits stay float too: no conversion is needed there.
        kept = tuple(dict.fromkeys((*kept, *regions.after_logits)))
    recipe = replace(common, scheme=Scheme.INT8_MIXED, float_ops=kept)
    return f"mixed-{_short(choice)}", choice.family, recipe


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
