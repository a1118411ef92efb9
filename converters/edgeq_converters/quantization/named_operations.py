"""Find the operations that a recipe names: by the name of an output tensor, a pattern, or the word `head`."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Sequence
from dataclasses import replace

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.recipe import Recipe

HEAD = "head"
"""Stands for the operations from the last layers with weights to the outputs."""
LAYERS = {
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "CONV_2D",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "LSTM",
    "RNN",
    "SVDF",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
}
"""Operations with weights."""
_KEYS = ("float_ops", "int8_ops", "int16_ops")


def resolved(model: Model, recipe: Recipe) -> Recipe:
    """Return the recipe with the names of operations in place of patterns and of the word `head`.

    A name that an operation has stands for that operation, even if it looks like a pattern.

    Args:
        model: a prepared float model.

    Raises:
        ConverterError: EQ330 a name or a pattern fits no operation.
    """
    if not any(getattr(recipe, key) for key in _KEYS):
        return recipe
    names = _names(model)
    return replace(
        recipe,
        float_ops=_expanded(model, names, "float_ops", recipe.float_ops),
        int8_ops=_expanded(model, names, "int8_ops", recipe.int8_ops),
        int16_ops=None
        if recipe.int16_ops is None
        else _expanded(model, names, "int16_ops", recipe.int16_ops),
    )


def within(model: Model, recipe: Recipe) -> Recipe:
    """Return a resolved recipe without the names of operations that were rewritten away."""
    names = set(_names(model))

    def left(listed: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in listed if name in names)

    return replace(
        recipe,
        float_ops=left(recipe.float_ops),
        int8_ops=left(recipe.int8_ops),
        int16_ops=None if recipe.int16_ops is None else left(recipe.int16_ops),
    )


def head(model: Model) -> tuple[str, ...]:
    """Return the names of the operations of the head, in order of execution.

    From each output, all ways back are followed to the first operation with weights: a convolution, a fully
    connected or a recurrent layer. These operations and all after them are the head.
    """
    editor = GraphEditor(model.parsed)
    left = tflite_file.index_list(editor.graph.outputs)
    chosen: set[int] = set()
    while left:
        operator = editor.producer(left.pop())
        if operator is None or id(operator) in chosen:
            continue
        chosen.add(id(operator))
        if editor.kind(operator) not in LAYERS:
            left += [index for index in tflite_file.index_list(operator.inputs) if index >= 0]
    return tuple(
        tflite_file.operation_name(editor.graph, operator)
        for operator in editor.operators
        if id(operator) in chosen
    )


def _names(model: Model) -> list[str]:
    return [tflite_file.operation_name(model.graph, operator) for operator in model.graph.operators]


def _expanded(model: Model, names: Sequence[str], key: str, listed: Sequence[str]) -> tuple[str, ...]:
    chosen: list[str] = []
    for each in listed:
        chosen += _matching(model, names, key, each)
    return tuple(dict.fromkeys(chosen))


def _matching(model: Model, names: Sequence[str], key: str, name: str) -> Collection[str]:
    if name in names:
        return (name,)
    if name == HEAD:
        return head(model)
    matching = [each for each in names if fnmatch.fnmatchcase(each, name)]
    if matching:
        return matching
    near = difflib.get_close_matches(name, names, n=1, cutoff=0)
    what = "matches" if set("*?[") & set(name) else "is called"
    raise ConverterError(
        "EQ330",
        model.subject,
        f"no operation has an output tensor that {what} {name!r}, which {key} names",
        expected=f"the name of an operation's first output, such as {near[0]!r}, a pattern, or `head`"
        if near
        else None,
        hint="`edgeq sensitivity FLOAT --calibration C.npz --evaluation E.npz -v` lists names",
    )
