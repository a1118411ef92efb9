"""Which activations must share one scale: an operation that only moves values has none of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq_converters.graph import tflite_file

_MOVING = frozenset(
    {
        "AVERAGE_POOL_2D", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "DYNAMIC_UPDATE_SLICE",
        "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PACK",
        "PAD", "PADV2", "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SELECT",
        "SELECT_V2", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip
"""As the int8 kernels require and both quantizers see to."""


def groups(model: Any) -> Mapping[str, tuple[str, ...]]:
    """Return {tensor: the tensors whose values decide the scale that it shares}, by name, of all activations.

    What decides are the tensors that no moving operation made: their ranges hold those of the others.
    """
    graph = model.subgraphs[0]
    names = {index: tflite_file.tensor_name(tensor) for index, tensor in tflite_file.activations(model)}
    parent = {index: index for index in names}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    moved: set[int] = set()
    for operator in graph.operators:
        if tflite_file.op_name(model, operator) in _MOVING:
            tied = [i for i in tflite_file.tensor_indices(operator) if i in names]
            for index in tied[1:]:
                parent[root(index)] = root(tied[0])
            moved.update(int(i) for i in operator.outputs)
    deciding: dict[int, list[str]] = {}
    for index, name in names.items():
        if index not in moved:
            deciding.setdefault(root(index), []).append(name)
    return {name: tuple(deciding.get(root(index), [name])) for index, name in names.items()}
