"""Which choices of float islands are worth building: the front of noise, size and work, thinned; pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq_converters.sensitivity.float_region_values import IslandSet

# One conversion between int8 and float costs about as much as this share of a small model's work.
_BORDER = 0.02
# Less than this above a cheaper choice is no reason to build another.
_STEP_DB = 0.5
# A model most of whose work is float gains nothing from the rest being int8.
_MOST_WORK = 0.9


def cost(choice: IslandSet) -> float:
    """Return about which share of the float model's time the islands bring back."""
    return choice.work + _BORDER * choice.borders


def finalists(sets: Sequence[IslandSet], count: int) -> tuple[IslandSet, ...]:
    """Return at most `count` choices with islands: none is beaten by another in SQNR, bytes and cost.

    They are spread evenly over the SQNR that they reach, the cheapest always among them.
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


def _beats(one: IslandSet, other: IslandSet) -> bool:
    mine = (one.sqnr_db, -one.added_bytes, -cost(one))
    theirs = (other.sqnr_db, -other.added_bytes, -cost(other))
    if mine == theirs:
        return one.indices < other.indices
    return all(a >= b for a, b in zip(mine, theirs, strict=True))


def _thinned(front: Sequence[IslandSet], count: int) -> tuple[IslandSet, ...]:
    if len(front) <= count:
        return tuple(front)
    if count <= 1:
        return (min(front, key=cost),) if count else ()
    low, high = front[0].sqnr_db, front[-1].sqnr_db
    kept: list[IslandSet] = []
    for number in range(count):
        goal = low + (high - low) * number / (count - 1)
        nearest = min(
            (each for each in front if each not in kept),
            key=lambda each: (abs(each.sqnr_db - goal), cost(each)),
        )
        kept.append(nearest)
    return tuple(sorted(kept, key=lambda each: each.sqnr_db))
