"""Float islands: the operations of a graph, how they hang together, and which gaps are not worth a border."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq_converters.graph import tflite_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a model's main graph.

    Attributes:
        index: position in the order of execution.
        name: the name of its first output tensor, by which `Recipe.float_ops` calls it.
        sources: indices of the operations whose outputs it reads.
        weighted: whether it has float constants of more than one value.
    """

    index: int
    op: str
    name: str
    sources: tuple[int, ...]
    weighted: bool


def operations(model: Any) -> tuple[Operation, ...]:
    """Return the operations of a parsed model's main graph, in their order of execution."""
    graph = model.subgraphs[0]
    made_by: dict[int, int] = {}
    found: list[Operation] = []
    for index, operator in enumerate(graph.operators):
        read = [int(i) for i in operator.inputs if i >= 0] if operator.inputs is not None else []
        written = [int(i) for i in operator.outputs if i >= 0] if operator.outputs is not None else []
        names = [tflite_file.tensor_name(graph.tensors[i]) for i in written or read]
        found.append(
            Operation(
                index=index,
                op=tflite_file.op_name(model, operator),
                name=names[0] if names else "",
                sources=tuple(sorted({made_by[i] for i in read if i in made_by})),
                weighted=any(_is_weight(model, graph.tensors[i]) for i in read),
            )
        )
        made_by.update(dict.fromkeys(written, index))
    return tuple(found)


def _is_weight(model: Any, tensor: Any) -> bool:
    return (
        tflite_file.is_constant(model, tensor)
        and tflite_file.type_name(tensor) == "FLOAT32"
        and len(model.buffers[tensor.buffer].data) > 4
    )


def closed(ops: Sequence[Operation], islands: Collection[int]) -> frozenset[int]:
    """Return the islands with the gaps between them filled where filling costs nothing.

    An operation without weights whose sources and readers are all float would be reached by a QUANTIZE and
    left by a DEQUANTIZE: float, it needs neither. Repeated until nothing changes.
    """
    readers: dict[int, list[int]] = {operation.index: [] for operation in ops}
    for operation in ops:
        for source in operation.sources:
            readers[source].append(operation.index)
    inside = set(islands)
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
