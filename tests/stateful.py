"""TFLite models that keep state, written tensor by tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.converters.graphs import Graph

START = (1.0, 2.0)
MEMORY = 3
_HANDLE: dict[str, Any] = {"options": "VarHandleOptions", "container": b"", "sharedName": b"total"}


def samples() -> Any:
    """Return samples for these models, shape (6, 2)."""
    return np.arange(1, 13, dtype=np.float32).reshape(6, 2)


def accumulator(gain: float = 1.0, start: tuple[float, ...] = START, *, initialized: bool = True) -> bytes:
    """Return a model whose answer is its variable after `gain` times the input was added to it.

    Args:
        start: the value of the variable at first.
        initialized: whether CALL_ONCE gives the variable its first value.
    """
    width = len(start)
    built = Graph()
    x = built.tensor("x", (1, width))
    factor = built.tensor("factor", (1, width), values=np.full((1, width), gain))
    scaled, before = built.tensor("scaled", (1, width)), built.tensor("before", (1, width))
    total, handle = built.tensor("total", (1, width)), built.tensor("handle", ())
    built.graph.tensors[handle].type = schema.TensorType.RESOURCE
    if initialized:
        built.op("CALL_ONCE", [], [], options="CallOnceOptions", initSubgraphIndex=1)
    built.op("VAR_HANDLE", [], [handle], **_HANDLE)
    built.op("READ_VARIABLE", [handle], [before], options="ReadVariableOptions")
    built.op("MUL", [x, factor], [scaled], options="MulOptions")
    built.op("ADD", [before, scaled], [total], options="AddOptions")
    built.op("ASSIGN_VARIABLE", [handle, total], [], options="AssignVariableOptions")
    built.graph.inputs, built.graph.outputs = [x], [total]
    _first_value(built, start)
    return built.data()


def constant_variable() -> bytes:
    """Return a model that adds a variable which no inference changes."""
    built = Graph()
    x, value = built.tensor("x", (1, 2)), built.tensor("value", (1, 2))
    y, handle = built.tensor("y", (1, 2)), built.tensor("handle", ())
    built.graph.tensors[handle].type = schema.TensorType.RESOURCE
    built.op("CALL_ONCE", [], [], options="CallOnceOptions", initSubgraphIndex=1)
    built.op("VAR_HANDLE", [], [handle], **_HANDLE)
    built.op("READ_VARIABLE", [handle], [value], options="ReadVariableOptions")
    built.op("ADD", [x, value], [y], options="AddOptions")
    built.ends([x], [y])
    _first_value(built, START)
    return built.data()


def svdf(width: int = 2, *, gain: float = 1.0) -> bytes:
    """Return a model whose answer is `gain` times the sum of its inputs, over the last MEMORY calls."""
    built = Graph()
    x = built.tensor("x", (1, width))
    feature = built.tensor("feature", (width, width), values=np.eye(width) * gain)
    weights = built.tensor("weights", (width, MEMORY), values=np.ones((width, MEMORY)))
    state = built.tensor("state", (1, MEMORY * width))
    built.graph.tensors[state].isVariable = True
    y = built.tensor("y", (1, width))
    built.op("SVDF", [x, feature, weights, -1, state], [y], options="SVDFOptions", rank=1)
    built.graph.inputs, built.graph.outputs = [x], [y]
    return built.data()


def stateless(width: int = 2) -> bytes:
    """Return a model that doubles its input."""
    built = Graph()
    x, y = built.tensor("x", (1, width)), built.tensor("y", (1, width))
    built.op("ADD", [x, x], [y], options="AddOptions")
    built.graph.inputs, built.graph.outputs = [x], [y]
    return built.data()


def _first_value(built: Graph, start: tuple[float, ...]) -> None:
    """Add the graph that CALL_ONCE runs."""
    main, built.graph = built.graph, schema.SubGraphT()
    built.graph.tensors, built.graph.operators, built.graph.inputs, built.graph.outputs = [], [], [], []
    handle = built.tensor("handle", ())
    built.graph.tensors[handle].type = schema.TensorType.RESOURCE
    first = built.tensor("first", (1, len(start)), values=[start])
    built.op("VAR_HANDLE", [], [handle], **_HANDLE)
    built.op("ASSIGN_VARIABLE", [handle, first], [], options="AssignVariableOptions")
    built.model.subgraphs.append(built.graph)
    built.graph = main
