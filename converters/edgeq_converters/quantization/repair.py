"""Repair what quantizers leave in an integer model that no kernel takes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model

_CONVERSIONS = ("DEQUANTIZE", "QUANTIZE")
_INTEGERS = frozenset({"INT8", "INT16"})
_SMALL = 16 << 20
"""Bytes of a model up to which its zero points are worth a copy."""


def repaired(model: Model) -> Model:
    """Return the model without these faults; the same value where it is large and has none.

    - An output that nothing reads stays float32 while the operation's other outputs are integers: the forget
      gate of the first step of an unrolled LSTM, a part of a SPLIT that is not used.
    - An int16 activation has the zero point -1. Of a range -w to w, a quantizer computes -0.5 and may round
      it so; half a step of 65535 does not matter, but no kernel takes another zero point than 0.
    - An integer operation reads the float32 form of a tensor that is also an output of the model, as the next
      state of a recurrent cell is, or a float operation its integers. Each reads what it computes with.

    A small model is packed in any case, which stores equal zero points once: up to a fifth of its size.
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
        changed = _read_own_types(editor.parsed, graph) or changed
        for tensor in graph.tensors:
            pair = tflite_file.quantization(tensor)
            if tflite_file.type_name(tensor) == "INT16" and pair is not None and abs(pair[1]) == 1:
                tensor.quantization.zeroPoint = np.zeros(1, np.int64)
                changed = True
    return editor.pack() if changed or len(model.data) <= _SMALL else model


def _read_own_types(parsed: Any, graph: Any) -> bool:
    """Let integer operations read what a DEQUANTIZE reads, and float operations what a QUANTIZE reads."""
    sources = {
        kind: {
            int(operator.outputs[0]): int(operator.inputs[0])
            for operator in graph.operators
            if tflite_file.op_name(parsed, operator) == kind
        }
        for kind in _CONVERSIONS
    }
    integers = {
        index: source
        for index, source in sources["DEQUANTIZE"].items()
        if tflite_file.type_name(graph.tensors[source]) in _INTEGERS
    }
    floats = {
        index: source
        for index, source in sources["QUANTIZE"].items()
        if tflite_file.type_name(graph.tensors[source]) == "FLOAT32"
    }
    changed = False
    for operator in graph.operators:
        if tflite_file.op_name(parsed, operator) in _CONVERSIONS:
            continue
        outputs = [graph.tensors[i] for i in tflite_file.index_list(operator.outputs) if i >= 0]
        quantized = any(
            tflite_file.type_name(each) in _INTEGERS and tflite_file.is_quantized(each) for each in outputs
        )
        floating = any(tflite_file.type_name(each) == "FLOAT32" for each in outputs)
        known = integers if quantized else floats if floating else {}
        indices = tflite_file.index_list(operator.inputs)
        if known.keys() & set(indices):
            operator.inputs = np.array([known.get(i, i) for i in indices], np.int32)
            changed = True
    return changed
