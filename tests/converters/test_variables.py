"""Variables of streaming models: inputs and outputs while the model becomes integers, and integers after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.files import RawSamples  # noqa: E402
from edgeq_converters.data.samples import to_real  # noqa: E402
from edgeq_converters.data.sequences import match_sequences  # noqa: E402
from edgeq_converters.graph import state, tflite_file, variables  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.recipe import Effort, Recipe  # noqa: E402
from edgeq_converters.values import CarriedState, OpKind, Scheme  # noqa: E402
from edgeq_converters.worker.jobs.convert import convert  # noqa: E402
from edgeq_converters.worker.stateful_samples import matched  # noqa: E402
from tests import stateful, streaming  # noqa: E402
from tests.converters.graphs import Graph  # noqa: E402

COUNT, STEPS = 16, 20


def streaming_gru(first: float = 0.25) -> Model:
    """Return a GRU cell that keeps its state in a variable, whose first value is not zero."""
    external = Model(data=streaming.gru(), subject="m")
    kept = variables.Variable(
        container=b"",
        name=b"h",
        initial=np.full((1, streaming.UNITS), first, np.float32),
        state=CarriedState(input=1, output=1),
    )
    detached = variables.Detached(model=external, variables=(kept,))
    return variables.attach(external, detached, ())


def _outputs(model: Model, x: Any) -> Any:
    samples = match_sequences(RawSamples(subject="d", arrays={"x": x}), model.inputs, states=())
    return to_real(run_samples(model, samples, advance=ignore)[0], model.outputs[0])


@pytest.mark.parametrize("model", [streaming_gru(), Model(data=stateful.accumulator(), subject="m")])
def test_a_model_without_its_variables_has_the_same_values(model: Model) -> None:
    detached = variables.detach(model)
    assert not state.read(detached.model).kept
    width = model.inputs[0].shape[1]
    x = streaming.sequences(3, 6)[..., :width]
    samples, notes = matched(
        RawSamples(subject="d", arrays={"x": x}), detached.model, initial=detached.initial
    )
    assert notes == []
    outputs = run_samples(detached.model, samples, advance=ignore)[0]
    np.testing.assert_allclose(outputs, _outputs(model, x), rtol=1e-5, atol=1e-6)


def test_a_variable_that_is_never_assigned_becomes_a_constant() -> None:
    model = Model(data=stateful.constant_variable(), subject="m")
    detached = variables.detach(model)
    assert detached.variables == ()
    kinds = [tflite_file.op_name(detached.model.parsed, each) for each in detached.model.graph.operators]
    assert kinds == ["ADD"]
    x = stateful.samples().reshape(1, 6, 2)
    np.testing.assert_array_equal(_outputs(detached.model, x), _outputs(model, x))


@pytest.mark.parametrize("data", [stateful.accumulator(initialized=False), stateful.svdf()])
def test_other_models_stay_as_they_are(data: bytes) -> None:
    model = Model(data=data, subject="m")
    assert variables.detach(model).model is model


@pytest.mark.first_is_quick
@pytest.mark.parametrize("io", ["int8", "float32"])
def test_a_variable_holds_integers(tmp_path: Path, io: str) -> None:
    model = streaming_gru()
    source, output, calibration = tmp_path / "f.tflite", tmp_path / "q.tflite", tmp_path / "c.npz"
    source.write_bytes(model.data)
    np.savez(calibration, x=streaming.sequences(COUNT, STEPS))
    done = convert(
        source,
        output,
        recipe=Recipe(scheme=Scheme.INT8, io=io, effort=Effort.QUICK),
        data=calibration,
        workdir=tmp_path,
        step=lambda what, total: ignore,
    )
    quantized = Model(data=output.read_bytes(), subject="q")
    assert OpKind.FLOAT not in {
        line.kind for line in done.info.ops if line.op not in {"QUANTIZE", "DEQUANTIZE"}
    }
    assert state.read(quantized).kept
    assert [info.name for info in quantized.inputs] == ["x"]
    reads = [
        quantized.graph.tensors[int(each.outputs[0])]
        for each in quantized.graph.operators
        if tflite_file.op_name(quantized.parsed, each) == "READ_VARIABLE"
    ]
    assert [tflite_file.type_name(each) for each in reads] == ["INT8"]
    x = streaming.sequences(8, 40, seed=9)
    real, integers = _outputs(model, x), _outputs(quantized, x)
    late = np.tile(np.arange(40) >= 20, len(x))
    assert (sqnr_db([integers[late]], [real[late]]) or np.inf) > 20
    np.testing.assert_array_equal(_outputs(quantized, x[:1]), integers[:40])  # it is reset at each sequence


def test_the_value_that_a_variable_had_may_be_an_output(tmp_path: Path) -> None:
    graph = Graph()
    x, h = graph.tensor("x", (1, 4)), graph.tensor("before", (1, 4))
    half = graph.tensor("half", (1, 4), values=np.full((1, 4), 0.5))
    less, after = graph.tensor("less", (1, 4)), graph.tensor("after", (1, 4))
    graph.op("MUL", [h, half], [less], options="MulOptions")
    graph.op("ADD", [less, x], [after], options="AddOptions")
    external = graph.ends([x, h], [after, h, after]).as_model()
    kept = variables.Variable(
        container=b"", name=b"h", initial=np.ones((1, 4), np.float32), state=CarriedState(input=1, output=2)
    )
    model = variables.attach(external, variables.Detached(model=external, variables=(kept,)), ())
    detached = variables.detach(model).model
    assert [each.name for each in detached.outputs][:2] == ["after", "before"]
    source, output, calibration = tmp_path / "f.tflite", tmp_path / "q.tflite", tmp_path / "c.npz"
    source.write_bytes(model.data)
    np.savez(calibration, x=streaming.sequences(COUNT, 4))
    convert(
        source,
        output,
        recipe=Recipe(scheme=Scheme.INT8, effort=Effort.QUICK, calibrator="minmax"),
        data=calibration,
        workdir=tmp_path,
        step=lambda what, total: ignore,
    )
    quantized = Model(data=output.read_bytes(), subject="q")
    assert [each.name for each in quantized.outputs] == ["after", "before"]
