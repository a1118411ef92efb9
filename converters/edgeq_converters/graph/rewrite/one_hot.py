"""The product of one-hot vectors and weights as GATHER from a table, which takes no float vectors.

Neither ONE_HOT nor the comparison with all classes that stands for it has an integer kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


def gather_rows(editor: GraphEditor) -> int:
    """Rewrite FULLY_CONNECTED of one-hot vectors as GATHER; return how many there were.

    An id outside the classes has a vector of zeros, and so gives the bias: the table begins and ends with it.
    """
    layers = [each for each in editor.operators if editor.kind(each) == "FULLY_CONNECTED"]
    return sum(_rewrite(editor, layer) for layer in layers)


def _rewrite(editor: GraphEditor, layer: Any) -> bool:
    vectors, target = int(layer.inputs[0]), int(layer.outputs[0])
    weights, bias_index = editor.constant(int(layer.inputs[1])), [int(i) for i in layer.inputs[2:]]
    bias = editor.constant(bias_index[0]) if bias_index else None
    shape = editor.shape(vectors)
    if weights is None or weights.dtype != np.float32 or editor.activation(layer):
        return False
    if (bias is None and any(i >= 0 for i in bias_index)) or not editor.has_one_reader(vectors):
        return False
    if len(shape) < 2 or weights.ndim != 2 or shape[-1] != weights.shape[1]:
        return False
    if editor.shape(target) != (*shape[:-1], len(weights)):
        return False
    ids = _ids(editor, vectors)
    if ids is None or editor.type_name(ids) != "INT32":
        return False
    name = editor.name(target)
    outside = np.zeros((1, len(weights)), np.float32)
    rows = np.concatenate([outside, weights.T, outside])
    table = editor.add_constant(f"{name}.table", rows if bias is None else rows + bias.reshape(1, -1))
    place = editor.add_constant(f"{name}.ids_shape", np.array(shape[:-1], np.int32))
    index = _int32(editor, layer, "RESHAPE", [ids, place], name, shape[:-1], newShape=np.array(shape[:-1]))
    # The largest id wraps round to the smallest, which is outside as well.
    steps = (("ADD", 1), ("MAXIMUM", 0), ("MINIMUM", len(rows) - 1))
    for kind, value in steps:
        constant = editor.add_constant(f"{name}.{kind.lower()}", np.array(value, np.int32))
        index = _int32(editor, layer, kind, [index, constant], name, shape[:-1])
    editor.replace(layer, "GATHER", [table, index], axis=0)
    return True


def _int32(
    editor: GraphEditor,
    before: Any,
    kind: str,
    inputs: list[int],
    name: str,
    shape: tuple[int, ...],
    **options: Any,
) -> int:
    output = editor.add_tensor(f"{name}.ids", shape, editor.graph.tensors[inputs[0]].type)
    editor.insert(before, kind, inputs, output, **options)
    return output


def _ids(editor: GraphEditor, vectors: int) -> int | None:
    """Return the ids whose one-hot vectors a tensor holds; None where it does not."""
    one_hot = editor.producer(vectors, "ONE_HOT")
    classes, rank = editor.shape(vectors)[-1], len(editor.shape(vectors))
    if one_hot is not None:
        ids, depth, on, off = (int(i) for i in one_hot.inputs)
        values = [editor.constant(each) for each in (depth, on, off)]
        axis = -1 if one_hot.builtinOptions is None else int(one_hot.builtinOptions.axis)
        known = [None if each is None else each.ravel().tolist() for each in values]
        return ids if known == [[classes], [1], [0]] and axis in (-1, rank - 1) else None
    cast = editor.producer(vectors, "CAST")
    equal = None if cast is None else editor.producer(int(cast.inputs[0]), "EQUAL")
    if equal is None:
        return None
    columns = (*editor.shape(vectors)[:-1], 1)
    for ids, other in (equal.inputs, equal.inputs[::-1]):
        compared = editor.constant(int(other))
        if compared is None or compared.shape[-1:] != (classes,) or compared.size != classes:
            continue
        if np.array_equal(compared.ravel(), np.arange(classes)) and editor.shape(int(ids)) == columns:
            return int(ids)
    return None
