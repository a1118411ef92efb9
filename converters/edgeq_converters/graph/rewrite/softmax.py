"""A softmax that is written out, as SOFTMAX: its kernel has a fixed output scale, and no sum in integers."""

from __future__ import annotations

from typing import Any

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


def join_softmax(editor: GraphEditor) -> int:
    """Rewrite `exp(x - max) / sum(exp(x - max))` over the last axis as SOFTMAX; return how many there were.

    Without the maximum, which keeps exp within float32, the function is the same.
    """
    return sum(_rewrite(editor, operator) for operator in list(editor.operators))


def _rewrite(editor: GraphEditor, operator: Any) -> bool:
    if editor.kind(operator) != "DIV" or editor.activation(operator):
        return False
    powers, total = (int(index) for index in operator.inputs)
    power = editor.producer(powers, "EXP")
    if power is None or _reduced(editor, total, "SUM") != powers:
        return False
    source = int(power.inputs[0])
    difference = editor.producer(source, "SUB")
    if difference is not None and not editor.activation(difference):
        values, largest = (int(index) for index in difference.inputs)
        if _reduced(editor, largest, "REDUCE_MAX") == values:
            source = values
    if editor.shape(source) != editor.shape(int(operator.outputs[0])):
        return False
    editor.replace(operator, "SOFTMAX", [source], beta=1.0)
    return True


def _reduced(editor: GraphEditor, index: int, kind: str) -> int | None:
    """Return the tensor whose last axis a tensor reduces to one element; None where it does not."""
    shape = editor.shape(index)
    reshape = editor.producer(index, "RESHAPE")
    reduction = editor.producer(index if reshape is None else int(reshape.inputs[0]), kind)
    if reduction is None:
        return None
    source = int(reduction.inputs[0])
    before, axes = editor.shape(source), editor.constant(int(reduction.inputs[1]))
    last = axes is not None and axes.size == 1 and int(axes.ravel()[0]) in (-1, len(before) - 1)
    return source if last and shape == (*before[:-1], 1) else None
