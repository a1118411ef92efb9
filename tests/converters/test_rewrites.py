"""Rewrites before integers: each keeps the function, changes what it names, and leaves other graphs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.observe import observe  # noqa: E402
from edgeq_converters.calibration.qparams import INT8  # noqa: E402
from edgeq_converters.calibration.ranges import calibrated_ranges  # noqa: E402
from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.dead_operations import without_dead  # noqa: E402
from edgeq_converters.graph.edit import Editor  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor  # noqa: E402
from edgeq_converters.graph.rewrite.rules import RULES, Rule, for_integers  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.quantization.backends import litert  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402
from tests import stateful  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import net  # noqa: E402
from .rewrite_examples import EXAMPLES as SINGLE  # noqa: E402
from .rewrite_examples import (  # noqa: E402
    RELU,
    SHAPE,
    Build,
    activated,
    binary,
    constant,
    normalization,
    product,
    statistics,
    unary,
)
from .sum_examples import EXAMPLES as SUMS  # noqa: E402

EXAMPLES = {**SINGLE, **SUMS}
INTEGER = {
    *("ADD", "SUB", "MUL", "MEAN", "RSQRT"),
    *("CAST", "MAXIMUM", "MINIMUM"),  # of ids
    *("FULLY_CONNECTED", "GATHER", "PACK", "PAD", "RELU", "RESHAPE", "SOFTMAX", "SPLIT", "TANH", "TRANSPOSE"),
    *("AVERAGE_POOL_2D", "SQRT", "UNPACK"),
    "POW",  # of a constant: a table
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


def rule_named(name: str) -> Rule:
    return next(each for each in RULES if each.name == name)


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
    used = rule_named(rule)
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
    assert set(kinds(rewritten)) <= INTEGER
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
    assert applied(rule_named("centered normalization"), model)[1] == 0
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
    page = (project_root / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []


@pytest.mark.parametrize("form", ["x C", "C x"])
def test_a_product_with_a_constant_keeps_its_values_in_integers(form: str) -> None:
    pytest.importorskip("litert_quantizer")
    model = for_integers(model_of(product(form)))
    values = np.random.default_rng(4).normal(2.0, 3.0, size=(40, *SHAPE)).astype(np.float32)
    samples = Samples(inputs=model.inputs, arrays=(values,))
    histograms = observe(model, samples, advance=ignore)
    ranges = calibrated_ranges(model, histograms, calibrator="minmax", grid=INT8)
    recipe = Recipe(scheme=Scheme.INT8, io="float32")
    made = litert.quantize(model, recipe=recipe, ranges=ranges)
    before, after = outputs(model), outputs(made)
    assert 10 * np.log10((before**2).sum() / ((before - after) ** 2).sum()) > 15


def read_twice(graph: Graph, x: int) -> int:
    out = activated("ADD", "RELU")(graph, x)
    return binary(graph, "ADD", out, 1, "sum")


def activated_twice(graph: Graph, x: int) -> int:
    inner = graph.tensor("inner", SHAPE)
    graph.op("ADD", [x, x], [inner], options="AddOptions", fusedActivationFunction=3)
    return unary(graph, "RELU_N1_TO_1", inner, "out")


@pytest.mark.parametrize("build", [read_twice, activated_twice])
def test_an_activation_stays_where_its_input_has_another_reader_or_an_activation(build: Build) -> None:
    model = model_of(build)
    assert applied(rule_named("fused activation"), model)[1] == 0


def test_rules_pass_over_operations_without_inputs_or_outputs() -> None:
    model = Model(data=stateful.accumulator(), subject="graph")
    assert kinds(model)[:2] == ["CALL_ONCE", "VAR_HANDLE"]
    assert kinds(model)[-1] == "ASSIGN_VARIABLE"
    assert {rule.name: applied(rule, model)[1] for rule in RULES} == dict.fromkeys(
        (rule.name for rule in RULES), 0
    )
