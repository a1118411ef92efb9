"""Count the operations of a model by kind and by the scheme that each computes in."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.graph import op_report, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.kernels import KernelUse
from edgeq_converters.values import Scheme


def kernel_uses(model: Model) -> tuple[KernelUse, ...]:
    """Return the operations of a written model, without conversions and those on indices alone."""
    parsed = model.parsed
    names: dict[tuple[str, Scheme], list[str]] = {}
    work: dict[tuple[str, Scheme], float] = {}
    for graph in parsed.subgraphs:
        halves = _widened(parsed, graph)
        for operator in graph.operators:
            kind = tflite_file.op_name(parsed, operator)
            scheme = None if kind in op_report.CONVERSIONS else _scheme(parsed, graph, operator, halves)
            if scheme is None:
                continue
            key = (kind, scheme)
            names.setdefault(key, []).append(tflite_file.operation_name(graph, operator))
            work[key] = work.get(key, 0.0) + _multiplications(parsed, graph, operator, kind)
    total = sum(work.values()) or 1.0
    return tuple(
        KernelUse(operation=kind, scheme=scheme, names=tuple(each), work=work[kind, scheme] / total)
        for (kind, scheme), each in names.items()
    )


def _widened(parsed: Any, graph: Any) -> set[int]:
    """Return the tensors that a DEQUANTIZE makes of float16 weights."""
    return {
        int(operator.outputs[0])
        for operator in graph.operators
        if tflite_file.op_name(parsed, operator) == "DEQUANTIZE"
        and tflite_file.type_name(graph.tensors[int(operator.inputs[0])]) == "FLOAT16"
    }


def _scheme(parsed: Any, graph: Any, operator: Any, halves: set[int]) -> Scheme | None:
    """Return the scheme that an operation computes in; None where it has no real values."""
    indices = tflite_file.tensor_indices(operator)
    constant = {i for i in indices if tflite_file.is_constant(parsed, graph.tensors[i])}
    values = {tflite_file.type_name(graph.tensors[i]) for i in indices if i not in constant | halves}
    weights = {tflite_file.type_name(graph.tensors[i]) for i in constant}
    quantized = any(tflite_file.is_quantized(graph.tensors[i]) for i in indices)
    if "FLOAT32" in values:
        if weights & {"INT8", "INT4"} and quantized:
            return Scheme.DYNAMIC
        return Scheme.FLOAT16 if halves.intersection(indices) or "FLOAT16" in weights else Scheme.FLOAT32
    if not quantized:
        return None
    if "INT16" in values:
        return Scheme.INT16X8
    return Scheme.INT4 if "INT4" in weights else Scheme.INT8


def _multiplications(parsed: Any, graph: Any, operator: Any, kind: str) -> float:
    """Return roughly how many multiplications an operation does for one sample; at least one a result."""
    first = tflite_file.first_output(operator)
    outputs = 1.0 if first is None else _size(graph.tensors[first])
    inputs = [graph.tensors[int(index)] for index in operator.inputs if index >= 0]
    if kind == "BATCH_MATMUL" and inputs and inputs[0].shape is not None:
        return outputs * max(int(inputs[0].shape[-1]), 1)
    if kind not in _PER_WEIGHT or len(inputs) < 2 or first is None:
        return outputs
    axis = -1 if kind == "DEPTHWISE_CONV_2D" else 0
    shape = inputs[1].shape
    return (
        outputs * _size(inputs[1]) / max(int(shape[axis]), 1) if shape is not None and len(shape) else outputs
    )


_PER_WEIGHT = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
"""Operations whose second input holds the weights, those of each output channel along one axis."""


def _size(tensor: Any) -> float:
    shape = tensor.shape
    return 1.0 if shape is None else float(np.prod([max(int(size), 1) for size in shape]))
