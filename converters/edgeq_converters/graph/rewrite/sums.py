"""Sums over fixed places as layers and additions: running sums, sums of segments, sums of several tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

Array = npt.NDArray[Any]
_MOST = 1024
"""Places of an axis up to which a matrix of ones and zeros is small beside the model."""
_SEGMENT_SUMS = ("SEGMENT_SUM", "UNSORTED_SEGMENT_SUM")


def add_one_by_one(editor: GraphEditor) -> int:
    """Rewrite ADD_N as ADDs; return how many there were."""
    many = [each for each in editor.operators if editor.kind(each) == "ADD_N"]
    many = [each for each in many if editor.type_name(int(each.outputs[0])) == "FLOAT32"]
    for operator in many:
        terms = [int(index) for index in operator.inputs]
        target = int(operator.outputs[0])
        total = terms[0]
        for number, term in enumerate(terms[1:-1]):
            partial = editor.add_tensor(f"{editor.name(target)}.sum{number}", editor.shape(target))
            editor.insert(operator, "ADD", [total, term], partial)
            total = partial
        editor.replace(operator, "ADD", [total, terms[-1]])
    return len(many)


def sum_by_layers(editor: GraphEditor) -> int:
    """Rewrite CUMSUM, and sums of segments that are constant, as FULLY_CONNECTED; return how many.

    The weights are ones and zeros, which 8 bits hold exactly.
    """
    return sum(_sum(editor, operator) for operator in list(editor.operators))


def _sum(editor: GraphEditor, operator: Any) -> bool:
    kind = editor.kind(operator)
    if kind != "CUMSUM" and kind not in _SEGMENT_SUMS:
        return False
    source, target = int(operator.inputs[0]), int(operator.outputs[0])
    shape = editor.shape(source)
    given = editor.constant(int(operator.inputs[1]))
    if given is None or len(shape) < 2 or editor.type_name(source) != "FLOAT32" or min(shape) < 1:
        return False
    axis = int(given.ravel()[0]) % len(shape) if kind == "CUMSUM" else 0
    inner = shape[axis]
    if inner > _MOST:
        return False
    if kind == "CUMSUM":
        weights = _running(operator, inner)
    else:
        segments = np.arange(editor.shape(target)[0])
        if given.shape != (inner,):
            return False
        weights = np.asarray(given[None, :] == segments[:, None], np.float32)
    _apply(editor, operator, weights, axis=axis)
    return True


def _running(operator: Any, size: int) -> Array:
    """Return the matrix (outputs, inputs) of a running sum."""
    options = operator.builtinOptions
    exclusive = bool(options is not None and options.exclusive)
    weights: Array = np.tril(np.ones((size, size), np.float32), -1 if exclusive else 0)
    return weights.T if options is not None and options.reverse else weights


def _apply(editor: GraphEditor, operator: Any, weights: Array, *, axis: int) -> None:
    """Compute an operation's output as a matrix times its input along an axis."""
    source, target = int(operator.inputs[0]), int(operator.outputs[0])
    name, shape = editor.name(target), editor.shape(source)
    matrix = editor.add_constant(f"{name}.ones", np.ascontiguousarray(weights))
    if axis == len(shape) - 1:
        editor.replace(operator, "FULLY_CONNECTED", [source, matrix, -1], keepNumDims=True)
        return
    order = np.arange(len(shape), dtype=np.int32)
    order[[axis, -1]] = order[[-1, axis]]
    turn = editor.add_constant(f"{name}.order", order)
    turned = editor.add_tensor(f"{name}.turned", [shape[i] for i in order])
    editor.insert(operator, "TRANSPOSE", [source, turn], turned)
    product = editor.add_tensor(f"{name}.product", [*(shape[i] for i in order[:-1]), len(weights)])
    editor.insert(operator, "FULLY_CONNECTED", [turned, matrix, -1], product, keepNumDims=True)
    editor.replace(operator, "TRANSPOSE", [product, turn])
