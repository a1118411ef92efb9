"""Give an integer model the types of inputs and outputs that its recipe names."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model

_TYPES = {"int8": schema.TensorType.INT8, "int16": schema.TensorType.INT16}


def with_unread_inputs(model: Model, *, io: str) -> Model:
    """Return the model with the type `io` also for float inputs that no operation reads.

    Quantizers leave such an input in float, so that the model would not have integer inputs only. Its values
    do not matter, and neither does its scale.
    """
    if io not in _TYPES:
        return model
    editor = Editor(model)
    graph = editor.parsed.subgraphs[0]
    read = {i for operator in graph.operators for i in tflite_file.tensor_indices(operator)}
    read.update(tflite_file.index_list(graph.outputs))
    unread = [graph.tensors[i] for i in tflite_file.index_list(graph.inputs) if i not in read]
    unread = [tensor for tensor in unread if tflite_file.type_name(tensor) == "FLOAT32"]
    for tensor in unread:
        tensor.type = _TYPES[io]
        tensor.quantization = _scale(1.0, 0)
    return editor.pack() if unread else model


def _scale(scale: float, zero_point: int) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.array([scale], np.float32)
    parameters.zeroPoint = np.array([zero_point], np.int64)
    return parameters
