"""Models that keep state: actual by host and agent alike, and reset before every independent sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)

from edgeq_agent.inference import state as on_device
from edgeq_converters.calibration.observe import observe
from edgeq_converters.data import files
from edgeq_converters.data.samples import Samples, as_one_sequence, canonical_order, match, subset
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import state
from edgeq_converters.graph.interpreter import Interpreter, run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import ignore
from edgeq_converters.sensitivity.tensor_noise import measure_tensors
from tests import stateful
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert

START = np.array(stateful.START, np.float32)
X = stateful.samples()
IDS = np.array([3, 3, 3, 1, 1, 3])
BY_IDS = np.concatenate([np.cumsum(part, axis=0) for part in (X[:3], X[3:5], X[5:])])
ALL = {
    "accumulator": stateful.accumulator(),
    "without initializer": stateful.accumulator(initialized=False),
    "constant variable": stateful.constant_variable(),
    "svdf": stateful.svdf(),
    "stateless": stateful.stateless(),
}


def _model(content: bytes) -> Model:
    return Model(data=content, subject="m")


def _samples(model: Model, ids: Any = None) -> Samples:
    raw = files.RawSamples(subject="d", arrays={"x": X}, sequence_ids=ids)
    return match(raw, model.inputs)


def _run(model: Model, samples: Samples) -> Any:
    return run_samples(model, samples, advance=ignore)[0]


@pytest.mark.parametrize("name", ALL)
def test_host_and_agent_find_the_same_state(name: str) -> None:
    actual = state.read(_model(ALL[name]))
    assert (actual.variables, actual.resources, actual.initializers) == tuple(on_device.parse(ALL[name]))


@pytest.mark.slow
def test_host_and_agent_find_the_same_state_in_converted_models(models: Path) -> None:
    kept = {}
    for path in sorted(models.glob("*.tflite")):
        actual = state.read(Model.read(path))
        assert (actual.variables, actual.resources, actual.initializers) == tuple(on_device.read(str(path)))
        kept[path.stem] = actual.kept
    assert kept["lstm"], "its fused operation has variable tensors"
    assert not all(kept.values())


@pytest.mark.parametrize("name", ["accumulator", "svdf"])
def test_samples_are_independent_unless_said_otherwise(name: str) -> None:
    model = _model(ALL[name])
    alone = [_run(model, replace(_samples(model), arrays=(X[row : row + 1],)))[0] for row in range(len(X))]
    np.testing.assert_array_equal(_run(model, _samples(model)), alone)
    reversed_run = _run(model, replace(_samples(model), arrays=(X[::-1],)))
    np.testing.assert_array_equal(reversed_run[::-1], alone)


def test_a_sequence_goes_on_from_each_sample_to_the_next() -> None:
    model = _model(ALL["accumulator"])
    one = as_one_sequence(_samples(model))
    np.testing.assert_array_equal(_run(model, one), START + np.cumsum(X, axis=0))
    assert one.sequences == 1
    several = _samples(model, IDS)
    np.testing.assert_array_equal(_run(model, several), START + BY_IDS)
    assert (several.sequences, as_one_sequence(several).sequences) == (3, 3)
    assert canonical_order(several).begins is None
    assert subset(several, 2).begins is None


def test_calibration_sees_the_state_of_sequences_only() -> None:
    model = _model(ALL["accumulator"])
    alone = observe(model, _samples(model), advance=ignore)["total"]
    together = observe(model, as_one_sequence(_samples(model)), advance=ignore)["total"]
    assert alone.maximum == (START + X).max()
    assert together.maximum == (START + X.sum(axis=0)).max()


def test_noise_is_measured_on_independent_samples() -> None:
    model = _model(ALL["accumulator"])
    noise = measure_tensors(model, model, ["total"], _samples(model))["total"]
    assert noise.channel_ratio == pytest.approx((START + X).max() / np.median((START + X).max(axis=0)))


def test_a_runtime_that_cannot_reset_loads_the_model_again() -> None:
    model = _model(ALL["accumulator"])
    interpreter = Interpreter(model, state=state.State(variables=False, resources=True, initializers=()))
    for _ in range(2):
        interpreter.reset()
        interpreter.run([X[:1]])
        np.testing.assert_array_equal(interpreter.results()[0], START + X[:1])


@pytest.mark.parametrize("ids", [np.arange(4), np.zeros((6, 1), int), np.zeros(6)])
def test_ids_that_do_not_fit_the_samples_are_refused(ids: Any) -> None:
    model = _model(ALL["accumulator"])
    with pytest.raises(ConverterError) as caught:
        _samples(model, ids)
    assert caught.value.code == "EQ203"
    assert "`sequence_id` of shape (6,)" in str(caught.value)


def test_an_input_may_have_that_name(tmp_path: Path) -> None:
    built = Graph()
    x, y = built.tensor("sequence_id", (1, 2)), built.tensor("y", (1, 2))
    built.op("ADD", [x, x], [y], options="AddOptions")
    model = built.ends([x], [y]).as_model()
    path = tmp_path / "d.npz"
    np.savez(path, sequence_id=X, other=X)
    samples = match(files.read(path), model.inputs)
    assert samples.begins is None
    np.testing.assert_array_equal(_run(model, samples), 2 * X)
