"""Groups of activations that must share one scale, because operations only move values between them."""

from __future__ import annotations

from collections.abc import Mapping

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model

_MOVING = frozenset(
    {
        "AVERAGE_POOL_2D", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "DYNAMIC_UPDATE_SLICE",
        "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PACK",
        "PAD", "PADV2", "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SELECT",
        "SELECT_V2", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip
"""Operations whose int8 kernels require inputs and outputs of one scale; both quantizers comply."""


def scale_groups(model: Model) -> Mapping[str, tuple[str, ...]]:
    """Return {activation: the activations whose values decide the scale that it shares}, by tensor name.

    Those are the members of its group that no moving operation computes: their ranges hold those of the
    others.
    """
    names = {
        index: tflite_file.tensor_name(tensor) for index, tensor in tflite_file.activations(model.parsed)
    }
    parent = {index: index for index in names}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    moved: set[int] = set()
    for operator in model.graph.operators:
        if tflite_file.op_name(model.parsed, operator) in _MOVING:
            tied = [i for i in tflite_file.tensor_indices(operator) if i in names]
            for index in tied[1:]:
                parent[root(index)] = root(tied[0])
            moved.update(int(i) for i in operator.outputs)
    deciding: dict[int, list[str]] = {}
    for index, name in names.items():
        if index not in moved:
            deciding.setdefault(root(index), []).append(name)
    return {name: tuple(deciding.get(root(index), [name])) for index, name in names.items()}
