"""Coral's table of supported operations with their known limitations (compiler 16, runtime 14).

Source: https://coral.ai/docs/edgetpu/models-intro/#supported-operations. Limitations that the page calls
possible ("might not be mapped") are not applied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file

_INTEGERS = {"INT8", "UINT8"}
_SOFTMAX_ELEMENTS = 16_000
Rule = Callable[[Any, Any, Any], str | None]


def why_not(parsed: Any, graph: Any, operator: Any, name: str) -> str | None:
    """Return why the Edge TPU does not support the operation, or None if it does."""
    if name.startswith("CUSTOM"):
        return "custom operations are not supported"
    if name not in _RULES:
        return "the operation is not in Coral's table"
    kinds = {_kind(graph, i) for i in (*_given(operator)[:1], *operator.outputs)}
    if name in _DATA_FIRST:
        kinds = {_kind(graph, i) for i in (_given(operator)[_DATA_FIRST[name]], *operator.outputs)}
    wrong = sorted(kinds - _INTEGERS)
    if wrong:
        return f"works on {', '.join(wrong).lower()}; only 8-bit integers are supported"
    for index in (*_given(operator), *operator.outputs):
        sizes = shape(graph, index)
        if any(size < 1 for size in _signature(graph, index)):
            return "a tensor has a dynamic shape"
        if any(size > 1 for size in sizes[:-3]) and not _is_constant(parsed, graph, index):
            return f"a tensor of shape {sizes}: only the three innermost dimensions may be larger than 1"
    rule = _RULES[name]
    return rule(parsed, graph, operator) if rule else None


def risks(parsed: Any, graph: Any) -> Iterator[str]:
    """Yield what compiler version 16 (2021) is known to reject although the table allows it."""
    newest = {
        tflite_file.op_name(parsed, operator): int(parsed.operatorCodes[operator.opcodeIndex].version)
        for operator in graph.operators
    }
    if newest.get("QUANTIZE", 1) > 2:
        version = newest["QUANTIZE"]
        yield f"QUANTIZE has version {version}; compiler 16.0 supports up to 2 (google-coral/edgetpu#879)"
    dense = [op for op in graph.operators if tflite_file.op_name(parsed, op) == "FULLY_CONNECTED"]
    per_channel = sum(_scales(graph, op.inputs[1]) > 1 for op in dense)
    if per_channel:
        yield (
            f"{per_channel} FULLY_CONNECTED with per-channel scales: newer than the compiler, which may "
            "require one scale"
        )


def shape(graph: Any, index: int) -> tuple[int, ...]:
    """Return a tensor's sizes."""
    sizes = graph.tensors[index].shape
    return () if sizes is None else tuple(int(size) for size in sizes)


def _signature(graph: Any, index: int) -> tuple[int, ...]:
    # A dynamic batch is -1 in the signature and 1 in the shape; the compiler uses the 1.
    sizes = graph.tensors[index].shapeSignature
    return () if sizes is None else tuple(int(size) for size in sizes)[1:]


def _given(operator: Any) -> list[int]:
    return [int(i) for i in operator.inputs if i >= 0]


def _kind(graph: Any, index: int) -> str:
    return tflite_file.type_name(graph.tensors[index])


def _scales(graph: Any, index: int) -> int:
    parameters = graph.tensors[index].quantization
    return 0 if parameters is None or parameters.scale is None else len(parameters.scale)


def _is_constant(parsed: Any, graph: Any, index: int) -> bool:
    return tflite_file.is_constant(parsed, graph.tensors[index])


def _values(parsed: Any, graph: Any, index: int) -> npt.NDArray[Any] | None:
    tensor = graph.tensors[index]
    if not tflite_file.is_constant(parsed, tensor):
        return None
    kinds = {"INT32": np.int32, "INT64": np.int64, "INT8": np.int8, "UINT8": np.uint8}
    dtype = kinds.get(tflite_file.type_name(tensor))
    data = parsed.buffers[tensor.buffer].data
    return None if dtype is None else np.frombuffer(memoryview(data), dtype)


def _axes(parsed: Any, graph: Any, operator: Any, which: int, rank: int) -> set[int] | None:
    values = _values(parsed, graph, operator.inputs[which])
    return None if values is None else {int(axis) % max(rank, 1) for axis in values}


def _no_activation(_parsed: Any, _graph: Any, operator: Any) -> str | None:
    fused = operator.builtinOptions.fusedActivationFunction
    return None if fused == schema.ActivationFunctionType.NONE else "has a fused activation function"


def _concatenation(parsed: Any, graph: Any, operator: Any) -> str | None:
    fused = _no_activation(parsed, graph, operator)
    constants = [i for i in _given(operator) if _is_constant(parsed, graph, i)]
    if fused or not constants:
        return fused
    if len(_given(operator)) != 2:
        return "has a constant among more than two inputs"
    values = _values(parsed, graph, constants[0])
    pair = tflite_file.quantization(graph.tensors[constants[0]])
    zero = pair[1] if pair else 0
    return None if values is not None and (values == zero).all() else "its constant input is not all zero"


def _convolution(parsed: Any, graph: Any, operator: Any) -> str | None:
    options = operator.builtinOptions
    if options.dilationWFactor != options.dilationHFactor:
        return "its dilation differs in x and y"
    return _constant_weights(parsed, graph, operator)


def _constant_weights(parsed: Any, graph: Any, operator: Any) -> str | None:
    return None if _is_constant(parsed, graph, operator.inputs[1]) else "its weights are not constant"


def _fully_connected(parsed: Any, graph: Any, operator: Any) -> str | None:
    if operator.builtinOptions.weightsFormat != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        return "its weights are not in the default format"
    output = shape(graph, operator.outputs[0])
    if math.prod(output[:-1]) > 1:
        return f"its output {output} is not one-dimensional"
    return _constant_weights(parsed, graph, operator)


def _mean(parsed: Any, graph: Any, operator: Any) -> str | None:
    sizes = shape(graph, operator.inputs[0])
    axes = _axes(parsed, graph, operator, 1, len(sizes))
    if axes is None:
        return "its axes are not constant"
    if 0 in axes and len(sizes) > 1:
        return "reduces the batch dimension"
    if len(sizes) - 1 in axes and sizes[-1] % 4:
        return f"reduces the z dimension, whose size {sizes[-1]} is not a multiple of 4"
    return None


def _not_batch(which: int, what: str) -> Rule:
    def rule(parsed: Any, graph: Any, operator: Any) -> str | None:
        rank = len(shape(graph, operator.inputs[1 - which]))  # the other input holds the values
        axes = _axes(parsed, graph, operator, which, rank)
        if axes is None:
            return "its axes are not constant"
        return f"{what} the batch dimension" if 0 in axes and rank > 1 else None

    return rule


def _pack(_parsed: Any, graph: Any, operator: Any) -> str | None:
    rank = len(shape(graph, operator.outputs[0]))
    return "packs along the batch dimension" if operator.builtinOptions.axis % rank == 0 else None


def _pad(parsed: Any, graph: Any, operator: Any) -> str | None:
    values = _values(parsed, graph, operator.inputs[1])
    if values is None:
        return "its padding is not constant"
    rank = len(shape(graph, operator.inputs[0]))
    return "pads the batch dimension" if rank == 4 and values.reshape(-1, 2)[0].any() else None


def _prelu(_parsed: Any, graph: Any, operator: Any) -> str | None:
    alpha = shape(graph, operator.inputs[1])
    if any(size > 1 for size in alpha[:-1]):
        return f"its alpha {alpha} is not one-dimensional (Keras: shared_axes=[1, 2])"
    return None


def _resize(_parsed: Any, graph: Any, operator: Any) -> str | None:
    sizes = shape(graph, operator.inputs[0])
    return None if len(sizes) <= 4 and math.prod(sizes[:-3]) == 1 else "its input is not three-dimensional"


def _softmax(_parsed: Any, graph: Any, operator: Any) -> str | None:
    sizes = shape(graph, operator.inputs[0])
    if math.prod(sizes[:-1]) > 1:
        return f"its input {sizes} is not one-dimensional"
    if sizes and sizes[-1] > _SOFTMAX_ELEMENTS:
        return f"its input has {sizes[-1]} elements, more than {_SOFTMAX_ELEMENTS}"
    return None


def _strided_slice(parsed: Any, graph: Any, operator: Any) -> str | None:
    options = operator.builtinOptions
    if options.ellipsisMask or options.newAxisMask:
        return "has an ellipsis or a new axis"
    strides = _values(parsed, graph, operator.inputs[3])
    return None if strides is not None and (strides == 1).all() else "has strides other than 1"


# {operation: input with the values}, where a shape or an axis comes first.
_DATA_FIRST = {"SPLIT": 1, "TRANSPOSE_CONV": 2}
_RULES: dict[str, Rule | None] = {
    "ADD": None,
    "AVERAGE_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "EXPAND_DIMS": None,
    "FULLY_CONNECTED": _fully_connected,
    "L2_NORMALIZATION": None,
    "LOGISTIC": None,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": None,
    "MAXIMUM": None,
    "MAX_POOL_2D": _no_activation,
    "MEAN": _mean,
    "MINIMUM": None,
    "MUL": None,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "QUANTIZE": None,
    "REDUCE_MAX": _not_batch(1, "reduces"),
    "REDUCE_MIN": _not_batch(1, "reduces"),
    "RELU": None,
    "RELU6": None,
    "RELU_N1_TO_1": None,
    "RESHAPE": None,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "RSQRT": None,
    "SLICE": None,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": None,
    "SPLIT": _not_batch(0, "splits"),
    "SQUARED_DIFFERENCE": None,
    "SQUEEZE": None,
    "STRIDED_SLICE": _strided_slice,
    "SUB": None,
    "SUM": _not_batch(1, "reduces"),
    "TANH": None,
    "TRANSPOSE": None,
    "TRANSPOSE_CONV": _constant_weights,
}
