"""The candidates of each phase, as recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeq.blueprint import Blueprint, Scheme
from edgeq.conversion import Recipe
from edgeq.values import DeviceKind
from edgeq_converters.recipe import Switch, Tail

PRUNED_SHARES = (0.3, 0.5)
"""Shares of channels that the pruning phase removes, one candidate for each."""
_CHOSEN_ONLY = frozenset({Scheme.INT4, Scheme.INT8_MIXED})
"""Schemes whose layers are chosen by measurements: they have no plain form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCandidate:
    """A candidate to build.

    Attributes:
        name: unique in the run.
        family: the scheme, or the technique that made it.
    """

    name: str
    family: str
    recipe: Recipe


def plain(blueprint: Blueprint, kind: DeviceKind | None) -> list[PlannedCandidate]:
    """Return a candidate for each scheme: min/max ranges, rounded weights, nothing corrected."""
    return [
        PlannedCandidate(
            name=_plain_name(scheme), family=scheme.value, recipe=_plain_recipe(blueprint, scheme)
        )
        for scheme in blueprint.schemes_for(kind)
        if scheme not in _CHOSEN_ONLY
    ]


def calibrated(blueprint: Blueprint, kind: DeviceKind | None) -> list[PlannedCandidate]:
    """Return a candidate with the default recipe for each scheme that has ranges."""
    return [
        PlannedCandidate(name=scheme.value, family=scheme.value, recipe=default_recipe(blueprint, scheme))
        for scheme in blueprint.schemes_for(kind)
        if scheme.needs_ranges
    ]


def pruned(blueprint: Blueprint, kind: DeviceKind | None) -> list[PlannedCandidate]:
    """Return candidates without a share of their channels, in the first integer scheme of the blueprint."""
    scheme = first_integer(blueprint.schemes_for(kind))
    if scheme is None:
        return []
    base = default_recipe(blueprint, scheme)
    return [
        PlannedCandidate(
            name=f"pruned-{round(100 * share)}-{scheme.value}",
            family="pruning",
            recipe=replace(base, prune=f"channels:{share:g}", epochs=blueprint.epochs),
        )
        for share in PRUNED_SHARES
    ]


def default_recipe(blueprint: Blueprint, scheme: Scheme) -> Recipe:
    """Return the recipe of `edgeq convert` for a scheme, with the blueprint's types, effort and seed."""
    recipe = Recipe(scheme=scheme, effort=blueprint.effort, seed=blueprint.budget.seed)
    io = blueprint.io
    return replace(recipe, io=io) if io is not None and io in scheme.io_types else recipe


def first_integer(schemes: Sequence[Scheme]) -> Scheme | None:
    """Return the first full-integer scheme, None without one."""
    return next((scheme for scheme in schemes if scheme.full_integer), None)


def _plain_recipe(blueprint: Blueprint, scheme: Scheme) -> Recipe:
    recipe = default_recipe(blueprint, scheme)
    if not scheme.needs_ranges:
        return recipe
    return replace(
        recipe,
        calibrator="minmax",
        bias_correction=Switch.OFF,
        equalization=Switch.OFF,
        tail=Tail(ops=()),
    )


def _plain_name(scheme: Scheme) -> str:
    return f"{scheme.value}-plain" if scheme.needs_ranges else scheme.value
