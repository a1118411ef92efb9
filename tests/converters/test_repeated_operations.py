"""Models of many equal steps: what is shared between them changes no value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.histogram import Observer, histogram_of  # noqa: E402
from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import edit  # noqa: E402
from edgeq_converters.graph.edit import Editor  # noqa: E402
from edgeq_converters.graph.executor import Executor  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402

from .graphs import Graph  # noqa: E402

STEPS = 5


def steps() -> Model:
    """Return layers on one state, with the same weights, of which two add the state to itself."""
    graph = Graph()
    x = state = graph.tensor("x", (1, 4))
    weights = graph.tensor("w", (4, 4), values=np.random.default_rng(0).normal(size=(4, 4)) * 0.4)
    other = graph.tensor("v", (4, 4), values=np.random.default_rng(1).normal(size=(4, 4)) * 0.4)
    for step in range(STEPS):
        layer, total = graph.tensor(f"layer{step}", (1, 4)), graph.tensor(f"total{step}", (1, 4))
        read = other if step == 3 else weights
        graph.op("FULLY_CONNECTED", [state, read, -1], [layer], options="FullyConnectedOptions")
        graph.op("ADD", [layer, layer if step % 2 else x], [total], options="AddOptions")
        state = total
    return graph.ends([x], [state]).as_model()


def _executed(source: Any, samples: Samples) -> Any:
    executor = Executor(source, samples)
    executor.advance_to(len(executor))
    return executor.values[int(source.parsed.subgraphs[0].outputs[0])]


def test_equal_operations_share_what_runs_them_and_others_do_not() -> None:
    model = steps()
    x = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
    samples = Samples(inputs=model.inputs, arrays=(x,))
    interpreter = Interpreter(model)
    expected = []
    for row in x:
        interpreter.run([row[None]])
        expected.append(interpreter.results()[0])
    np.testing.assert_allclose(_executed(model, samples), expected, rtol=1e-5)


def test_an_operation_whose_constant_changed_meanwhile_is_run_with_it() -> None:
    model = steps()
    x = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
    samples = Samples(inputs=model.inputs, arrays=(x,))
    editor = Editor(model)
    executor = Executor(editor, samples)
    executor.advance_to(2)
    weights = editor.parsed.subgraphs[0].tensors[1]
    edit.set_constant(editor.parsed, weights, np.zeros((4, 4), np.float32))
    before = executor.values[int(editor.parsed.subgraphs[0].operators[1].outputs[0])].copy()
    executor.step()
    layer = int(editor.parsed.subgraphs[0].operators[2].outputs[0])
    assert np.abs(before).max() > 0
    np.testing.assert_array_equal(executor.values[layer], np.zeros_like(before))


@pytest.mark.parametrize("width", [1, 7, 2000])
def test_samples_that_are_counted_together_give_the_histogram_of_single_ones(width: int) -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(70, width)).astype(np.float32)
    rows[5, 0] = np.nan
    together = Observer()
    for row in rows:
        together.add(row[None])
    together.add(rows[:3, :1])  # another shape, as where it depends on values
    expected = histogram_of(rows).merge(histogram_of(rows[:3, :1]))
    actual = together.histogram()
    for one, other in zip(actual.occupied(), expected.occupied(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (actual.minimum, actual.maximum, actual.invalid, actual.samples) == (
        expected.minimum,
        expected.maximum,
        expected.invalid,
        expected.samples,
    )
