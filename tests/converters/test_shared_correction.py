"""Weights that several layers share are rounded once, on the inputs of all of them."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("litert_quantizer")

from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import edit, tflite_file  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.quantization import correction  # noqa: E402
from edgeq_converters.quantization.correction.shared import correct_shared  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .graphs import Graph  # noqa: E402
from .integer_models import decibels, made_of, outputs, rows_of  # noqa: E402

WIDTH = 24


def recurrent(steps: int, *, bias: bool, start: bool = False) -> Model:
    """Return h = tanh(U h + x), repeated: one constant U for all steps.

    Args:
        start: whether the first h is a constant; else it is x.
    """
    random = np.random.default_rng(2)
    mixing = random.normal(size=(WIDTH, 4)) @ random.normal(size=(4, WIDTH))  # the states are correlated
    graph = Graph()
    x = graph.tensor("x", (1, WIDTH))
    weights = graph.tensor("u", (WIDTH, WIDTH), values=mixing / WIDTH)
    held = graph.tensor("b", (WIDTH,), values=random.normal(size=WIDTH) * 0.1) if bias else -1
    state = graph.tensor("start", (1, WIDTH), values=random.normal(size=(1, WIDTH))) if start else x
    for step in range(steps):
        product, total = graph.tensor(f"p{step}", (1, WIDTH)), graph.tensor(f"t{step}", (1, WIDTH))
        graph.op("FULLY_CONNECTED", [state, weights, held], [product], options="FullyConnectedOptions")
        graph.op("ADD", [product, x], [total], options="AddOptions")
        state = graph.tensor(f"h{step}", (1, WIDTH))
        graph.op("TANH", [total], [state])
    out = graph.tensor("out", (1, 5))
    last = graph.tensor("v", (5, WIDTH), values=random.normal(size=(5, WIDTH)))
    graph.op("FULLY_CONNECTED", [state, last, -1], [out], options="FullyConnectedOptions")
    return normalize(graph.ends([x], [out]).as_model())


def inputs(count: int) -> list[list[np.ndarray]]:
    random = np.random.default_rng(9)
    few = random.normal(size=(count, 4)) @ np.random.default_rng(3).normal(size=(4, WIDTH))
    return [[row[None].astype(np.float32)] for row in few / 3]


@pytest.mark.parametrize("bias", [False, True])
def test_the_layers_of_all_steps_gain_together(bias: bool) -> None:
    model = recurrent(6, bias=bias)
    rows = inputs(200)
    made = made_of(model, rows[:150], Recipe(scheme=Scheme.INT8)).model
    samples = Samples(inputs=model.inputs, arrays=(np.concatenate([row[0] for row in rows[:150]]),))
    shared = correct_shared(model, made, samples, rows=4096)
    assert shared.data != made.data
    before, after = (
        decibels(outputs(model, rows[150:]), outputs(each, rows[150:])) for each in (made, shared)
    )
    assert after > before
    held = {
        int(shared.graph.tensors[i].buffer)
        for operator in shared.graph.operators
        for i in operator.inputs
        if i >= 0 and list(shared.graph.tensors[i].shape) == [WIDTH, WIDTH]
    }
    assert len(held) == 1
    for one, other in zip(made.graph.tensors, shared.graph.tensors, strict=True):
        if tflite_file.is_quantized(one):
            np.testing.assert_array_equal(edit.scales(one), edit.scales(other))
    assert correction.correct(model, made, samples, advance=ignore).data != made.data


def test_a_step_that_reads_a_constant_is_left_out() -> None:
    model = recurrent(6, bias=False, start=True)
    rows = inputs(200)
    made = made_of(model, rows[:150], Recipe(scheme=Scheme.INT8)).model
    samples = Samples(inputs=model.inputs, arrays=(np.concatenate([row[0] for row in rows[:150]]),))
    shared = correct_shared(model, made, samples, rows=4096)
    assert shared.data != made.data
    expected = outputs(model, rows[150:])
    before, after = (decibels(expected, outputs(each, rows[150:])) for each in (made, shared))
    assert after > before - 1
    assert correction.correct(model, made, samples, advance=ignore).data != made.data


def test_weights_with_one_reader_are_left_to_the_correction_of_layers() -> None:
    model = recurrent(1, bias=False)
    rows = rows_of(model, -1.0, 1.0, count=40)
    made = made_of(model, rows, Recipe(scheme=Scheme.INT8)).model
    samples = Samples(inputs=model.inputs, arrays=(np.concatenate([row[0] for row in rows]),))
    assert correct_shared(model, made, samples, rows=4096) is made
