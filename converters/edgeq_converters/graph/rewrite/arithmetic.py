"""Single operations without an integer kernel, by operations that have one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

_SHAPING = {"SQUEEZE", "EXPAND_DIMS"}
_REDUCING = {"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"}
"""Operations that give a single element as it is."""


def move_nothing_by_reshape(editor: GraphEditor) -> int:
    """Rewrite SQUEEZE, EXPAND_DIMS and reductions over single elements as RESHAPE; return how many.

    Each gives the values of its input in another shape. litert-quantizer leaves SQUEEZE in float.
    """
    count = 0
    for operator in list(editor.operators):
        kind = editor.kind(operator)
        if kind not in _SHAPING | _REDUCING:
            continue
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        before, after = editor.shape(source), editor.shape(target)
        moves = kind in _SHAPING or math.prod(before) == math.prod(after)
        if not moves or editor.type_name(source) != "FLOAT32" or not after or min((*before, *after)) < 1:
            continue
        shape = editor.add_constant(f"{editor.name(target)}.shape", np.array(after, np.int32))
        editor.replace(operator, "RESHAPE", [source, shape], newShape=np.array(after, np.int32))
        count += 1
    return count


def negate_by_multiplication(editor: GraphEditor) -> int:
    """Rewrite NEG of float values as MUL with -1; return how many there were."""

    def rewrite(operator: Any) -> None:
        minus = editor.add_constant("minus_one", np.array(-1.0, np.float32))
        editor.replace(operator, "MUL", [int(operator.inputs[0]), minus])

    return _each(editor, "NEG", rewrite)


def square_by_multiplication(editor: GraphEditor) -> int:
    """Rewrite SQUARE as MUL of the value with itself; return how many there were."""

    def rewrite(operator: Any) -> None:
        editor.replace(operator, "MUL", [int(operator.inputs[0])] * 2)

    return _each(editor, "SQUARE", rewrite)


def square_differences_by_multiplication(editor: GraphEditor) -> int:
    """Rewrite SQUARED_DIFFERENCE as SUB and MUL, which int16 kernels have too; return how many there were."""

    def rewrite(operator: Any) -> None:
        target = int(operator.outputs[0])
        difference = editor.add_tensor(f"{editor.name(target)}.difference", editor.shape(target))
        editor.insert(operator, "SUB", [int(i) for i in operator.inputs], difference)
        editor.replace(operator, "MUL", [difference, difference])

    return _each(editor, "SQUARED_DIFFERENCE", rewrite)


def divide_by_multiplication(editor: GraphEditor) -> int:
    """Rewrite a division by a constant or by a square root as MUL; return how many there were.

    `a / c` becomes `a * (1 / c)` for a constant without zeros, `a / sqrt(b)` becomes `a * rsqrt(b)`.
    """
    count = 0
    for operator in list(editor.operators):
        if editor.kind(operator) != "DIV" or not _is_float(editor, operator):
            continue
        numerator, denominator = (int(i) for i in operator.inputs)
        values = editor.constant(denominator)
        root = editor.producer(denominator, "SQRT")
        fused = operator.builtinOptions.fusedActivationFunction if operator.builtinOptions else 0
        if values is not None and np.all(values != 0) and np.all(np.isfinite(1 / values)):
            factor = editor.add_constant(
                f"{editor.name(denominator)}.reciprocal", (1 / values).astype(np.float32)
            )
        elif root is not None:
            factor = editor.add_tensor(f"{editor.name(denominator)}.reciprocal", editor.shape(denominator))
            editor.insert(operator, "RSQRT", [int(root.inputs[0])], factor)
        else:
            continue
        editor.replace(operator, "MUL", [numerator, factor], fusedActivationFunction=fused)
        count += 1
    return count


def _each(editor: GraphEditor, kind: str, rewrite: Any) -> int:
    operators = [each for each in editor.operators if editor.kind(each) == kind and _is_float(editor, each)]
    for operator in operators:
        rewrite(operator)
    return len(operators)


def _is_float(editor: GraphEditor, operator: Any) -> bool:
    index = tflite_file.first_output(operator)
    return index is not None and editor.type_name(index) == "FLOAT32"
