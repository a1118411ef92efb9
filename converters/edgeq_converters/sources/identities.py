"""Read past operations that cannot change a value: a MAXIMUM with -inf, a MINIMUM with +inf.

Exporters leave them where a reduction starts from infinity, which no integer can hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor, constant
from edgeq_converters.graph.model import Model

_NEUTRAL = {"MAXIMUM": -np.inf, "MINIMUM": np.inf}


def without_identities(model: Model) -> Model:
    """Return the model whose operations read past the identities; the same value where there is none.

    The identities are dead then. One that gives an output of the graph is read, and so is one that widens its
    input's shape.
    """
    kept = {index for graph in model.parsed.subgraphs for index in tflite_file.index_list(graph.outputs)}
    kept |= {
        int(entry.tensorIndex)
        for signature in model.parsed.signatureDefs or []
        for entry in signature.outputs or []
    }
    source_of: dict[int, int] = {}
    for operator in model.graph.operators:
        passed = _passed(model, operator)
        target = int(operator.outputs[0]) if len(operator.outputs) else -1
        if passed is not None and target not in kept:
            source_of[target] = source_of.get(passed, passed)
    if not source_of:
        return model
    editor = Editor(model)
    graph = editor.parsed.subgraphs[0]
    for operator in graph.operators:
        operator.inputs = np.array(
            [source_of.get(index, index) for index in tflite_file.index_list(operator.inputs)], np.int32
        )
    return editor.pack()


def _passed(model: Model, operator: Any) -> int | None:
    """Return the input that the operation passes on unchanged; None where it may change it."""
    neutral = _NEUTRAL.get(tflite_file.op_name(model.parsed, operator))
    if neutral is None:
        return None
    tensors = model.graph.tensors
    for one, other in (tuple(operator.inputs), tuple(operator.inputs)[::-1]):
        fixed, given, result = (tensors[int(index)] for index in (one, other, operator.outputs[0]))
        shapes = [tflite_file.index_list(tensor.shape) for tensor in (given, result)]
        if (
            tflite_file.is_constant(model.parsed, fixed)
            and tflite_file.type_name(fixed) == "FLOAT32"
            and shapes[0] == shapes[1]
            and bool((constant(model.parsed, fixed) == neutral).all())
        ):
            return int(other)
    return None
