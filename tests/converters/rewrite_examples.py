"""Examples of the rewrites before integers: for each rule, small graphs that it changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .graphs import Graph

Build = Callable[[Graph, int], int]
"""Adds operations on a tensor of shape (2, 6) with positive and negative values; returns the output."""
SHAPE = (2, 6)
RELU = 1


def binary(
    graph: Graph, kind: str, first: int, second: int, name: str, shape: tuple[int, ...] = SHAPE
) -> int:
    out = graph.tensor(name, shape)
    graph.op(kind, [first, second], [out])
    return out


def unary(graph: Graph, kind: str, source: int, name: str, shape: tuple[int, ...] = SHAPE) -> int:
    out = graph.tensor(name, shape)
    graph.op(kind, [source], [out])
    return out


def mean(graph: Graph, source: int, name: str) -> int:
    axes = graph.tensor(f"{name}.axes", (1,), dtype=np.int32, values=[1])
    out = graph.tensor(name, (SHAPE[0], 1))
    graph.op("MEAN", [source, axes], [out], options="ReducerOptions", keepDims=True)
    return out


def constant(graph: Graph, name: str, values: object) -> int:
    array = np.asarray(values, np.float32)
    return graph.tensor(name, array.shape, values=array)


def statistics(graph: Graph, x: int, squares: str) -> tuple[int, int]:
    """Return (mean, 1 / sqrt(variance + epsilon))."""
    middle = mean(graph, x, "mean")
    if squares == "SQUARED_DIFFERENCE":
        squared = binary(graph, squares, x, middle, "squared")
    else:
        difference = binary(graph, "SUB", x, middle, "difference")
        squared = (
            unary(graph, "SQUARE", difference, "squared")
            if squares == "SQUARE"
            else binary(graph, "MUL", difference, difference, "squared")
        )
    variance = mean(graph, squared, "variance")
    epsilon = constant(graph, "epsilon", 1e-3)
    added = binary(graph, "ADD", epsilon, variance, "added", (2, 1))
    return middle, unary(graph, "RSQRT", added, "root", (2, 1))


def normalization(
    form: str, *, squares: str = "SQUARED_DIFFERENCE", gamma: bool = True, beta: bool = True
) -> Build:
    """Return a normalization; the form is how it writes its offset."""

    def build(graph: Graph, x: int) -> int:
        middle, scale = statistics(graph, x, squares)
        wide: tuple[int, ...] = (2, 1)
        if gamma:
            wide = SHAPE
            scale = binary(graph, "MUL", scale, constant(graph, "gamma", np.linspace(0.5, 2, 6)), "scale")
        scaled = binary(graph, "MUL", x, scale, "scaled")
        if form == "negated":
            term = binary(graph, "MUL", unary(graph, "NEG", middle, "neg", (2, 1)), scale, "term", wide)
        else:
            term = binary(graph, "MUL", middle, scale, "term", wide)
        if form == "late":
            return binary(graph, "SUB", scaled, term, "out")
        if form == "negated product":
            term = unary(graph, "NEG", term, "neg", wide)
        if beta:
            shift = constant(graph, "beta", np.linspace(-1, 1, 6))
            if form == "subtracted":
                term = binary(graph, "SUB", shift, term, "offset")
            else:
                term = binary(graph, "ADD", term, shift, "offset")
        return binary(graph, "ADD", scaled, term, "out")

    return build


def divided_by_root(graph: Graph, x: int) -> int:
    positive = binary(graph, "MUL", x, x, "positive")
    root = unary(graph, "SQRT", binary(graph, "ADD", positive, constant(graph, "one", 1.0), "sum"), "root")
    return binary(graph, "DIV", x, root, "out")


def divided_by_constant(graph: Graph, x: int) -> int:
    out = graph.tensor("out", SHAPE)
    graph.op(
        "DIV", [x, constant(graph, "c", [2.0, -3.0, 0.5, 1.0, 7.0, 255.0])], [out],
        options="DivOptions", fusedActivationFunction=RELU,
    )  # fmt: skip
    return out


def integers(graph: Graph, name: str, values: object) -> int:
    array = np.asarray(values, np.int32)
    return graph.tensor(name, array.shape, dtype=np.int32, values=array)


def loop(graph: Graph, x: int) -> int:
    """Return x / 8, halved by each of three steps of a WHILE."""
    condition, body = graph.subgraph(), graph.subgraph()
    number, total = condition.tensor("n", (), dtype=np.int32), condition.tensor("t", SHAPE)
    holds = condition.tensor("holds", (), dtype=np.bool_)
    condition.op("LESS", [number, integers(condition, "three", 3)], [holds])
    condition.ends([number, total], [holds])
    number, total = body.tensor("n", (), dtype=np.int32), body.tensor("t", SHAPE)
    following = body.tensor("next", (), dtype=np.int32)
    body.op("ADD", [number, integers(body, "one", 1)], [following])
    half = binary(body, "MUL", total, constant(body, "half", 0.5), "half of it")
    body.ends([number, total], [following, half])
    ends = [graph.tensor("end", (), dtype=np.int32), graph.tensor("out", SHAPE)]
    graph.op(
        "WHILE", [integers(graph, "zero", 0), x], ends,
        options="WhileOptions", condSubgraphIndex=condition.number, bodySubgraphIndex=body.number,
    )  # fmt: skip
    return ends[1]


def reversed_by(*axes: int) -> Build:
    def build(graph: Graph, x: int) -> int:
        out = graph.tensor("out", SHAPE)
        graph.op("REVERSE_V2", [x, integers(graph, "axes", axes)], [out])
        return out

    return build


def dense(graph: Graph, x: int, name: str, *, width: int = 4, bias: bool = False) -> int:
    rows, inner = graph.graph.tensors[x].shape
    random = np.random.default_rng(7)
    weights = constant(graph, f"{name}.weights", random.normal(size=(width, inner)))
    biases = [constant(graph, f"{name}.bias", random.normal(size=width))] if bias else []
    out = graph.tensor(name, (rows, width))
    graph.op("FULLY_CONNECTED", [x, weights, *biases], [out], options="FullyConnectedOptions")
    return out


def product(form: str) -> Build:
    """Return x C or C x, with the constant stored as it is or turned."""
    constant_first, turned = form.startswith("C"), form.endswith("turned")
    sizes = (3, 2) if constant_first else (6, 4)
    matrix = np.random.default_rng(8).normal(size=sizes)

    def build(graph: Graph, x: int) -> int:
        c = constant(graph, "c", matrix.T if turned else matrix)
        out = graph.tensor("out", (3, 6) if constant_first else (2, 4))
        graph.op(
            "BATCH_MATMUL", [c, x] if constant_first else [x, c], [out],
            options="BatchMatMulOptions",
            adjX=turned and constant_first, adjY=turned and not constant_first,
        )  # fmt: skip
        return out

    return build


def product_of_turned(graph: Graph, x: int) -> int:
    """Return C times the transposed x."""
    c = constant(graph, "c", np.random.default_rng(8).normal(size=(1, 3, 6)))
    batch = graph.tensor("batch", (1, *SHAPE))
    graph.op("RESHAPE", [x, integers(graph, "batch shape", (1, *SHAPE))], [batch])
    out = graph.tensor("out", (1, 3, 2))
    graph.op("BATCH_MATMUL", [c, batch], [out], options="BatchMatMulOptions", adjY=True)
    return out


def offset(form: str) -> Build:
    def build(graph: Graph, x: int) -> int:
        total = dense(graph, x, "layer", bias=form == "bias")
        if form == "sum":
            other = binary(graph, "MUL", x, x, "squares")
            total = binary(graph, "ADD", dense(graph, other, "other", bias=True), total, "total", (2, 4))
        c = constant(graph, "c", [[1.0, -2.0, 3.0, -4.0]])
        out = graph.tensor("out", (2, 4))
        pair = [c, total] if form == "first" else [total, c]
        graph.op("ADD", pair, [out], options="AddOptions", fusedActivationFunction=RELU)
        return out

    return build


def steps_of(graph: Graph, x: int, shape: tuple[int, ...]) -> list[int]:
    """Return the GATHERs of every index of x as a tensor of this shape."""
    whole = graph.tensor("whole", shape)
    graph.op("RESHAPE", [x, integers(graph, "shape", shape)], [whole])
    steps = []
    for number in range(shape[0]):
        steps.append(graph.tensor(f"step{number}", shape[1:]))
        graph.op(
            "GATHER", [whole, integers(graph, f"i{number}", number)], [steps[-1]], options="GatherOptions"
        )
    return steps


def layer_of_steps(graph: Graph, x: int) -> int:
    steps = steps_of(graph, x, (3, 2, 2))
    weights = constant(graph, "w", [[1.0, -2.0], [0.5, 3.0]])
    bias = constant(graph, "b", [0.5, -0.25])
    ends = []
    for number, step in enumerate(reversed(steps)):
        ends.append(graph.tensor(f"weighed{number}", (2, 2)))
        graph.op("FULLY_CONNECTED", [step, weights, bias], [ends[-1]], options="FullyConnectedOptions")
    product = binary(graph, "MUL", ends[0], ends[1], "product", (2, 2))
    return binary(graph, "SUB", product, ends[2], "out", (2, 2))


def sum_of_steps(graph: Graph, x: int) -> int:
    first, second = steps_of(graph, x, SHAPE)
    return binary(graph, "SUB", first, second, "out", SHAPE[1:])


def parts(edges: tuple[int, ...], ends: tuple[int, ...]) -> Build:
    def build(graph: Graph, x: int) -> int:
        cuts = []
        for number, (low, high) in enumerate(zip(edges, ends, strict=True)):
            given = [integers(graph, f"{kind}{number}", value) for kind, value in
                     (("begin", [0, low]), ("end", [0, high]), ("stride", [1, 1]))]  # fmt: skip
            cuts.append(graph.tensor(f"cut{number}", (2, 6 // len(edges))))
            graph.op(
                "STRIDED_SLICE", [x, *given], [cuts[-1]],
                options="StridedSliceOptions", beginMask=1, endMask=1 | (2 if high == 0 else 0),
            )  # fmt: skip
        out = cuts[0]
        for number, cut in enumerate(cuts[1:]):
            out = binary(graph, "SUB", out, cut, f"less{number}", (2, 6 // len(edges)))
        return out

    return build


def activated(kind: str, activation: str) -> Build:
    def build(graph: Graph, x: int) -> int:
        inner = graph.tensor("inner", SHAPE)
        random = np.random.default_rng(8)
        if kind == "FULLY_CONNECTED":
            weights = graph.tensor("w", (SHAPE[1], SHAPE[1]), values=random.normal(size=(SHAPE[1], SHAPE[1])))
            graph.op(kind, [x, weights, -1], [inner], options="FullyConnectedOptions")
        else:
            row = graph.tensor("row", (SHAPE[1],), values=random.normal(size=SHAPE[1]))
            graph.op(kind, [x, row], [inner], options=f"{kind.capitalize()}Options")
        return unary(graph, activation, inner, "out")

    return build


def single(graph: Graph, x: int) -> int:
    """Return the values with an axis of one element, doubled by an ADD."""
    long = graph.tensor("long", (2, 1, 6))
    graph.op("RESHAPE", [x, integers(graph, "with one", [2, 1, 6])], [long], options="ReshapeOptions")
    return binary(graph, "ADD", long, long, "doubled", (2, 1, 6))


def squeezed(graph: Graph, x: int) -> int:
    out = graph.tensor("out", SHAPE)
    graph.op("SQUEEZE", [single(graph, x)], [out], options="SqueezeOptions", squeezeDims=[1])
    return out


def expanded(graph: Graph, x: int) -> int:
    out = graph.tensor("out", (2, 6, 1))
    graph.op("EXPAND_DIMS", [x, integers(graph, "axis", -1)], [out], options="ExpandDimsOptions")
    return out


def reduced(kind: str) -> Build:
    """Return a reduction over an axis with one element."""

    def build(graph: Graph, x: int) -> int:
        out = graph.tensor("out", SHAPE)
        axes = integers(graph, "axes", [1])
        graph.op(kind, [single(graph, x), axes], [out], options="ReducerOptions", keepDims=False)
        return out

    return build


def one_hot(form: str, *, bias: bool) -> Build:
    """Return a dense layer of one-hot vectors; some of the ids are outside the classes."""

    def build(graph: Graph, x: int) -> int:
        ids = graph.tensor("ids", SHAPE, dtype=np.int32)
        graph.op("CAST", [x], [ids])
        vectors = graph.tensor("vectors", (*SHAPE, 5))
        if form == "ONE_HOT":
            depth = integers(graph, "depth", 5)
            given = [ids, depth, constant(graph, "on", 1.0), constant(graph, "off", 0.0)]
            graph.op("ONE_HOT", given, [vectors], options="OneHotOptions", axis=-1)
        else:
            column = graph.tensor("column", (*SHAPE, 1), dtype=np.int32)
            shape = integers(graph, "column shape", [*SHAPE, 1])
            graph.op("RESHAPE", [ids, shape], [column], options="ReshapeOptions")
            equal = graph.tensor("equal", (*SHAPE, 5), dtype=np.bool_)
            compared = [column, integers(graph, "classes", np.arange(5).reshape(1, 1, 5))]
            graph.op("EQUAL", compared if form == "EQUAL" else compared[::-1], [equal])
            graph.op("CAST", [equal], [vectors])
        weights = constant(graph, "table", np.random.default_rng(5).normal(size=(4, 5)))
        held = constant(graph, "held", np.arange(1.0, 5.0)) if bias else -1
        out = graph.tensor("out", (*SHAPE, 4))
        graph.op(
            "FULLY_CONNECTED", [vectors, weights, held], [out],
            options="FullyConnectedOptions", keepNumDims=True,
        )  # fmt: skip
        return out

    return build


def softmax(form: str) -> Build:
    """Return a softmax in single operations."""

    def reduced(graph: Graph, kind: str, source: int, name: str) -> int:
        keep = form != "reshaped"
        out = graph.tensor(name, (2, 1) if keep else (2,))
        axes = integers(graph, f"{name}.axes", [1 if keep else -1])
        graph.op(kind, [source, axes], [out], options="ReducerOptions", keepDims=keep)
        if keep:
            return out
        column = graph.tensor(f"{name}.column", (2, 1))
        shape = integers(graph, f"{name}.shape", [2, 1])
        graph.op("RESHAPE", [out, shape], [column], options="ReshapeOptions")
        return column

    def build(graph: Graph, x: int) -> int:
        if form != "without maximum":
            x = binary(graph, "SUB", x, reduced(graph, "REDUCE_MAX", x, "largest"), "less")
        powers = unary(graph, "EXP", x, "powers")
        return binary(graph, "DIV", powers, reduced(graph, "SUM", powers, "total"), "out")

    return build


EXAMPLES: dict[str, dict[str, Build]] = {
    "unrolled loop": {"plain": loop},
    "reversal by GATHER": {
        "first axis": reversed_by(0),
        "last axis": reversed_by(-1),
        "both": reversed_by(0, 1),
    },
    "product with a constant by a layer": {
        **{form: product(form) for form in ("x C", "x C turned", "C x", "C x turned")},
        "C x of a turned x": product_of_turned,
    },
    "offset into the bias": {form: offset(form) for form in ("last", "first", "bias", "sum")},
    "rows by GATHER": {
        f"{form}{', bias' if bias else ''}": one_hot(form, bias=bias)
        for form in ("ONE_HOT", "EQUAL", "EQUAL turned")
        for bias in (False, True)
    },
    "one layer for all steps": {"plain": layer_of_steps},
    "steps by UNPACK": {"plain": sum_of_steps},
    "parts by SPLIT": {
        "halves": parts((0, 3), (3, 0)),
        "thirds": parts((0, 2, -2), (2, 4, 6)),
    },
    "centered normalization": {
        "keras": normalization("negated"),
        "without gamma": normalization("negated", gamma=False),
        "without beta": normalization("negated", beta=False),
        "tensorflow": normalization("subtracted"),
        "tensorflow, without gamma": normalization("subtracted", gamma=False),
        "negated product": normalization("negated product"),
        "late": normalization("late"),
        "squares by MUL": normalization("negated", squares="MUL"),
        "squares by SQUARE": normalization("negated", squares="SQUARE"),
    },
    "joined softmax": {form: softmax(form) for form in ("kept", "reshaped", "without maximum")},
    "moved values by RESHAPE": {
        "SQUEEZE": squeezed,
        "EXPAND_DIMS": expanded,
        **{kind: reduced(kind) for kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")},
    },
    "square by MUL": {"plain": lambda graph, x: unary(graph, "SQUARE", x, "out")},
    "squared difference by SUB and MUL": {
        "constant": lambda g, x: binary(g, "SQUARED_DIFFERENCE", x, constant(g, "c", np.arange(6)), "out"),
        "mean": lambda g, x: binary(g, "SQUARED_DIFFERENCE", x, mean(g, x, "mean"), "out"),
    },
    "division by MUL": {"constant": divided_by_constant, "root": divided_by_root},
    "negation by MUL": {"plain": lambda graph, x: unary(graph, "NEG", x, "out")},
    "fused activation": {
        f"{kind} {activation}": activated(kind, activation)
        for kind, activation in (
            ("FULLY_CONNECTED", "RELU"),
            ("ADD", "RELU6"),
            ("SUB", "RELU_N1_TO_1"),
            ("MUL", "RELU"),
        )
    },
}
