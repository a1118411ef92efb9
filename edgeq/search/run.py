"""The search itself: walk over float islands, build the finalists, time all, let the blueprint decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.blueprint import Blueprint, Scheme
from edgeq.conversion import Recipe
from edgeq.errors import BlueprintError, ModelError
from edgeq.search import building, finalists, latencies
from edgeq.search.building import Built, Workshop
from edgeq.search.measuring import Progress, walk_islands
from edgeq.search.records import Records, digest_of, key_of
from edgeq.search.scoring import INT8, Judged, judge
from edgeq.store import Store
from edgeq.values import DeviceKind
from edgeq_converters.sensitivity.float_region_values import IslandSet, IslandWalk

WALK_KIND = "search-walk"
FINALISTS = 6
FLOAT = "float32"
_MOST_WALKED = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search found.

    Attributes:
        blueprint: under which was searched.
        candidates: everything that was tried, also what could not be built.
        walked: the choices of islands whose noise was measured.
        reused: how many pieces of work (walk, candidates, timing session) records had already.
        done: how many were done now.
    """

    blueprint: Blueprint
    judged: Judged
    candidates: tuple[Built, ...]
    walk: IslandWalk
    reference: Path
    where: str
    reused: int
    done: int


def search(
    blueprint: Blueprint,
    *,
    workspace: Path,
    store: Store,
    timing: latencies.Timing,
    kind: DeviceKind | None = None,
    count: int = FINALISTS,
    base: Recipe | None = None,
    on_progress: Progress | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Searched:
    """Search for the operations that should stay float, under a blueprint.

    Every piece of work is recorded under the digests of the model, the data and the recipe: a search that
    was interrupted goes on where it was, and a second one does nothing twice.

    Args:
        timing: where models are timed.
        kind: of the device, for its limits.
        count: how many choices of islands are built, beside the schemes of the blueprint.
        base: what every candidate's recipe has in common; its scheme and io are those of the blueprint.

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
    shop, float_model = _workshop(blueprint, folder, store, on_progress)
    common = replace(
        base or Recipe(scheme=Scheme.INT8), scheme=Scheme.INT8, io=blueprint.io or "int8", float_ops=()
    )
    walk, walk_reused = _walk(shop, common, store, on_progress)
    made = [float_model, *(shop.build(*each) for each in _schemes(blueprint, common))]
    if made[1].variant is None:
        # Some operation cannot be int8: what all candidates start from then keeps it float.
        mixed = replace(common, scheme=Scheme.INT8_MIXED)
        made.append(shop.build(Scheme.INT8_MIXED.value, INT8, mixed))
    for number, choice in enumerate(finalists.finalists(walk.sets, count), start=1):
        kept = len(choice.float_ops)
        say(
            f"candidate {number}: {kept} operations float, {choice.sqnr_db:.1f} dB at the logits, uncorrected"
        )
        made.append(_build_islands(shop, choice, walk, common))
    variants = [each.variant for each in made if each.variant is not None]
    timed, timing_reused = latencies.timed(
        variants, timing, Records(store, latencies.KIND), subject=blueprint.name, say=say
    )
    if float_model.variant is None:
        raise ModelError(str(blueprint.source), float_model.problem)
    judged = judge(
        made,
        baseline=float_model.variant.metrics,
        blueprint=blueprint,
        latencies=timed,
        kind=kind,
    )
    again = [walk_reused, timing_reused, *(each.reused for each in made)]
    return Searched(
        blueprint=blueprint,
        judged=judged,
        candidates=tuple(made),
        walk=walk,
        reference=shop.reference,
        where=timing.where,
        reused=sum(again),
        done=len(again) - sum(again),
    )


def _workshop(
    blueprint: Blueprint, folder: Path, store: Store, on_progress: Progress | None
) -> tuple[Workshop, Built]:
    """Return where candidates are made, and the float model that they are made of."""
    if blueprint.calibration is None:
        raise TypeError("checked before")
    data = {"calibration": digest_of(blueprint.calibration), "evaluation": digest_of(blueprint.evaluation)}
    records = Records(store, building.KIND)
    first = Workshop(
        blueprint=blueprint,
        reference=blueprint.source,
        digests={"source": digest_of(blueprint.source), **data},
        folder=folder,
        records=records,
        on_progress=on_progress,
    )
    made = first.build(FLOAT, FLOAT, Recipe(scheme=Scheme.FLOAT32))
    if made.variant is None:
        raise ModelError(str(blueprint.source), made.problem)
    shop = replace(first, reference=made.variant.path, digests={"source": made.variant.sha256, **data})
    return shop, made


def _walk(
    shop: Workshop, common: Recipe, store: Store, on_progress: Progress | None
) -> tuple[IslandWalk, bool]:
    calibration = shop.blueprint.calibration
    if calibration is None:
        raise TypeError("checked before")
    # The walk ranks uncorrected models; a choice among calibrators needs more than ranges.
    calibrator = "minmax" if common.calibrator == "auto" else common.calibrator
    records = Records(store, WALK_KIND)
    key = key_of(
        source=shop.digests["source"],
        calibration=shop.digests["calibration"],
        calibrator=calibrator,
        most=_MOST_WALKED,
    )
    known = records.find(key)
    if known is not None:
        return IslandWalk.from_dict(known["walk"]), True
    walk = walk_islands(
        shop.reference, calibration, calibrator=calibrator, most=_MOST_WALKED, on_progress=on_progress
    )
    records.put(key, shop.blueprint.name, {"walk": walk.to_dict()})
    return walk, False


def _schemes(blueprint: Blueprint, common: Recipe) -> list[tuple[str, str, Recipe]]:
    """Return the candidates without a search: int8, and what else the blueprint names."""
    found = [(INT8, INT8, common)]
    for scheme in blueprint.schemes:
        if scheme not in {Scheme.INT8, Scheme.INT8_MIXED, Scheme.FLOAT32}:
            found.append((scheme.value, scheme.value, Recipe(scheme=scheme)))
    return found


def _build_islands(shop: Workshop, choice: IslandSet, walk: IslandWalk, common: Recipe) -> Built:
    kept = choice.float_ops
    if common.io == "float32":
        # What comes after the logits may as well give float outputs: it needs no border there.
        kept = tuple(dict.fromkeys((*kept, *walk.after_logits)))
    recipe = replace(common, scheme=Scheme.INT8_MIXED, float_ops=kept)
    return shop.build(f"mixed-{_short(choice)}", choice.family, recipe)


def _short(choice: IslandSet) -> str:
    """Return the positions as a name: 0-2_5; long ones are cut short by their number."""
    runs: list[list[int]] = []
    for index in choice.indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    text = "_".join(parts)
    return text if len(text) <= 32 else f"{len(choice.indices)}ops-{key_of(indices=list(choice.indices))[:8]}"
