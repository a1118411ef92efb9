"""Choose which float regions to build: the Pareto front of noise, size and work, thinned out."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq_converters.sensitivity.float_region_values import FloatRegionSet

# A conversion between int8 and float costs about this share of a small model's work.
_BORDER = 0.02
# A choice must gain at least this much SQNR over plain int8.
_STEP_DB = 0.5
# A model that does most of its work in float gains nothing from int8 elsewhere.
_MOST_WORK = 0.9


def cost(choice: FloatRegionSet) -> float:
    """Return the estimated share of the float model's time that the float regions cost."""
    return choice.work + _BORDER * choice.borders


def finalists(sets: Sequence[FloatRegionSet], count: int) -> tuple[FloatRegionSet, ...]:
    """Return at most `count` choices with float regions, none dominated in SQNR, bytes and cost.

    They are spread evenly over their SQNR; the cheapest is always included.
    """
    plain = next((each for each in sets if not each.float_ops), None)
    floor = plain.sqnr_db if plain else float("-inf")
    worth = [
        each
        for each in sets
        if each.float_ops and each.sqnr_db >= floor + _STEP_DB and each.work <= _MOST_WORK
    ]
    front = sorted(
        (each for each in worth if not any(_beats(other, each) for other in worth)),
        key=lambda each: (each.sqnr_db, each.indices),
    )
    return _thinned(front, count)


def _beats(one: FloatRegionSet, other: FloatRegionSet) -> bool:
    left = (one.sqnr_db, -one.added_bytes, -cost(one))
    right = (other.sqnr_db, -other.added_bytes, -cost(other))
    if left == right:
        return one.indices < other.indices
    return all(a >= b for a, b in zip(left, right, strict=True))


def _thinned(front: Sequence[FloatRegionSet], count: int) -> tuple[FloatRegionSet, ...]:
    if len(front) <= count:
        return tuple(front)
    if count <= 1:
        return (min(front, key=cost),) if count else ()
    low, high = front[0].sqnr_db, front[-1].sqnr_db
    kept: list[FloatRegionSet] = []
    for number in range(count):
        goal = low + (high - low) * number / (count - 1)
        nearest = min(
            (each for each in front if each not in kept),
            key=lambda each: (abs(each.sqnr_db - goal), cost(each)),
        )
        kept.append(nearest)
    return tuple(sorted(kept, key=lambda each: each.sqnr_db))
