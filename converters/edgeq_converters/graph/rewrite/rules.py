"""The rewrites of a float graph that comes before integers, in their order, and their application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.graph.rewrite import arithmetic, normalization
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rewrite.

    Attributes:
        name: in notes and in docs/quantization.md.
        apply: changes the graph, and returns at how many places.
    """

    name: str
    apply: Callable[[GraphEditor], int]


RULES = (
    Rule(name="centered normalization", apply=normalization.center_normalizations),
    Rule(name="square by MUL", apply=arithmetic.square_by_multiplication),
    Rule(name="squared difference by SUB and MUL", apply=arithmetic.square_differences_by_multiplication),
    Rule(name="division by MUL", apply=arithmetic.divide_by_multiplication),
    Rule(name="negation by MUL", apply=arithmetic.negate_by_multiplication),
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
    editor = GraphEditor(edited.parsed)
    if not sum(rule.apply(editor) for rule in RULES):
        return model
    return without_dead(edited.pack())
