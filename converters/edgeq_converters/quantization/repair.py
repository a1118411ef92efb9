"""Repair what quantizers leave in an integer model that no kernel takes."""

from __future__ import annotations

import copy

import numpy as np

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model


def repaired(model: Model) -> Model:
    """Return the model without these faults; the same value where it has none.

    - An output that nothing reads stays float32 while the operation's other outputs are integers: the forget
      gate of the first step of an unrolled LSTM, a part of a SPLIT that is not used.
    - An int16 activation has the zero point -1. Of a range -w to w, a quantizer computes -0.5 and may round
      it so; half a step of 65535 does not matter, but no kernel takes another zero point than 0.
    """
    editor = Editor(model)
    changed = False
    for graph in editor.parsed.subgraphs:
        read = {int(i) for operator in graph.operators for i in operator.inputs}
        read.update(tflite_file.index_list(graph.outputs))
        for operator in graph.operators:
            outputs = [graph.tensors[i] for i in tflite_file.index_list(operator.outputs) if i >= 0]
            integer = next((t for t in outputs if tflite_file.type_name(t) in {"INT8", "INT16"}), None)
            for index in tflite_file.index_list(operator.outputs):
                tensor = graph.tensors[index]
                if integer is not None and index not in read and tflite_file.type_name(tensor) == "FLOAT32":
                    tensor.type, tensor.quantization = integer.type, copy.deepcopy(integer.quantization)
                    changed = True
        for tensor in graph.tensors:
            pair = tflite_file.quantization(tensor)
            if tflite_file.type_name(tensor) == "INT16" and pair is not None and abs(pair[1]) == 1:
                tensor.quantization.zeroPoint = np.zeros(1, np.int64)
                changed = True
    return editor.pack() if changed else model
