"""Rewrites before integers: each keeps the function, changes what it names, and leaves other graphs alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.dead_operations import without_dead  # noqa: E402
from edgeq_converters.graph.edit import Editor  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor  # noqa: E402
from edgeq_converters.graph.rewrite.rules import RULES, Rule, for_integers  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import net  # noqa: E402

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


EXAMPLES: dict[str, dict[str, Build]] = {
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
    "square by MUL": {"plain": lambda graph, x: unary(graph, "SQUARE", x, "out")},
    "squared difference by SUB and MUL": {
        "constant": lambda g, x: binary(g, "SQUARED_DIFFERENCE", x, constant(g, "c", np.arange(6)), "out"),
        "mean": lambda g, x: binary(g, "SQUARED_DIFFERENCE", x, mean(g, x, "mean"), "out"),
    },
    "division by MUL": {"constant": divided_by_constant, "root": divided_by_root},
    "negation by MUL": {"plain": lambda graph, x: unary(graph, "NEG", x, "out")},
}
FLAT = [(rule, name) for rule in EXAMPLES for name in EXAMPLES[rule]]


def model_of(build: Build) -> Model:
    graph = Graph()
    x = graph.tensor("x", SHAPE)
    out = build(graph, x)
    return normalize(graph.ends([x], [out]).as_model())


def outputs(model: Model) -> np.ndarray:
    interpreter = Interpreter(model)
    values = np.random.default_rng(3).normal(2.0, 3.0, size=(20, *SHAPE)).astype(np.float32)
    results = []
    for each in values:
        interpreter.run([each])
        results.append(interpreter.results()[0])
    return np.stack(results)


def kinds(model: Model) -> list[str]:
    return [tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators]


def applied(rule: Rule, model: Model) -> tuple[Model, int]:
    edited = Editor(model)
    editor = GraphEditor(edited.parsed)
    count = rule.apply(editor)
    return without_dead(edited.pack()), count


def test_every_rule_has_an_example() -> None:
    assert {rule.name for rule in RULES} == set(EXAMPLES)


@pytest.mark.parametrize(("rule", "example"), FLAT)
def test_a_rule_keeps_the_function(rule: str, example: str) -> None:
    model = model_of(EXAMPLES[rule][example])
    used = next(each for each in RULES if each.name == rule)
    rewritten, count = applied(used, model)
    assert count == 1
    before, after = outputs(model), outputs(rewritten)
    assert np.abs(before).max() > 0.1
    np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)
    assert [info.name for info in rewritten.outputs] == [info.name for info in model.outputs]
    assert applied(used, rewritten)[1] == 0


@pytest.mark.parametrize(("rule", "example"), FLAT)
def test_all_rules_together_leave_only_what_integers_have(rule: str, example: str) -> None:
    model = model_of(EXAMPLES[rule][example])
    rewritten = for_integers(model)
    np.testing.assert_allclose(outputs(rewritten), outputs(model), rtol=2e-5, atol=2e-5)
    assert set(kinds(rewritten)) <= {"ADD", "SUB", "MUL", "MEAN", "RSQRT"}
    assert for_integers(rewritten) is rewritten


def test_a_centered_normalization_reads_no_scaled_mean() -> None:
    model = for_integers(model_of(normalization("negated")))
    assert kinds(model) == ["MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "MUL", "ADD"]


def other_mean(graph: Graph, x: int) -> int:
    """Return a normalization of x by the statistics of 2 x: centering x by them would be wrong."""
    doubled = binary(graph, "MUL", x, constant(graph, "two", 2.0), "doubled")
    middle, scale = statistics(graph, doubled, "SQUARED_DIFFERENCE")
    term = binary(graph, "MUL", unary(graph, "NEG", middle, "neg", (2, 1)), scale, "term", (2, 1))
    return binary(graph, "ADD", binary(graph, "MUL", x, scale, "scaled"), term, "out")


def added_mean(graph: Graph, x: int) -> int:
    """Return x * scale + mean * scale: the mean is not negated."""
    middle, scale = statistics(graph, x, "SQUARED_DIFFERENCE")
    term = binary(graph, "MUL", middle, scale, "term", (2, 1))
    return binary(graph, "ADD", binary(graph, "MUL", x, scale, "scaled"), term, "out")


def fused_activation(graph: Graph, x: int) -> int:
    """Return a normalization whose scaled value goes through a ReLU before the offset is added."""
    middle, scale = statistics(graph, x, "SQUARED_DIFFERENCE")
    scaled = graph.tensor("scaled", SHAPE)
    graph.op("MUL", [x, scale], [scaled], options="MulOptions", fusedActivationFunction=RELU)
    term = binary(graph, "MUL", unary(graph, "NEG", middle, "neg", (2, 1)), scale, "term", (2, 1))
    return binary(graph, "ADD", scaled, term, "out")


@pytest.mark.parametrize("build", [other_mean, added_mean, fused_activation])
def test_what_only_looks_like_a_normalization_is_not_centered(build: Build) -> None:
    model = model_of(build)
    assert applied(RULES[0], model)[1] == 0
    np.testing.assert_allclose(outputs(for_integers(model)), outputs(model), rtol=2e-5, atol=2e-5)


def test_values_that_others_read_too_are_kept() -> None:
    def build(graph: Graph, x: int) -> int:
        normalized = normalization("negated")(graph, x)
        variance = next(i for i, each in enumerate(graph.graph.tensors) if each.name == b"variance")
        return binary(graph, "ADD", normalized, variance, "sum")

    model = model_of(build)
    np.testing.assert_allclose(outputs(for_integers(model)), outputs(model), rtol=2e-5, atol=2e-5)


def test_integer_operations_stay() -> None:
    graph = Graph()
    x = graph.tensor("x", SHAPE, dtype=np.int32)
    out = graph.tensor("out", SHAPE, dtype=np.int32)
    graph.op("NEG", [x], [out])
    model = normalize(graph.ends([x], [out]).as_model())
    assert for_integers(model) is model


def test_a_graph_without_a_pattern_stays_the_same_value() -> None:
    model = normalize(net())
    assert for_integers(model) is model


def test_every_rule_is_in_the_documentation(project_root: Path) -> None:
    page = (project_root / "docs" / "quantization.md").read_text(encoding="utf-8")
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []
