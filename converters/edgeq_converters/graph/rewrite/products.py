"""BATCH_MATMUL with a constant operand as FULLY_CONNECTED, which has a scale for each output of its weights.

With an integer constant, the kernel of BATCH_MATMUL gives zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

Array = npt.NDArray[Any]
_MOST_MATRICES = 64


def multiply_by_layers(editor: GraphEditor) -> int:
    """Rewrite every BATCH_MATMUL of a value and one constant matrix; return how many there were.

    `x C` becomes FULLY_CONNECTED, `C x` becomes FULLY_CONNECTED between two TRANSPOSEs of the last two axes.
    """
    products = [each for each in editor.operators if editor.kind(each) == "BATCH_MATMUL"]
    return sum(_rewrite(editor, operator) for operator in products)


def _rewrite(editor: GraphEditor, operator: Any) -> bool:
    first, second = (int(index) for index in operator.inputs)
    options = operator.builtinOptions
    turned = (bool(options.adjX), bool(options.adjY)) if options is not None else (False, False)
    left, right = _matrix(editor, first), _matrix(editor, second)
    target = int(operator.outputs[0])
    shape = editor.shape(target)
    if right is not None and left is None and not turned[0]:
        weights = right if turned[1] else right.T
        if shape != (*editor.shape(first)[:-1], len(weights)):
            return False
        stored = _stored(editor, second, weights)
        editor.replace(operator, "FULLY_CONNECTED", [first, stored, -1], keepNumDims=True)
        return True
    if left is not None and right is None:
        weights = left.T if turned[0] else left
        source = editor.shape(second)
        rows = source if turned[1] else (*source[:-2], source[-1], source[-2])
        if shape != (*rows[:-2], len(weights), rows[-2]):
            return False
        name = editor.name(target)
        order = np.arange(len(shape), dtype=np.int32)
        order[-2:] = order[-2:][::-1]
        turn = editor.add_constant(f"{name}.order", order)
        inner = second
        if not turned[1]:
            inner = editor.add_tensor(f"{name}.turned", rows)
            editor.insert(operator, "TRANSPOSE", [second, turn], inner)
        product = editor.add_tensor(f"{name}.product", (*rows[:-1], len(weights)))
        stored = _stored(editor, first, weights)
        editor.insert(operator, "FULLY_CONNECTED", [inner, stored, -1], product, keepNumDims=True)
        editor.replace(operator, "TRANSPOSE", [product, turn])
        return True
    return False


def multiply_each_by_layers(editor: GraphEditor) -> int:
    """Rewrite every BATCH_MATMUL of a value and several constant matrices as one product for each of them.

    Return how many there were. UNPACK and PACK take the value and the results apart and together.
    """
    products = [each for each in editor.operators if editor.kind(each) == "BATCH_MATMUL"]
    return sum(_divide(editor, operator) for operator in products)


def _divide(editor: GraphEditor, operator: Any) -> bool:
    inputs = [int(index) for index in operator.inputs]
    constants = [editor.constant(index) for index in inputs]
    places = [n for n, each in enumerate(constants) if each is not None and each.dtype == np.float32]
    if len(places) != 1:
        return False
    place = places[0]
    value, target = inputs[1 - place], int(operator.outputs[0])
    matrices = editor.values(inputs[place])
    shape, result = editor.shape(value), editor.shape(target)
    many = matrices.shape[:-2]
    count = math.prod(many)
    if not 1 < count <= _MOST_MATRICES or result[:-2] != many or shape[:-2] != many:
        return False
    name = editor.name(target)
    parts = _apart(editor, operator, value, count, f"{name}.values")
    results = []
    for number, matrix in enumerate(matrices.reshape(count, *matrices.shape[-2:])):
        held = editor.add_constant(f"{editor.name(inputs[place])}.matrix{number}", matrix)
        part = editor.add_tensor(f"{name}.product{number}", result[-2:])
        pair = [parts[number], parts[number]]
        pair[place] = held
        made = editor.insert(operator, "BATCH_MATMUL", pair, part)
        made.builtinOptions, made.builtinOptionsType = operator.builtinOptions, operator.builtinOptionsType
        results.append(part)
    joined = editor.add_tensor(f"{name}.products", (count, *result[-2:]))
    editor.insert(operator, "PACK", results, joined, axis=0, valuesCount=count)
    sizes = editor.add_constant(f"{name}.shape", np.array(result, np.int32))
    editor.replace(operator, "RESHAPE", [joined, sizes], newShape=np.array(result, np.int32))
    return True


def _apart(editor: GraphEditor, before: Any, value: int, count: int, name: str) -> list[int]:
    """Return the `count` matrices of a tensor."""
    matrix = editor.shape(value)[-2:]
    sizes = editor.add_constant(f"{name}.shape", np.array((count, *matrix), np.int32))
    flat = editor.add_tensor(f"{name}.flat", (count, *matrix))
    shape = np.array((count, *matrix), np.int32)
    editor.insert(before, "RESHAPE", [value, sizes], flat, newShape=shape)
    parts = [editor.add_tensor(f"{name}{number}", matrix) for number in range(count)]
    editor.insert(before, "UNPACK", [flat], parts, axis=0, num=count)
    return parts


def _matrix(editor: GraphEditor, index: int) -> Array | None:
    """Return a constant float matrix, or the one matrix of a constant with more axes; None otherwise."""
    values = editor.constant(index)
    if values is None or values.dtype != np.float32 or values.ndim < 2:
        return None
    matrix: Array = values.reshape(-1, *values.shape[-2:])
    return matrix[0] if len(matrix) == 1 else None


def _stored(editor: GraphEditor, index: int, weights: Array) -> int:
    return editor.add_constant(f"{editor.name(index)}.weights", np.ascontiguousarray(weights))
