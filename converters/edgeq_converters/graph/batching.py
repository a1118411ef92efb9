"""Let a part of a graph compute several samples in one run, where its operations treat samples apart."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file

KINDS = frozenset(
    {
        "ABS",
        "ADD",
        "AVERAGE_POOL_2D",
        "CAST",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "DEQUANTIZE",
        "DIV",
        "ELU",
        "EXP",
        "GELU",
        "HARD_SWISH",
        "L2_POOL_2D",
        "LEAKY_RELU",
        "LOGISTIC",
        "LOG_SOFTMAX",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MINIMUM",
        "MUL",
        "PRELU",
        "QUANTIZE",
        "RELU",
        "RELU6",
        "RELU_0_TO_1",
        "RELU_N1_TO_1",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "RSQRT",
        "SOFTMAX",
        "SQRT",
        "SQUARE",
        "SQUARED_DIFFERENCE",
        "SUB",
        "TANH",
    }
)
"""Operations whose output for a sample depends on that sample alone, whatever the size of the batch."""
_BROADCASTING = frozenset({"ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "PRELU", "SQUARED_DIFFERENCE", "SUB"})


def is_possible(parsed: Any, operators: Sequence[Any]) -> bool:
    """Return whether operations of the main graph compute samples apart, with a batch of one as first axis.

    The rank of all varying tensors is at least two, because a fully connected layer or a softmax of a vector
    has no axis of samples.
    """
    return all(_is_apart(parsed, operator) for operator in operators)


def widen(parsed: Any, size: int) -> None:
    """Give all varying tensors of the main graph a batch of `size` samples, in place.

    Args:
        parsed: a model of whose operations `is_possible` holds.
    """
    main = parsed.subgraphs[0]
    for tensor in main.tensors:
        if not tflite_file.is_constant(parsed, tensor):
            tensor.shape = np.array([size, *tflite_file.index_list(tensor.shape)[1:]], np.int32)
            tensor.shapeSignature = None
    for operator in main.operators:
        if tflite_file.op_name(parsed, operator) != "RESHAPE":
            continue
        shape = main.tensors[int(operator.outputs[0])].shape
        operator.builtinOptions = schema.ReshapeOptionsT()
        operator.builtinOptions.newShape = shape
        operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
        if len(operator.inputs) > 1:
            target = copy.copy(main.tensors[int(operator.inputs[1])])
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(shape, "<i4").tobytes(), np.uint8)
            parsed.buffers.append(buffer)
            target.buffer = len(parsed.buffers) - 1
            main.tensors.append(target)
            operator.inputs = np.array([int(operator.inputs[0]), len(main.tensors) - 1], np.int32)


def _is_apart(parsed: Any, operator: Any) -> bool:
    graph = parsed.subgraphs[0]
    name = tflite_file.op_name(parsed, operator)
    inputs = [graph.tensors[int(i)] for i in operator.inputs if int(i) >= 0]
    constants = [tensor for tensor in inputs if tflite_file.is_constant(parsed, tensor)]
    outputs = [graph.tensors[int(i)] for i in operator.outputs]
    varying = [tensor for tensor in (*inputs, *outputs) if not tflite_file.is_constant(parsed, tensor)]
    shapes = [tflite_file.index_list(tensor.shape) for tensor in varying]
    if any(len(shape) < 2 or shape[0] != 1 for shape in shapes) or len(varying) == len(outputs):
        return False
    rank = len(shapes[-1])
    if name in _BROADCASTING:
        # A constant of full rank must not have samples of its own, and inputs of fewer axes would align
        # their samples with another axis of the output.
        sizes = [tflite_file.index_list(tensor.shape) for tensor in constants]
        return all(len(shape) == rank for shape in shapes) and all(
            len(size) < rank or (len(size) == rank and size[0] == 1) for size in sizes
        )
    if name == "FULLY_CONNECTED":
        first = tflite_file.index_list(inputs[0].shape)
        return len(constants) == len(inputs) - 1 and len(first) == 2 and rank == 2
    if name == "GATHER":
        # A table of single values, of which each index of a sample takes one.
        return constants == inputs[:1] and len(tflite_file.index_list(inputs[0].shape)) == 1
    if name == "CONCATENATION":
        axis = operator.builtinOptions.axis
        return not constants and (axis if axis >= 0 else axis + rank) > 0
    if name == "RESHAPE":
        return len(constants) == len(inputs) - 1 and _parameters_are_static(inputs[1:], "INT32")
    if name == "MEAN":
        return len(constants) == 1 and _axes_apart(parsed, inputs[1])
    return name in KINDS


def _parameters_are_static(parameters: Sequence[Any], kind: str) -> bool:
    return all(tflite_file.type_name(tensor) == kind for tensor in parameters)


def _axes_apart(parsed: Any, axes: Any) -> bool:
    # A negative axis may be that of the samples; converters write the others.
    stored = np.asarray(parsed.buffers[axes.buffer].data, np.uint8).tobytes()
    return bool((np.frombuffer(stored, "<i4") > 0).all())
