"""Operations of an int8 model that compute in int16: those named, or those of normalizations and magnitudes.

The variance of a normalization and its reciprocal root span several powers of ten over samples, which 8 bits
cannot hold. So do the squares of a magnitude, such as that of a spectrum: with 8 bits, every value below a
sixteenth of the largest gives 0. Their operations cost little, so that 16 bits there cost little too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.qparams import INT16
from edgeq_converters.calibration.ranges import Ranges, calibrated_ranges
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.recipe import WITH_INT16_OPS, Recipe

_GRID = replace(INT16, headroom=1.25)
"""Less headroom than where all is int16: the kernel of RSQRT interpolates in a table over the whole range."""
_WAY_BACK = ("ADD", "MEAN", "MUL", "SUB")
"""The operations between RSQRT and the values that are normalized, last first."""

_SUMMING = {"ADD", "MAXIMUM", "MEAN", "RESHAPE", "SUM"}
"""The operations between the squares of a magnitude and its root."""


def operations(model: Model, recipe: Recipe) -> frozenset[str]:
    """Return the names of the operations that get 16-bit activations under a recipe.

    Args:
        model: a prepared float model.
    """
    if recipe.scheme not in WITH_INT16_OPS:
        return frozenset()
    if recipe.int16_ops is not None:
        return frozenset(recipe.int16_ops)
    return (_normalizations(model) | _magnitudes(model)) - frozenset(recipe.float_ops)


def with_inner_ranges(
    ranges: Ranges, model: Model, histograms: Mapping[str, Histogram], names: Collection[str]
) -> Ranges:
    """Return the ranges; tensors that only int16 operations compute and read get the range of all values.

    16 bits have room for the extremes, so that nothing need be clipped.

    Args:
        names: of the int16 operations.
    """
    if not names:
        return ranges
    inner = _inner_tensors(model, names)
    wide = calibrated_ranges(model, histograms, calibrator="minmax", grid=_GRID)
    return {**ranges, **{name: each for name, each in wide.items() if name in inner}}


def _normalizations(model: Model) -> frozenset[str]:
    editor = GraphEditor(model.parsed)
    names: set[str] = set()
    for root in editor.operators:
        if editor.kind(root) != "RSQRT":
            continue
        chain = _chain(editor, root)
        if chain:
            scaled = [each for each in editor.readers(int(root.outputs[0])) if editor.kind(each) == "MUL"]
            names |= {tflite_file.operation_name(editor.graph, each) for each in (*chain, root, *scaled)}
    return frozenset(names)


def _chain(editor: GraphEditor, root: Any) -> list[Any]:
    """Return the operations of a variance: ADD, MEAN, MUL, and SUB where the mean is subtracted."""
    chain: list[Any] = []
    operator = root
    for kind in _WAY_BACK:
        producers = [editor.producer(int(index), kind) for index in operator.inputs]
        operator = next((each for each in producers if each is not None), None)
        if operator is None:
            break
        chain.append(operator)
    return chain if len(chain) >= len(_WAY_BACK) - 1 else []


def _magnitudes(model: Model) -> frozenset[str]:
    """Return the operations of every square root of squares or of their sum."""
    editor = GraphEditor(model.parsed)
    names: set[str] = set()
    for root in editor.operators:
        if editor.kind(root) == "SQRT":
            chain = _squares(editor, int(root.inputs[0]))
            names |= {tflite_file.operation_name(editor.graph, each) for each in (*chain, root) if chain}
    return frozenset(names)


def _squares(editor: GraphEditor, index: int) -> list[Any]:
    """Return the operations from squares to a tensor; none where it is computed from anything else."""
    operator = editor.producer(index)
    if editor.kind(operator) == "MUL":
        first, second = (int(each) for each in operator.inputs)
        return [operator] if first == second else []
    if editor.kind(operator) not in _SUMMING:
        return []
    parts = [
        _squares(editor, each)
        for each in tflite_file.index_list(operator.inputs)
        if editor.constant(each) is None
    ]
    return [operator, *(each for part in parts for each in part)] if parts and all(parts) else []


def _inner_tensors(model: Model, names: Collection[str]) -> set[str]:
    editor = GraphEditor(model.parsed)
    inner: set[str] = set()
    for operator in editor.operators:
        if tflite_file.operation_name(editor.graph, operator) not in names:
            continue
        for index in tflite_file.index_list(operator.outputs):
            readers = editor.readers(index)
            read_inside = all(tflite_file.operation_name(editor.graph, each) in names for each in readers)
            if readers and read_inside and not editor.is_output(index):
                inner.add(editor.name(index))
    return inner
