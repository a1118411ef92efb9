"""Correction and equalization, on a small net against the float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.convert,
    # litert-quantizer's own; conversions run in a child process, where warnings stay warnings.
    pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning"),
]
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import edit, executor, layers, tflite_file  # noqa: E402
from edgeq_converters.graph.cost import macs, memory_per_sample, obstacle  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.quantization import correction, equalization  # noqa: E402
from edgeq_converters.quantization.correction import rounding  # noqa: E402
from edgeq_converters.quantization.correction.moments import Accumulator, merge  # noqa: E402
from edgeq_converters.quantization.equalization.groups import find_groups  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import CHANNELS, at_logits, net, quantized, quiet, samples  # noqa: E402


def ops(model: Model) -> list[str]:
    return [tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators]


def test_the_executor_computes_the_model_s_outputs() -> None:
    model = net()
    given = samples(model, 7)
    steps = executor.Executor(model, given)
    most = 0
    while steps.position < len(steps):
        steps.step()
        most = max(most, len(steps.values))
    (whole,) = run_samples(model, given, advance=quiet)
    (walked,) = steps.values.values()
    np.testing.assert_allclose(walked[:, 0], whole, rtol=1e-5, atol=1e-6)
    assert most <= 3


@pytest.mark.parametrize("position", [0, 1, 2, 5])
def test_a_layer_s_linear_map_equals_its_kernel(position: int) -> None:
    model = net(activation=0)
    steps = executor.Executor(model, samples(model, 3))
    steps.advance_to(position)
    layer = layers.read_layer(model.parsed, model.graph.operators[position])
    assert layer is not None
    source = steps.values[layer.source]
    linear = steps.step_linear(layer)
    expected = steps.values[layer.target]
    shape = expected.shape[:-1] if layer.kind != "FULLY_CONNECTED" else (expected.size // expected.shape[-1],)
    rows = layer.choose_rows(shape, np.random.default_rng(0), most=8192)
    tensors = model.graph.tensors
    matrix = layer.to_matrix(edit.constant(model.parsed, tensors[layer.weights]))
    bias = edit.constant(model.parsed, tensors[layer.bias]).reshape(layer.groups, layer.width)
    (part,) = [patches for _, patches in layer.gather(source, rows)]
    got = (part @ matrix.transpose(0, 2, 1) + bias[:, None]).transpose(1, 0, 2).reshape(len(rows[0]), -1)
    np.testing.assert_allclose(got, expected.reshape(len(rows[0]), -1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        layer.outputs(linear, rows).transpose(1, 0, 2).reshape(got.shape), got, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(
        layer.to_tensor(matrix), edit.constant(model.parsed, tensors[layer.weights])
    )


@pytest.mark.parametrize("activation", [1, 3])
def test_one_run_gives_a_layer_s_outputs_before_and_after_its_activation(activation: int) -> None:
    model = net(activation=activation)
    layer = layers.read_layer(model.parsed, model.graph.operators[0])
    assert layer is not None
    plain, open_ended = (executor.Executor(model, samples(model, 3)) for _ in range(2))
    plain.step()
    linear = open_ended.step_linear(layer)
    assert linear.min() < -0.1
    np.testing.assert_allclose(open_ended.values[layer.target], plain.values[layer.target], atol=1e-6)
    np.testing.assert_allclose(np.clip(linear, layer.low, layer.high), plain.values[layer.target], atol=1e-6)


def test_inputs_gathered_in_parts_equal_those_gathered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    steps = executor.Executor(model, samples(model, 5))
    layer = layers.read_layer(model.parsed, model.graph.operators[0])
    assert layer is not None
    source = steps.values[layer.source]
    rows = layer.choose_rows((5, 1, 8, 8), np.random.default_rng(0), most=8192)
    ((_, whole),) = layer.gather(source, rows)
    monkeypatch.setattr(layers, "KEPT_VALUES", 0)
    monkeypatch.setattr(layers, "CHUNK_VALUES", 18 * 50)
    gathered = layer.gather(source, rows)
    for _ in range(2):  # correction goes through it twice
        parts = list(gathered)
        assert len(parts) == 7
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts], axis=1), whole)


def test_merged_moments_of_parts_equal_those_of_all_rows() -> None:
    random = np.random.default_rng(1)
    source, target = random.normal(3, 1, (2, 50, 4)), random.normal(-1, 2, (2, 50, 3))
    whole = Accumulator(2, 3, 4)
    whole.add(source, target)
    halves = []
    for part in (slice(0, 20), slice(20, 50)):
        halves.append(Accumulator(2, 3, 4))
        halves[-1].add(source[:, part], target[:, part])
    one, other = whole.moments(), merge(*(half.moments() for half in halves))
    for name in ("hessian", "cross", "source", "target"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)
    np.testing.assert_allclose(one.hessian[0], np.cov(source[0].T, bias=True), atol=1e-12)


def test_rounding_with_error_compensation_beats_rounding_to_nearest() -> None:
    random = np.random.default_rng(2)
    mixed = random.normal(size=(1, 2000, 24)) @ random.normal(size=(24, 24))
    weights = random.normal(size=(1, 6, 24))
    total = Accumulator(1, 6, 24)
    total.add(mixed, mixed @ weights.transpose(0, 2, 1))
    moments, steps = total.moments(), np.abs(weights).max(2) / 7
    nearest = np.rint(weights / steps[:, :, None])
    factors = rounding.factorize(moments, damping=0.01)
    fitted = rounding.round_to_grid(factors, weights, steps, limit=7)
    assert np.array_equal(fitted, np.rint(fitted))
    assert np.abs(fitted).max() <= 7

    def error(integers: Any) -> float:
        return float(np.square(mixed @ (integers * steps[:, :, None] - weights).transpose(0, 2, 1)).sum())

    assert error(fitted) < 0.7 * error(nearest)


def test_a_channel_is_clipped_where_its_outputs_suffer_least() -> None:
    random = np.random.default_rng(4)
    inputs = random.normal(size=(1, 2000, 24))
    inputs[:, :, 5] *= 1e-3  # a silent input: its weight in the first channel may be anything
    weights = random.normal(size=(1, 2, 24))
    weights[0, :, 5] = 20.0, 0.5
    total = Accumulator(1, 2, 24)
    total.add(inputs, inputs @ weights.transpose(0, 2, 1))
    factors = rounding.factorize(total.moments(), damping=0.01)

    def errors(integers: Any, steps: Any) -> Any:
        change = (integers * steps[:, :, None] - weights).transpose(0, 2, 1)
        return np.square(inputs @ change).sum((0, 1))

    widest = np.abs(weights).max(2) / 7
    whole = errors(rounding.round_to_grid(factors, weights, widest, limit=7), widest)
    integers, steps = rounding.round_and_clip(factors, weights, limit=7)
    assert np.abs(integers).max() <= 7
    clipped = errors(integers, steps)
    assert clipped[0] < 0.3 * whole[0]
    assert clipped[1] < 1.05 * whole[1]
    assert steps[0, 0] < 0.5 * widest[0, 0]


def test_damping_is_infinite_where_the_halves_disagree() -> None:
    random = np.random.default_rng(3)
    weights = random.normal(size=(1, 5, 16))
    halves = []
    for _ in range(2):
        source = random.normal(size=(1, 20, 16))
        half = Accumulator(1, 5, 16)
        half.add(source, source @ weights.transpose(0, 2, 1) + 3 * random.normal(size=(1, 20, 5)))
        halves.append(half.moments())
    assert rounding.choose_damping(halves[0], halves[1], weights) >= 10
    truth = weights * 0.8
    for number in range(2):
        source = random.normal(size=(1, 2000, 16))
        half = Accumulator(1, 5, 16)
        half.add(source, source @ truth.transpose(0, 2, 1))
        halves[number] = half.moments()
    assert rounding.choose_damping(halves[0], halves[1], weights) <= 0.01


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "terms",
    [
        correction.Terms(weights=False),
        correction.Terms(weights=False, gain=True),
        correction.Terms(),
        correction.Terms(gain=True),
    ],
)
def test_each_correction_raises_the_sqnr_and_keeps_the_graph(terms: correction.Terms) -> None:
    model = net(spread=0.5)
    given, other = samples(model), samples(model, 200, seed=6)
    plain = quantized(model, given, "percentile:99.5")
    repaired = correction.correct(model, plain, given, advance=quiet, terms=terms)
    expected = at_logits(model, other)
    before, after = (sqnr_db([at_logits(made, other)], [expected]) for made in (plain, repaired))
    assert after > before + 0.5
    assert ops(repaired) == ops(plain)
    again = correction.correct(model, plain, given, advance=quiet, terms=terms)
    assert repaired.data == again.data


def test_a_layer_without_a_bias_has_its_weights_rounded_again() -> None:
    model = net(spread=0.5, biased=False)
    given, other = samples(model), samples(model, 200, seed=6)
    plain = quantized(model, given)
    repaired = correction.correct(model, plain, given, advance=quiet)
    before, after = (last_weights(made) for made in (plain, repaired))
    assert not np.array_equal(before, after)
    expected = at_logits(model, other)
    plain_db, repaired_db = (sqnr_db([at_logits(made, other)], [expected]) for made in (plain, repaired))
    assert repaired_db > plain_db


def last_weights(model: Model) -> Any:
    operator = next(o for o in reversed(model.graph.operators) if len(o.inputs) > 1)
    return edit.constant(model.parsed, model.graph.tensors[operator.inputs[1]])


def test_correction_of_nothing_changes_nothing() -> None:
    model = net()
    given = samples(model)
    plain = quantized(model, given)
    none = correction.Terms(bias=False, gain=False, weights=False)
    same = correction.correct(model, plain, given, advance=quiet, terms=none)
    np.testing.assert_array_equal(at_logits(same, given), at_logits(plain, given))


@pytest.mark.parametrize("activation", [1, 3])
def test_equalization_keeps_the_float_function_and_helps_the_integer_one(activation: int) -> None:
    model = net(activation=activation, spread=1.5 if activation == 1 else 0.7)
    given, other = samples(model), samples(model, 200, seed=6)
    made = equalization.equalize(model, given, advance=quiet)
    assert made.groups >= 1
    expected = at_logits(model, given)
    assert sqnr_db([at_logits(made.model, given)], [expected]) > 90
    expected = at_logits(model, other)
    before, after = (
        sqnr_db([at_logits(quantized(one, given), other)], [expected]) for one in (model, made.model)
    )
    assert after > before


def test_groups_span_residuals_and_exclude_the_model_s_inputs_and_outputs() -> None:
    model = net()
    groups = find_groups(model)
    tensors = model.graph.tensors
    names = [{tflite_file.tensor_name(tensors[i]) for i in group.tensors} for group in groups]
    assert names == [{"a", "c", "d", "pooled"}, {"b"}]
    assert all(group.channels == CHANNELS for group in groups)


def test_multiplications_memory_and_obstacles_of_a_model() -> None:
    model = net()
    assert obstacle(model) is None
    assert macs(model) == 64 * CHANNELS * (18 + 9 + CHANNELS) + 4 * CHANNELS
    assert memory_per_sample(model) == 3 * 64 * CHANNELS * 5
    editor = edit.Editor(model)
    editor.parsed.subgraphs[0].tensors[0].isVariable = True
    assert "state" in str(obstacle(editor.pack()))


@pytest.mark.parametrize(("count", "corrected"), [(1, False), (8, True)])
def test_weights_stay_where_there_are_too_few_rows_for_them(count: int, corrected: bool) -> None:
    graph: Any = Graph()
    random = np.random.default_rng(2)
    x, y = graph.tensor("x", (1, 64)), graph.tensor("y", (1, 8))
    w = graph.tensor("w", (8, 64), values=random.normal(size=(8, 64)))
    graph.op("FULLY_CONNECTED", (x, w, -1), (y,), options="FullyConnectedOptions")
    model = graph.ends([x], [y]).as_model("dense")
    rows = random.normal(size=(count, 64)).astype(np.float32)
    given = Samples(inputs=model.inputs, arrays=(rows,))
    before = quantized(model, given)
    after = correction.correct(model, before, given, advance=quiet, terms=correction.Terms(damping=0.1))
    assert (after.data != before.data) is corrected
