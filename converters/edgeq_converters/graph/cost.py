"""What it takes to walk a model: whether it can be done, its multiplications, its activations' memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.layers import read

_NESTED = frozenset({"WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE", "CUSTOM"})


def obstacle(model: Any) -> str | None:
    """Return why a model's operations cannot be run one by one; None where they can."""
    if len(model.subgraphs) != 1:
        return f"the model has {len(model.subgraphs)} subgraphs"
    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = tflite_file.op_name(model, operator)
        if name.split()[0] in _NESTED:
            return f"{name} calls what lies outside of the graph"
        if any(graph.tensors[i].isVariable for i in tflite_file.tensor_indices(operator)):
            return f"{name} keeps state from one inference to the next"
    return None


def macs(model: Any) -> int:
    """Return the multiplications of one inference in the weighted operations."""
    graph = model.subgraphs[0]
    total = 0
    for operator in graph.operators:
        layer = read(model, operator)
        if layer is not None:
            total += _size(graph.tensors[layer.target]) * layer.fan_in
    return total


def memory_per_sample(model: Any) -> int:
    """Return the bytes of activations that a float and an int8 walk hold at once at the worst, one sample."""
    graph = model.subgraphs[0]
    last = {int(i): place for place, op in enumerate(graph.operators) for i in op.inputs if i >= 0}
    born = {int(i): place for place, op in enumerate(graph.operators) for i in op.outputs}
    change = np.zeros(len(graph.operators) + 2, np.int64)
    for index, tensor in enumerate(graph.tensors):
        if index in last and not tflite_file.is_constant(model, tensor):
            change[born.get(index, 0)] += _size(tensor) * 5
            change[last[index] + 1] -= _size(tensor) * 5
    return int(np.cumsum(change).max(initial=0))


def _size(tensor: Any) -> int:
    return int(np.prod([max(int(size), 1) for size in tensor.shape])) if tensor.shape is not None else 1
