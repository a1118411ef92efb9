"""Operations that put values at fixed places, by GATHER and MUL: their own kernels fill with integer zeros.

An integer zero stands for the real zero only where the zero point is 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


def scatter_by_gathering(editor: GraphEditor) -> int:
    """Rewrite SCATTER_ND of float values to constant, different places as GATHER; return how many.

    The values get a row of zeros, which every other place reads.
    """
    return sum(_scatter(editor, each) for each in list(editor.operators) if editor.kind(each) == "SCATTER_ND")


def _scatter(editor: GraphEditor, operator: Any) -> bool:
    places, source, _ = (int(index) for index in operator.inputs)
    target = int(operator.outputs[0])
    indices, shape = editor.constant(places), editor.shape(target)
    if indices is None or editor.type_name(source) != "FLOAT32" or indices.ndim < 2 or not shape:
        return False
    depth = indices.shape[-1]
    outer, inner = shape[:depth], shape[depth:]
    flat = indices.reshape(-1, depth)
    if np.any(flat < 0) or np.any(flat >= np.array(outer)):
        return False
    at = np.asarray(np.ravel_multi_index(tuple(flat.T), outer))
    if len(set(at.tolist())) != len(at):
        return False
    width, count, name = math.prod(inner), math.prod(outer), editor.name(target)
    rows = _reshaped(editor, operator, source, (len(at), width), f"{name}.rows")
    room = editor.add_constant(f"{name}.room", np.array([[0, 1], [0, 0]], np.int32))
    filled = editor.add_tensor(f"{name}.filled", (len(at) + 1, width))
    editor.insert(operator, "PAD", [rows, room], filled)
    chosen = np.full(count, len(at), np.int32)
    chosen[at] = np.arange(len(at))
    order = editor.add_constant(f"{name}.order", chosen)
    gathered = editor.add_tensor(f"{name}.gathered", (count, width))
    editor.insert(operator, "GATHER", [filled, order], gathered, axis=0)
    sizes = editor.add_constant(f"{name}.shape", np.array(shape, np.int32))
    editor.replace(operator, "RESHAPE", [gathered, sizes], newShape=np.array(shape, np.int32))
    return True


def diagonals_by_multiplication(editor: GraphEditor) -> int:
    """Rewrite MATRIX_DIAG as MUL with the identity; return how many there were."""
    count = 0
    for operator in list(editor.operators):
        source = int(operator.inputs[0]) if len(operator.inputs) else -1
        if editor.kind(operator) != "MATRIX_DIAG" or editor.type_name(source) != "FLOAT32":
            continue
        shape, name = editor.shape(source), editor.name(int(operator.outputs[0]))
        rows = _reshaped(editor, operator, source, (*shape[:-1], 1, shape[-1]), f"{name}.rows")
        identity = editor.add_constant(f"{name}.identity", np.eye(shape[-1], dtype=np.float32))
        editor.replace(operator, "MUL", [rows, identity])
        count += 1
    return count


def reverse_parts_by_gathering(editor: GraphEditor) -> int:
    """Rewrite REVERSE_SEQUENCE of constant lengths as GATHER; return how many there were."""
    kind = "REVERSE_SEQUENCE"
    return sum(_reverse(editor, each) for each in list(editor.operators) if editor.kind(each) == kind)


def _reverse(editor: GraphEditor, operator: Any) -> bool:
    source, lengths = (int(index) for index in operator.inputs)
    target = int(operator.outputs[0])
    ends, shape = editor.constant(lengths), editor.shape(source)
    options = operator.builtinOptions
    steps, batch = (int(options.seqDim), int(options.batchDim)) if options is not None else (0, 0)
    if ends is None or editor.type_name(source) != "FLOAT32" or {steps, batch} != {0, 1}:
        return False
    place = np.arange(math.prod(shape[:2])).reshape(shape[:2])
    places = place if steps == 1 else place.T
    for row, end in zip(places, ends.ravel(), strict=True):
        row[: int(end)] = row[: int(end)][::-1].copy()
    name, width = editor.name(target), math.prod(shape[2:])
    rows = _reshaped(editor, operator, source, (place.size, width), f"{name}.rows")
    order = editor.add_constant(f"{name}.order", place.ravel().astype(np.int32))
    gathered = editor.add_tensor(f"{name}.gathered", (place.size, width))
    editor.insert(operator, "GATHER", [rows, order], gathered, axis=0)
    sizes = editor.add_constant(f"{name}.shape", np.array(shape, np.int32))
    editor.replace(operator, "RESHAPE", [gathered, sizes], newShape=np.array(shape, np.int32))
    return True


def _reshaped(editor: GraphEditor, before: Any, source: int, shape: tuple[int, ...], name: str) -> int:
    sizes = editor.add_constant(f"{name}.shape", np.array(shape, np.int32))
    made = editor.add_tensor(name, shape)
    editor.insert(before, "RESHAPE", [source, sizes], made, newShape=np.array(shape, np.int32))
    return made
