"""Estimate the cost of running a model operation by operation: obstacles, multiplications, memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.layers import read_layer
from edgeq_converters.graph.model import Model

_NESTED = frozenset({"WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE", "CUSTOM"})
_HANDLES = frozenset({"RESOURCE", "VARIANT"})
_BYTES = 5
"""Of one value in a float and an int8 run beside each other."""


def obstacle(model: Model) -> str | None:
    """Return why the operations cannot be run one by one; None where they can."""
    if len(model.parsed.subgraphs) != 1:
        return f"the model has {len(model.parsed.subgraphs)} subgraphs"
    for operator in model.graph.operators:
        name = tflite_file.op_name(model.parsed, operator)
        if name.split()[0] in _NESTED:
            return f"{name} calls code outside the graph"
        if any(model.graph.tensors[i].isVariable for i in tflite_file.tensor_indices(operator)):
            return f"{name} keeps state from one inference to the next"
        if any(
            tflite_file.type_name(model.graph.tensors[i]) in _HANDLES
            for i in tflite_file.tensor_indices(operator)
        ):
            return f"{name} reads or writes a variable"
    return None


def macs(model: Model, *, only: Collection[str] | None = None) -> int:
    """Return the multiply-accumulate operations of one inference in the weighted layers.

    Args:
        only: the names of the operations that count; None counts all.
    """
    total = 0
    for operator in model.graph.operators:
        if only is not None and tflite_file.operation_name(model.graph, operator) not in only:
            continue
        layer = read_layer(model.parsed, operator)
        if layer is not None:
            total += _size(model.graph.tensors[layer.target]) * layer.fan_in
    return total


def memory_per_sample(model: Model) -> int:
    """Return the peak bytes of live activations, for one sample, of a float and an int8 run together."""
    graph = model.graph
    last = {int(i): position for position, op in enumerate(graph.operators) for i in op.inputs if i >= 0}
    born = {int(i): position for position, op in enumerate(graph.operators) for i in op.outputs}
    change = np.zeros(len(graph.operators) + 2, np.int64)
    for index, tensor in enumerate(graph.tensors):
        if index in last and not tflite_file.is_constant(model.parsed, tensor):
            change[born.get(index, 0)] += _size(tensor) * _BYTES
            change[last[index] + 1] -= _size(tensor) * _BYTES
    return int(np.cumsum(change).max(initial=0))


def values_per_sample(model: Model) -> int:
    """Return how many values all activations have together, for one sample."""
    return sum(_size(tensor) for _, tensor in tflite_file.activations(model.parsed))


def _size(tensor: Any) -> int:
    return int(np.prod([max(int(size), 1) for size in tensor.shape])) if tensor.shape is not None else 1
