"""The rewrites of a float graph that comes before integers, in their order, and their application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.graph.rewrite import (
    activations,
    arithmetic,
    loops,
    normalization,
    one_hot,
    placement,
    powers,
    products,
    recurrent,
    softmax,
    sums,
)
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rewrite.

    Attributes:
        name: in notes and in docs/operations.md.
        apply: changes the graph, and returns at how many places.
    """

    name: str
    apply: Callable[[GraphEditor], int]


RULES = (
    Rule(name="unrolled loop", apply=loops.unroll),
    Rule(name="reversal by GATHER", apply=recurrent.reverse_by_gathering),
    Rule(name="reversal of parts by GATHER", apply=placement.reverse_parts_by_gathering),
    Rule(name="scattering by GATHER", apply=placement.scatter_by_gathering),
    Rule(name="diagonal by MUL", apply=placement.diagonals_by_multiplication),
    Rule(name="sum of many by ADD", apply=sums.add_one_by_one),
    Rule(name="sum by a layer", apply=sums.sum_by_layers),
    Rule(name="pooled squares", apply=powers.pool_squares),
    Rule(name="written-out response normalization", apply=powers.normalize_responses),
    Rule(name="products with constants by layers", apply=products.multiply_each_by_layers),
    Rule(name="product with a constant by a layer", apply=products.multiply_by_layers),
    Rule(name="offset into the bias", apply=recurrent.move_offsets_into_biases),
    Rule(name="rows by GATHER", apply=one_hot.gather_rows),
    Rule(name="one layer for all steps", apply=recurrent.weigh_all_steps),
    Rule(name="steps by UNPACK", apply=recurrent.unpack_steps),
    Rule(name="parts by SPLIT", apply=recurrent.parts_by_split),
    Rule(name="centered normalization", apply=normalization.center_normalizations),
    Rule(name="joined softmax", apply=softmax.join_softmax),
    Rule(name="moved values by RESHAPE", apply=arithmetic.move_nothing_by_reshape),
    Rule(name="square by MUL", apply=arithmetic.square_by_multiplication),
    Rule(name="squared difference by SUB and MUL", apply=arithmetic.square_differences_by_multiplication),
    Rule(name="division by MUL", apply=arithmetic.divide_by_multiplication),
    Rule(name="negation by MUL", apply=arithmetic.negate_by_multiplication),
    Rule(name="fused activation", apply=activations.fuse_activations),
)
"""Patterns of several operations come before the single operations that are their parts."""


def prepared(model: Model) -> Model:
    """Return a float model in the form that integers are made from: normalized and rewritten."""
    return for_integers(normalize(model))


def for_integers(model: Model) -> Model:
    """Return the model with every rule applied; the same value where none matches.

    The function stays the same up to the rounding of float32. The names of tensors that remain stay too.

    Args:
        model: a normalized float model.
    """
    edited = Editor(model)
    editor = GraphEditor(edited.parsed, subject=model.subject)
    if not sum(rule.apply(editor) for rule in RULES):
        return model
    return without_dead(edited.pack())
