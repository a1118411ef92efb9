"""TFLite models of one time step, whose state is an input and an output, written operation by operation."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.converters.graphs import Graph

WIDTH, UNITS, ANSWERS = 4, 8, 3


def gru(*, names: tuple[str, str] = ("h_in", "h_out"), seed: int = 0) -> bytes:
    """Return a GRU cell (1, WIDTH) with a state (1, UNITS) and a layer on the state."""
    graph = Graph()
    random = np.random.default_rng(seed)
    x, h = graph.tensor("x", (1, WIDTH)), graph.tensor(names[0], (1, UNITS))

    def layer(source: int, width: int, name: str, kind: str | None = None) -> int:
        size = int(graph.graph.tensors[source].shape[-1])
        weights = graph.tensor(
            f"{name}.w", (width, size), values=random.normal(size=(width, size)) * size**-0.5 * 1.5
        )
        bias = graph.tensor(f"{name}.b", (width,), values=random.normal(size=width) * 0.2)
        out = graph.tensor(name, (1, width))
        graph.op("FULLY_CONNECTED", [source, weights, bias], [out], options="FullyConnectedOptions")
        if kind is None:
            return out
        squashed = graph.tensor(f"{name}.{kind}", (1, width))
        graph.op(kind, [out], [squashed])
        return squashed

    def both(kind: str, one: int, other: int, name: str) -> int:
        out = graph.tensor(name, (1, UNITS))
        options = {"options": f"{kind.capitalize()}Options"}
        graph.op(kind, [one, other], [out], **options)
        return out

    def joined(state: int, name: str) -> int:
        out = graph.tensor(name, (1, WIDTH + UNITS))
        graph.op("CONCATENATION", [x, state], [out], options="ConcatenationOptions", axis=1)
        return out

    seen = joined(h, "seen")
    update, reset = layer(seen, UNITS, "update", "LOGISTIC"), layer(seen, UNITS, "reset", "LOGISTIC")
    new = layer(joined(both("MUL", reset, h, "reset h"), "seen again"), UNITS, "new", "TANH")
    one = graph.tensor("one", (1, UNITS), values=np.ones((1, UNITS)))
    kept, added = (
        both("MUL", update, h, "kept"),
        both("MUL", both("SUB", one, update, "rest"), new, "added"),
    )
    following = both("ADD", kept, added, names[1])
    return signed(graph, {"x": x, names[0]: h}, {"y": layer(following, ANSWERS, "y"), names[1]: following})


def rnn() -> bytes:
    """Return a plain recurrent cell: its state is a TANH, to whose output the kernel gives a scale."""
    graph = Graph()
    random = np.random.default_rng(1)
    x, h = graph.tensor("x", (1, WIDTH)), graph.tensor("state", (1, UNITS))
    seen, total = graph.tensor("seen", (1, WIDTH + UNITS)), graph.tensor("total", (1, UNITS))
    graph.op("CONCATENATION", [x, h], [seen], options="ConcatenationOptions", axis=1)
    weights = graph.tensor(
        "w", (UNITS, WIDTH + UNITS), values=random.normal(size=(UNITS, WIDTH + UNITS)) * 0.4
    )
    graph.op("FULLY_CONNECTED", [seen, weights, -1], [total], options="FullyConnectedOptions")
    following, y = graph.tensor("stateN", (1, UNITS)), graph.tensor("y", (1, ANSWERS))
    graph.op("TANH", [total], [following])
    heads = graph.tensor("heads", (ANSWERS, UNITS), values=random.normal(size=(ANSWERS, UNITS)))
    graph.op("FULLY_CONNECTED", [following, heads, -1], [y], options="FullyConnectedOptions")
    return signed(graph, {"x": x, "state": h}, {"y": y, "stateN": following})


def signed(graph: Graph, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
    """Return the model of a graph with these names of its inputs and outputs."""
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    for side, named in (("inputs", inputs), ("outputs", outputs)):
        entries = []
        for name, index in named.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), index
            entries.append(entry)
        setattr(signature, side, entries)
    graph.model.signatureDefs = [signature]
    return graph.ends(list(inputs.values()), list(outputs.values())).data()


def sequences(count: int, steps: int, *, seed: int = 0) -> Any:
    """Return inputs of shape (count, steps, WIDTH) that change slowly from step to step."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(count, steps, WIDTH))
    slow = np.cumsum(random.normal(size=(count, steps, WIDTH)) * 0.3, axis=1)
    return (noise * 0.5 + slow).astype(np.float32)
