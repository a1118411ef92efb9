"""Give an integer model the types of inputs and outputs that its recipe names."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.values import IoTypes

_TYPES = {
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "uint8": schema.TensorType.UINT8,
    "float32": schema.TensorType.FLOAT32,
}
_INTEGERS = {"INT8", "INT16"}
_INT8, _BY_SLICES = 2, 5
"""Versions: the first whose kernels convert int8, and that of DEQUANTIZE for a scale per slice."""
_FROM_INT8 = 128
"""A value of int8 is 128 less than the same real value in uint8."""


def with_unread_inputs(model: Model, *, io: str) -> Model:
    """Return the model with the type `io` also for float inputs that no operation reads.

    Quantizers leave such an input in float, so that the model would not have integer inputs only. Its values
    do not matter, and neither does its scale.
    """
    if io not in {"int8", "int16"}:
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


def with_types(model: Model, types: IoTypes) -> Model:
    """Return the model with these types of inputs and outputs; the same value where it has them.

    A QUANTIZE or DEQUANTIZE at the border converts, as TFLiteConverter does it. Inputs and outputs that are
    not quantized (indices, masks) keep their type.

    Args:
        model: an integer model with integer inputs and outputs.
    """
    editor = Editor(model)
    inputs = _convert(editor.parsed, "inputs", types.inputs)
    outputs = _convert(editor.parsed, "outputs", types.outputs)
    if not inputs and not outputs:
        return model
    joined = _join_float_borders(editor.parsed)
    return without_dead(editor.pack()) if joined else editor.pack()


def _join_float_borders(parsed: Any) -> bool:
    """Let float operations at the border read and give the float tensors; return whether any changed.

    Without that, a QUANTIZE and a DEQUANTIZE would follow each other there.
    """
    graph = parsed.subgraphs[0]
    quantized = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if tflite_file.op_name(parsed, operator) == "QUANTIZE"
        and tflite_file.type_name(graph.tensors[int(operator.inputs[0])]) == "FLOAT32"
    }
    real = {
        int(operator.outputs[0]): quantized[int(operator.inputs[0])]
        for operator in graph.operators
        if tflite_file.op_name(parsed, operator) == "DEQUANTIZE" and int(operator.inputs[0]) in quantized
    }
    ends = set(tflite_file.index_list(graph.inputs)), set(tflite_file.index_list(graph.outputs))
    # No tensor becomes an input and an output, or two outputs: a reader of the file may not expect it.
    real = {
        target: source
        for target, source in real.items()
        if (source in ends[0]) != (target in ends[1] and source not in ends[1])
    }
    if not real:
        return False
    for operator in graph.operators:
        operator.inputs = np.array([real.get(int(i), int(i)) for i in operator.inputs], np.int32)
    graph.outputs = np.array([real.get(i, i) for i in tflite_file.index_list(graph.outputs)], np.int32)
    for signature in parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in signature.outputs or []:
                entry.tensorIndex = real.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return True


def _convert(parsed: Any, side: str, kind_name: str) -> bool:
    graph = parsed.subgraphs[0]
    indices = tflite_file.index_list(getattr(graph, side))
    replaced: dict[int, int] = {}
    operators = []
    for index in dict.fromkeys(indices):
        tensor = graph.tensors[index]
        pair = tflite_file.quantization(tensor)
        by_slices = kind_name == "float32" and tflite_file.is_quantized(tensor)
        if tflite_file.type_name(tensor) not in _INTEGERS or tensor.type == _TYPES[kind_name]:
            continue
        if pair is None and not by_slices:
            continue
        outer = schema.TensorT()
        outer.name, outer.shape, outer.buffer = tensor.name, tensor.shape, 0
        outer.shapeSignature, outer.type = tensor.shapeSignature, _TYPES[kind_name]
        if kind_name == "uint8" and pair is not None:
            outer.quantization = _scale(pair[0], pair[1] + _FROM_INT8)
        tensor.name = bytes(tensor.name) + b"_integer"
        graph.tensors.append(outer)
        replaced[index] = len(graph.tensors) - 1
        pair_of = (replaced[index], index) if side == "inputs" else (index, replaced[index])
        kind = "DEQUANTIZE" if kind_name == "float32" and side == "outputs" else "QUANTIZE"
        operators.append(_operator(parsed, kind, *pair_of, version=_INT8 if pair else _BY_SLICES))
    if not replaced:
        return False
    setattr(graph, side, np.array([replaced.get(index, index) for index in indices], np.int32))
    graph.operators = [*operators, *graph.operators] if side == "inputs" else [*graph.operators, *operators]
    for signature in parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in getattr(signature, side) or []:
                entry.tensorIndex = replaced.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return True


def _operator(parsed: Any, kind: str, source: int, target: int, *, version: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(parsed, kind, version)
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
    return operator


def _code(parsed: Any, kind: str, version: int) -> int:
    number = getattr(schema.BuiltinOperator, kind)
    for index, code in enumerate(parsed.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            code.version = max(code.version, version)
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = version
    parsed.operatorCodes.append(code)
    return len(parsed.operatorCodes) - 1


def _scale(scale: float, zero_point: int) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.array([scale], np.float32)
    parameters.zeroPoint = np.array([zero_point], np.int64)
    return parameters
