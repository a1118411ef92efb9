"""Float regions of a mixed-precision model: its operations, and the regions with the fewest conversions."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model

_PRODUCTS = frozenset({"BATCH_MATMUL", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
"""Operations that do the work of a model, also where their weights are not constants."""
_UNCUT = 1 << 30
"""The capacity of an edge that no cut goes through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a model's main graph.

    Attributes:
        index: position in the order of execution.
        op: its kind in the .tflite schema, for example `CONV_2D`.
        name: the name of its first output tensor, by which `Recipe.float_ops` refers to it.
        sources: indices of the operations whose outputs it reads.
        weighted: whether it multiplies matrices, or reads float constants with more than one axis.
        reads, writes: the float tensors that it reads and computes, without constants.
        ends: those of `writes` that are outputs of the graph.
    """

    index: int
    op: str
    name: str
    sources: tuple[int, ...]
    weighted: bool
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


def operations(model: Model) -> tuple[Operation, ...]:
    """Return the operations of the main graph in order of execution."""
    tensors = model.graph.tensors
    ends = set(tflite_file.index_list(model.graph.outputs))
    values = {index for index, _ in tflite_file.activations(model.parsed)}
    producers: dict[int, int] = {}
    result: list[Operation] = []
    for index, operator in enumerate(model.graph.operators):
        read = [i for i in tflite_file.index_list(operator.inputs) if i >= 0]
        written = [i for i in tflite_file.index_list(operator.outputs) if i >= 0]
        names = [tflite_file.tensor_name(tensors[i]) for i in written or read]
        kind = tflite_file.op_name(model.parsed, operator)
        result.append(
            Operation(
                index=index,
                op=kind,
                name=names[0] if names else "",
                sources=tuple(sorted({producers[i] for i in read if i in producers})),
                weighted=kind in _PRODUCTS or any(_is_weight(model.parsed, tensors[i]) for i in read),
                reads=tuple(dict.fromkeys(i for i in read if i in values)),
                writes=tuple(i for i in written if i in values),
                ends=tuple(i for i in written if i in values & ends),
            )
        )
        producers.update(dict.fromkeys(written, index))
    return tuple(result)


def _is_weight(parsed: Any, tensor: Any) -> bool:
    return (
        tflite_file.is_constant(parsed, tensor)
        and tflite_file.type_name(tensor) == "FLOAT32"
        and sum(size > 1 for size in tflite_file.index_list(tensor.shape)) > 1
    )


def fill_gaps(
    ops: Sequence[Operation], float_ops: Collection[int], *, float_ends: bool = False
) -> frozenset[int]:
    """Return the float operations, with those joined to them that save conversions.

    A tensor that an int8 operation computes and a float one reads needs a DEQUANTIZE, and the reverse a
    QUANTIZE. Operations without weights may become float too. Of all such choices, the result has the fewest
    conversions, and of those with equally many the fewest float operations.

    Args:
        float_ops: indices of the operations that stay float.
        float_ends: whether the inputs and outputs of the model are float32, not integers.
    """
    chosen = [op for op in ops if op.index in float_ops]
    if not chosen:
        return frozenset()
    network = _network(ops, float_ops, float_ends=float_ends)
    seeds: list[_Node] = [("op", op.index) for op in chosen]
    reached = network.source_side([*seeds, ("float", 0)] if float_ends else seeds)
    return frozenset(op.index for op in ops if ("op", op.index) in reached)


_Node = tuple[str, int]
_SINK: _Node = ("integer", 0)


def _network(ops: Sequence[Operation], float_ops: Collection[int], *, float_ends: bool) -> _Network:
    """Return the network whose cuts are the choices of float operations, with a capacity per conversion.

    A node on the side of the source is float. Each float tensor has a node for its DEQUANTIZE, which the
    float operations pull to their side, and one for its QUANTIZE, which pulls its readers.
    """
    network = _Network()
    ends: _Node = ("float", 0) if float_ends else _SINK
    producers: dict[int, _Node] = {tensor: ("op", op.index) for op in ops for tensor in op.writes}
    for op in ops:
        node: _Node = ("op", op.index)
        if op.weighted and op.index not in float_ops:
            network.add(node, _SINK, _UNCUT)
        for tensor in op.reads:
            _add_reader(network, tensor, node, producers.get(tensor, ends))
        for tensor in op.ends:
            _add_reader(network, tensor, ends, node)
    return network


def _add_reader(network: _Network, tensor: int, reader: _Node, producer: _Node) -> None:
    network.add(reader, ("dequantize", tensor), _UNCUT)
    network.add(("dequantize", tensor), producer, 1, once=True)
    network.add(producer, ("quantize", tensor), 1, once=True)
    network.add(("quantize", tensor), reader, _UNCUT)


class _Network:
    """A flow network with small integer capacities."""

    def __init__(self) -> None:
        self._capacity: dict[_Node, dict[_Node, int]] = {_SINK: {}}

    def add(self, start: _Node, end: _Node, capacity: int, *, once: bool = False) -> None:
        """Add an edge; with `once`, an edge that is there already keeps its capacity."""
        edges = self._capacity.setdefault(start, {})
        if not (once and edges.get(end)):
            edges[end] = edges.get(end, 0) + capacity
        self._capacity.setdefault(end, {}).setdefault(start, 0)

    def source_side(self, seeds: Sequence[_Node]) -> frozenset[_Node]:
        """Return the source's side of the smallest cut, and of equal ones that with the fewest nodes.

        Args:
            seeds: nodes that the source pulls to its side.
        """
        # What cannot reach the sink never can again: no later path enters it.
        closed: set[_Node] = set()
        for seed in seeds:
            while seed not in closed:
                path, visited = self._path(seed, closed)
                if not path:
                    closed |= visited
                for start, end in itertools.pairwise(path):
                    self._capacity[start][end] -= 1
                    self._capacity[end][start] += 1
        return frozenset(closed)

    def _path(self, seed: _Node, closed: Collection[_Node]) -> tuple[list[_Node], set[_Node]]:
        """Return (a path with free capacity to the sink, empty without one; the nodes that were seen)."""
        visited = {seed}
        path = [seed]
        waiting = [iter(self._capacity.get(seed, {}).items())]
        while waiting:
            for node, free in waiting[-1]:
                if free <= 0 or node in visited or node in closed:
                    continue
                path.append(node)
                if node == _SINK:
                    return path, visited
                visited.add(node)
                waiting.append(iter(list(self._capacity[node].items())))
                break
            else:
                waiting.pop()
                path.pop()
        return [], visited


def conversions(ops: Sequence[Operation], float_ops: Collection[int], *, float_ends: bool = False) -> int:
    """Return how many QUANTIZE and DEQUANTIZE a model needs whose other operations are int8.

    Args:
        float_ends: whether the inputs and outputs of the model are float32, not integers.
    """
    producers = {tensor: op.index in float_ops for op in ops for tensor in op.writes}
    needed: set[tuple[int, bool]] = set()
    for op in ops:
        needed.update(
            (tensor, op.index in float_ops)
            for tensor in op.reads
            if producers.get(tensor, float_ends) != (op.index in float_ops)
        )
        needed.update((tensor, float_ends) for tensor in op.ends if (op.index in float_ops) != float_ends)
    return len(needed)
