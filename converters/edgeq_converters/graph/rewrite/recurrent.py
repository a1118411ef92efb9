"""The steps of a recurrent layer: one operation for all steps where no step needs the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


def reverse_by_gathering(editor: GraphEditor) -> int:
    """Rewrite REVERSE_V2 of float values as a GATHER along each of its axes; return how many there were."""
    count = 0
    for operator in list(editor.operators):
        if editor.kind(operator) != "REVERSE_V2" or editor.type_name(int(operator.inputs[0])) != "FLOAT32":
            continue
        source, given = (int(index) for index in operator.inputs)
        values, shape = editor.constant(given), editor.shape(source)
        if values is None or not values.size:
            continue
        axes = sorted({int(each) % len(shape) for each in values.ravel()})
        name = editor.name(int(operator.outputs[0]))
        for axis in axes:
            backwards = np.arange(shape[axis], dtype=np.int32)[::-1]
            order = editor.add_constant(f"{name}.order", backwards)
            if axis == axes[-1]:
                editor.replace(operator, "GATHER", [source, order], axis=axis)
                break
            partly = editor.add_tensor(f"{name}.partly", shape)
            editor.insert(operator, "GATHER", [source, order], partly, axis=axis)
            source = partly
        count += 1
    return count


def move_offsets_into_biases(editor: GraphEditor) -> int:
    """Add a constant that is added to a FULLY_CONNECTED to its bias; return how many there were.

    `x w + c` and `(x w + b) + c` become the bias, where nothing else reads the parts of the sum.
    """
    biases: dict[tuple[int, int], int] = {}
    return sum(_move_offset(editor, operator, biases) for operator in list(editor.operators))


def _move_offset(editor: GraphEditor, end: Any, biases: dict[tuple[int, int], int]) -> bool:
    if editor.kind(end) != "ADD":
        return False
    first, second = (int(index) for index in end.inputs)
    for total, offset in ((first, second), (second, first)):
        values = editor.constant(offset)
        if values is None or values.dtype != np.float32:
            continue
        layer, inner = _layer_of(editor, total)
        if layer is None:
            continue
        width = editor.shape(int(layer.outputs[0]))[-1]
        if values.shape != (1,) * (values.ndim - 1) + (width,) or values.ndim > len(editor.shape(total)):
            continue
        old = int(layer.inputs[2]) if len(layer.inputs) > 2 else -1
        held = editor.constant(old)
        if old >= 0 and held is None:
            continue
        if (old, offset) not in biases:
            moved = values.reshape(width) + (0 if held is None else held)
            biases[old, offset] = editor.add_constant(f"{editor.name(offset)}.bias", moved)
        layer.inputs = np.array([*layer.inputs[:2], biases[old, offset]], np.int32)
        _end_at(editor, layer if inner is None else inner, end)
        return True
    return False


def _layer_of(editor: GraphEditor, total: int) -> tuple[Any, Any]:
    """Return (the FULLY_CONNECTED that a constant can be added to, the ADD between them or None)."""
    if not editor.has_one_reader(total):
        return None, None
    operator = editor.producer(total)
    if _is_plain(editor, operator, "FULLY_CONNECTED"):
        return operator, None
    if _is_plain(editor, operator, "ADD"):
        for term in (int(index) for index in operator.inputs):
            layer = editor.producer(term)
            whole = editor.shape(term) == editor.shape(total)
            if whole and editor.has_one_reader(term) and _is_plain(editor, layer, "FULLY_CONNECTED"):
                return layer, operator
    return None, None


def _is_plain(editor: GraphEditor, operator: Any, kind: str) -> bool:
    has_options = kind == "ADD" or (operator is not None and operator.builtinOptions is not None)
    return editor.kind(operator) == kind and has_options and not editor.activation(operator)


def _end_at(editor: GraphEditor, operator: Any, end: Any) -> None:
    """Let an operation compute what a later one computes from it, and drop the later one."""
    operator.outputs = end.outputs
    if editor.activation(end):
        if operator.builtinOptions is None:  # it has the defaults, and the same kind as the later one
            operator.builtinOptions, operator.builtinOptionsType = end.builtinOptions, end.builtinOptionsType
        operator.builtinOptions.fusedActivationFunction = editor.activation(end)
    # The operation takes the later one's place, after all that it reads.
    editor.remove(operator)
    editor.operators[editor.position(end)] = operator
    editor.reindex()


def weigh_all_steps(editor: GraphEditor) -> int:
    """Rewrite a FULLY_CONNECTED of every step of a tensor as one of the whole tensor; return how many.

    The steps are GATHERs of each index along the first axis, and the layers have the same weights.
    """
    groups: dict[tuple[int, int, int], dict[int, Any]] = {}
    for operator in editor.operators:
        if (
            not _is_plain(editor, operator, "FULLY_CONNECTED")
            or len(editor.shape(int(operator.inputs[0]))) != 2
        ):
            continue
        source, step = _step_of(editor, int(operator.inputs[0]))
        if step is not None and editor.constant(int(operator.inputs[1])) is not None:
            bias = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
            groups.setdefault((source, int(operator.inputs[1]), bias), {}).setdefault(step, operator)
    count = 0
    for (source, weights, bias), layers in groups.items():
        steps = editor.shape(source)[0]
        if len(layers) != steps or steps < 2:
            continue
        outputs = [int(layers[step].outputs[0]) for step in range(steps)]
        name = f"{editor.name(outputs[0])}.steps"
        target = editor.add_tensor(name, (steps, *editor.shape(outputs[0])))
        first = editor.first(layers.values())
        editor.insert(first, "FULLY_CONNECTED", [source, weights, bias], target, keepNumDims=True)
        _replace_steps(editor, list(layers.values()), target, outputs)
        count += 1
    return count


def unpack_steps(editor: GraphEditor) -> int:
    """Rewrite GATHERs of every index along the first axis as one UNPACK; return how many there are."""
    groups: dict[int, dict[int, Any]] = {}
    for operator in editor.operators:
        if editor.kind(operator) == "GATHER" and editor.type_name(int(operator.inputs[0])) == "FLOAT32":
            source, step = _step_of(editor, int(operator.outputs[0]))
            if step is not None:
                groups.setdefault(source, {}).setdefault(step, operator)
    count = 0
    for source, gathers in groups.items():
        steps = editor.shape(source)[0]
        if len(gathers) == steps > 1:
            outputs = [int(gathers[step].outputs[0]) for step in range(steps)]
            _replace_steps(editor, list(gathers.values()), source, outputs)
            count += 1
    return count


def _replace_steps(editor: GraphEditor, old: Sequence[Any], source: int, outputs: Sequence[int]) -> None:
    editor.insert(editor.first(old), "UNPACK", [source], outputs, axis=0, num=len(outputs))
    for operator in old:
        editor.remove(operator)
    editor.reindex()


def _step_of(editor: GraphEditor, index: int) -> tuple[int, int | None]:
    """Return (source, step) of a GATHER of one index along the first axis; the step is None otherwise."""
    operator = editor.producer(index, "GATHER")
    if operator is None:
        return -1, None
    options = operator.builtinOptions
    source, position = (int(i) for i in operator.inputs)
    values = editor.constant(position)
    axis, batches = (int(options.axis), int(options.batchDims)) if options is not None else (0, 0)
    if values is None or values.shape != () or axis != 0 or batches != 0:
        return -1, None
    return source, int(values)


def parts_by_split(editor: GraphEditor) -> int:
    """Rewrite STRIDED_SLICEs that cut the last axis into equal parts as SPLIT; return how many there are."""
    groups: dict[int, dict[tuple[int, int], Any]] = {}
    for operator in editor.operators:
        if editor.kind(operator) == "STRIDED_SLICE":
            box = _last_axis_box(editor, operator)
            if box is not None:
                groups.setdefault(int(operator.inputs[0]), {}).setdefault(box, operator)
    count = 0
    for source, cuts in groups.items():
        boxes = sorted(cuts)
        width = editor.shape(source)[-1]
        edges = [low for low, _ in boxes] + [width]
        equal = len({high - low for low, high in boxes}) == 1
        if len(boxes) < 2 or edges[0] != 0 or not equal or [high for _, high in boxes] != edges[1:]:
            continue
        axis = editor.add_constant(
            f"{editor.name(source)}.axis", np.array(len(editor.shape(source)) - 1, np.int32)
        )
        outputs = [int(cuts[box].outputs[0]) for box in boxes]
        editor.insert(editor.first(cuts.values()), "SPLIT", [axis, source], outputs, numSplits=len(boxes))
        for operator in cuts.values():
            editor.remove(operator)
        editor.reindex()
        count += 1
    return count


def _last_axis_box(editor: GraphEditor, operator: Any) -> tuple[int, int] | None:
    """Return (low, high) of a slice that cuts the last axis of float values only, with stride 1."""
    options = operator.builtinOptions
    source = int(operator.inputs[0])
    shape = editor.shape(source)
    given = [editor.constant(int(index)) for index in operator.inputs[1:]]
    values = [each for each in given if each is not None]
    special = options.shrinkAxisMask or options.newAxisMask or options.ellipsisMask or options.offset
    whole = len(values) == 3 and all(each.size == len(shape) for each in values)
    if special or not whole or editor.type_name(source) != "FLOAT32" or np.any(values[2] != 1):
        return None
    box = []
    for axis, size in enumerate(shape):
        low = 0 if options.beginMask >> axis & 1 else int(values[0][axis])
        high = size if options.endMask >> axis & 1 else int(values[1][axis])
        low, high = (each + size if each < 0 else each for each in (low, high))
        box.append((max(low, 0), min(high, size)))
    if any(each != (0, size) for each, size in zip(box[:-1], shape[:-1], strict=True)):
        return None
    return box[-1] if box and box[-1][0] < box[-1][1] else None
