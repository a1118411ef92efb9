"""Examples of the rewrites of sums, placements and powers: small graphs that each rule changes."""

from __future__ import annotations

import numpy as np

from .graphs import Graph
from .rewrite_examples import Build, constant, integers, unary


def reshaped(graph: Graph, x: int, shape: tuple[int, ...]) -> int:
    out = graph.tensor(f"reshaped {shape}", shape)
    sizes = integers(graph, f"sizes {shape}", shape)
    graph.op("RESHAPE", [x, sizes], [out], options="ReshapeOptions", newShape=shape)
    return out


def running_sum(axis: int, **options: bool) -> Build:
    def build(graph: Graph, x: int) -> int:
        out = graph.tensor("out", (2, 6))
        graph.op("CUMSUM", [x, integers(graph, "axis", axis)], [out], options="CumsumOptions", **options)
        return out

    return build


def segments(kind: str) -> Build:
    """Return sums of the rows of a tensor of shape (6, 2)."""

    def build(graph: Graph, x: int) -> int:
        rows = reshaped(graph, x, (6, 2))
        out = graph.tensor("out", (3, 2))
        ids = [0, 0, 1, 2, 2, 2] if kind == "SEGMENT_SUM" else [2, 0, 1, 2, 0, -1]
        given = [rows, integers(graph, "ids", ids)]
        if kind != "SEGMENT_SUM":
            given.append(integers(graph, "count", 3))
        graph.op(kind, given, [out])
        return out

    return build


def many(graph: Graph, x: int) -> int:
    terms = [x, unary(graph, "TANH", x, "tanh"), unary(graph, "RELU", x, "relu")]
    out = graph.tensor("out", (2, 6))
    graph.op("ADD_N", terms, [out])
    return out


def scattered(graph: Graph, x: int) -> int:
    places = integers(graph, "places", [[3], [1]])
    out = graph.tensor("out", (5, 6))
    graph.op("SCATTER_ND", [places, x, integers(graph, "shape", [5, 6])], [out])
    return out


def scattered_singly(graph: Graph, x: int) -> int:
    places = [[[row, 2 * column] for column in range(6)] for row in (2, 0)]
    out = graph.tensor("out", (3, 12))
    graph.op("SCATTER_ND", [integers(graph, "places", places), x, integers(graph, "shape", [3, 12])], [out])
    return out


def diagonal(graph: Graph, x: int) -> int:
    out = graph.tensor("out", (2, 6, 6))
    graph.op("MATRIX_DIAG", [x], [out])
    return out


def reversed_parts(steps: int) -> Build:
    def build(graph: Graph, x: int) -> int:
        shape = (2, 3, 2) if steps == 1 else (3, 2, 2)
        values = reshaped(graph, x, shape)
        out = graph.tensor("out", shape)
        graph.op(
            "REVERSE_SEQUENCE", [values, integers(graph, "lengths", [2, 3])], [out],
            options="ReverseSequenceOptions", seqDim=steps, batchDim=1 - steps,
        )  # fmt: skip
        return out

    return build


def pooled_squares(graph: Graph, x: int) -> int:
    image = reshaped(graph, x, (1, 2, 3, 2))
    out = graph.tensor("out", (1, 1, 2, 2))
    graph.op(
        "L2_POOL_2D", [image], [out],
        options="Pool2DOptions", filterHeight=2, filterWidth=2, strideH=1, strideW=1, padding=1,
    )  # fmt: skip
    return out


def responses(graph: Graph, x: int) -> int:
    image = reshaped(graph, x, (1, 1, 2, 6))
    out = graph.tensor("out", (1, 1, 2, 6))
    graph.op(
        "LOCAL_RESPONSE_NORMALIZATION", [image], [out],
        options="LocalResponseNormalizationOptions", radius=2, bias=1.5, alpha=0.25, beta=0.75,
    )  # fmt: skip
    return out


def products(place: int, *, turned: bool = False) -> Build:
    """Return the products of two matrices with two constant ones, which are at this place."""

    def build(graph: Graph, x: int) -> int:
        values = reshaped(graph, x, (2, 1, 6) if place else (2, 6, 1))
        sizes = (2, 6, 4) if place else (2, 4, 6)
        matrices = np.random.default_rng(2).normal(size=sizes)
        c = constant(graph, "c", matrices.transpose(0, 2, 1) if turned else matrices)
        out = graph.tensor("out", (2, 1, 4) if place else (2, 4, 1))
        graph.op(
            "BATCH_MATMUL", [values, c] if place else [c, values], [out],
            options="BatchMatMulOptions", adjX=turned and not place, adjY=turned and bool(place),
        )  # fmt: skip
        return out

    return build


EXAMPLES: dict[str, dict[str, Build]] = {
    "reversal of parts by GATHER": {"rows": reversed_parts(1), "columns": reversed_parts(0)},
    "scattering by GATHER": {"rows": scattered, "elements": scattered_singly},
    "diagonal by MUL": {"plain": diagonal},
    "sum of many by ADD": {"three": many},
    "sum by a layer": {
        "last axis": running_sum(-1),
        "first axis": running_sum(0),
        "exclusive": running_sum(1, exclusive=True),
        "reverse": running_sum(1, reverse=True),
        "both": running_sum(1, exclusive=True, reverse=True),
        **{kind: segments(kind) for kind in ("SEGMENT_SUM", "UNSORTED_SEGMENT_SUM")},
    },
    "pooled squares": {"plain": pooled_squares},
    "written-out response normalization": {"plain": responses},
    "products with constants by layers": {
        "x C": products(1), "x C turned": products(1, turned=True),
        "C x": products(0), "C x turned": products(0, turned=True),
    },
}  # fmt: skip
