"""Float regions of a mixed-precision model: its operations, and gaps that are cheaper in float."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a model's main graph.

    Attributes:
        index: position in the order of execution.
        op: its kind in the .tflite schema, for example `CONV_2D`.
        name: the name of its first output tensor, by which `Recipe.float_ops` refers to it.
        sources: indices of the operations whose outputs it reads.
        weighted: whether it reads float constants of more than one value.
    """

    index: int
    op: str
    name: str
    sources: tuple[int, ...]
    weighted: bool


def operations(model: Model) -> tuple[Operation, ...]:
    """Return the operations of the main graph in order of execution."""
    tensors = model.graph.tensors
    producers: dict[int, int] = {}
    result: list[Operation] = []
    for index, operator in enumerate(model.graph.operators):
        read = [i for i in tflite_file.index_list(operator.inputs) if i >= 0]
        written = [i for i in tflite_file.index_list(operator.outputs) if i >= 0]
        names = [tflite_file.tensor_name(tensors[i]) for i in written or read]
        result.append(
            Operation(
                index=index,
                op=tflite_file.op_name(model.parsed, operator),
                name=names[0] if names else "",
                sources=tuple(sorted({producers[i] for i in read if i in producers})),
                weighted=any(_is_weight(model.parsed, tensors[i]) for i in read),
            )
        )
        producers.update(dict.fromkeys(written, index))
    return tuple(result)


def _is_weight(parsed: Any, tensor: Any) -> bool:
    return (
        tflite_file.is_constant(parsed, tensor)
        and tflite_file.type_name(tensor) == "FLOAT32"
        and len(parsed.buffers[tensor.buffer].data) > 4
    )


def fill_gaps(ops: Sequence[Operation], float_ops: Collection[int]) -> frozenset[int]:
    """Return the float operations, together with gaps between them that cost nothing to leave in float.

    An int8 operation without weights between float ones needs a QUANTIZE before it and a DEQUANTIZE after
    it. In float it needs neither. Gaps are filled until nothing changes.

    Args:
        float_ops: indices of the operations that stay float.
    """
    readers: dict[int, list[int]] = {operation.index: [] for operation in ops}
    for operation in ops:
        for source in operation.sources:
            readers[source].append(operation.index)
    inside = set(float_ops)
    while True:
        more = {
            operation.index
            for operation in ops
            if operation.index not in inside
            and not operation.weighted
            and operation.sources
            and readers[operation.index]
            and inside.issuperset(operation.sources)
            and inside.issuperset(readers[operation.index])
        }
        if not more:
            return frozenset(inside)
        inside |= more
