"""Integer forms that edgeq writes itself: all operations that LiteRT runs in integers, without TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("litert_quantizer")

from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import op_report, tflite_file  # noqa: E402
from edgeq_converters.graph.dead_operations import without_dead  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.graph.rewrite.rules import for_integers  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.quantization import correction  # noqa: E402
from edgeq_converters.quantization.backends import lstm, tensorflow  # noqa: E402
from edgeq_converters.quantization.backends.forms import FORMS  # noqa: E402
from edgeq_converters.quantization.quantize import tried, unexpected_float_ops  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.values import Scheme, warnings_of  # noqa: E402

from .graphs import Graph  # noqa: E402
from .integer_models import decibels, made_of, outputs, rows_of  # noqa: E402
from .operation_examples import IMAGE, OPERATIONS, Example, chain  # noqa: E402

WITHOUT_16_BITS = {
    *("ARG_MAX", "ARG_MIN", "DEPTH_TO_SPACE", "L2_NORMALIZATION", "LOG_SOFTMAX", "ONE_HOT", "PRELU"),
    "SPACE_TO_DEPTH",
}


@pytest.fixture(autouse=True)
def _without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow, "is_installed", lambda: False)


def kinds(model: Model) -> list[str]:
    return [tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators]


def test_every_form_has_an_example() -> None:
    assert set(FORMS) - set(OPERATIONS) == {"EMBEDDING_LOOKUP"}


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_operation_becomes_int8_and_gives_its_values(name: str) -> None:
    example = OPERATIONS[name]
    model = for_integers(example.model())
    rows = rows_of(model, example.low, example.high)
    for io in ("int8", "float32"):
        recipe = Recipe(scheme=Scheme.INT8, io=io)
        made = made_of(model, rows, recipe).model
        assert unexpected_float_ops(made, recipe=recipe) == ()
        assert decibels(outputs(model, rows), outputs(made, rows)) > example.decibels
        assert [len(info.shape) for info in made.outputs] == [len(info.shape) for info in model.outputs]


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in WITHOUT_16_BITS])
def test_an_operation_becomes_int16(name: str) -> None:
    example = OPERATIONS[name]
    model = for_integers(example.model())
    rows = rows_of(model, example.low, example.high)
    recipe = Recipe(scheme=Scheme.INT16X8, io="float32")
    made = made_of(model, rows, recipe).model
    assert unexpected_float_ops(made, recipe=recipe) == ()
    assert decibels(outputs(model, rows), outputs(made, rows)) > example.decibels


def test_ids_are_looked_up_in_integers() -> None:
    graph = Graph()
    ids = graph.tensor("ids", (4,), dtype=np.int32)
    table = graph.tensor("table", (9, 5), values=np.random.default_rng(0).normal(size=(9, 5)))
    out = graph.tensor("out", (4, 5))
    graph.op("EMBEDDING_LOOKUP", [ids, table], [out])
    model = normalize(graph.ends([ids], [out]).as_model())
    rows = [[np.array([n % 9, 3, 8, 0], np.int32)] for n in range(16)]
    made = made_of(model, rows, Recipe(scheme=Scheme.INT8)).model
    assert kinds(made) == ["EMBEDDING_LOOKUP"]
    assert decibels(outputs(model, rows), outputs(made, rows)) > 35


SHAPED = ("ABS", "ELU", "SIN", "TANH", "LEAKY_RELU", "LOGISTIC", "RELU6", "NEG", "L2_NORMALIZATION")
PAIRS = ("ADD", "MUL", "MINIMUM", "MAXIMUM", "SUB")


def random_chain(seed: int) -> Example:
    random = np.random.default_rng(seed)
    steps: list[tuple[Any, ...]] = []
    for number in range(8):
        earlier = [int(each) for each in random.integers(max(number - 3, 0), number + 1, 2)]
        if random.random() < 0.5:
            steps.append((str(random.choice(SHAPED)), earlier[0]))
        else:
            steps.append((str(random.choice(PAIRS)), *earlier))
    return chain(*steps, decibels=20.0)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8])
def test_random_graphs_become_integers(scheme: Scheme) -> None:
    results = []
    for seed in range(40):
        model = without_dead(for_integers(random_chain(seed).model()))
        rows = rows_of(model, -2.0, 2.0)
        exact = outputs(model, rows)
        if (scheme is Scheme.INT16X8 and "L2_NORMALIZATION" in kinds(model)) or not exact.any():
            continue
        recipe = Recipe(scheme=scheme, io=str(scheme.io_types[0]))
        made = made_of(model, rows, recipe).model
        assert unexpected_float_ops(made, recipe=recipe) == (), seed
        results.append(decibels(exact, outputs(made, rows)))
    assert min(results) > 12
    assert np.median(results) > 30


def test_named_operations_stay_float() -> None:
    example = chain(("LEAKY_RELU", 0), ("SIN", 1))
    model = example.model()
    rows = rows_of(model, -3.0, 3.0)
    names = tuple(tflite_file.operation_name(model.graph, each) for each in model.graph.operators)
    made = made_of(model, rows, Recipe(scheme=Scheme.INT8_MIXED, float_ops=names[:1])).model
    assert "LEAKY_RELU" in kinds(made)
    assert "GATHER" in kinds(made)
    made = made_of(model, rows, Recipe(scheme=Scheme.INT8_MIXED, float_ops=names)).model
    assert {"LEAKY_RELU", "SIN"} <= set(kinds(made))


def test_a_kept_tensor_has_its_whole_range_for_every_reader() -> None:
    graph = Graph()
    x = graph.tensor("x", IMAGE)
    limit = graph.tensor("limit", (), values=0.1)
    kept, least, leaky = (graph.tensor(name, IMAGE) for name in ("kept", "least", "leaky"))
    graph.op("ELU", [x], [kept])
    graph.op("MINIMUM", [kept, limit], [least])  # its kernel needs its inputs in the scale of its output
    graph.op("LEAKY_RELU", [kept], [leaky], options="LeakyReluOptions", alpha=0.1)
    model = normalize(graph.ends([x], [least, leaky]).as_model())
    rows = rows_of(model, -3.0, 3.0)
    made = made_of(model, rows, Recipe(scheme=Scheme.INT8_MIXED, float_ops=("kept",))).model
    assert decibels(outputs(model, rows), outputs(made, rows)) > 25


def test_a_warning_says_which_values_a_kernel_clips() -> None:
    graph = Graph()
    x, out = graph.tensor("x", (1, 16)), graph.tensor("out", (1, 16))
    graph.op("LOG_SOFTMAX", [x], [out])
    model = normalize(graph.ends([x], [out]).as_model())
    for most, clips in ((3.0, False), (30.0, True)):
        made = made_of(model, rows_of(model, -most, most), Recipe(scheme=Scheme.INT8))
        warnings = warnings_of(made.notes)
        assert any("LOG_SOFTMAX 'out' has values from" in each for each in warnings) is clips


def test_an_operation_without_an_integer_form_stays_float() -> None:
    graph = Graph()
    x, y = graph.tensor("x", IMAGE), graph.tensor("y", IMAGE)
    size, angle, out = (graph.tensor(name, IMAGE) for name in ("size", "angle", "out"))
    graph.op("ABS", [x], [size])
    graph.op("ATAN2", [size, y], [angle])
    graph.op("SIN", [angle], [out])
    model = normalize(graph.ends([x, y], [out]).as_model())
    recipe = Recipe(scheme=Scheme.INT8)
    made = made_of(model, rows_of(model, -3.0, 3.0), recipe)
    assert unexpected_float_ops(made.model, recipe=recipe) == ("ATAN2",)
    assert any("edgeq wrote the integer form of ABS and a table for" in note for note in made.notes)


def test_the_layers_of_a_model_with_tables_are_corrected() -> None:
    graph = Graph()
    random = np.random.default_rng(3)
    x = graph.tensor("x", IMAGE)
    tensors = [x]
    for number in range(2):
        weights = graph.tensor(f"w{number}", (8, 8), values=random.normal(size=(8, 8)) / 3)
        bias = graph.tensor(f"b{number}", (8,), values=random.normal(size=8))
        tensors.append(graph.tensor(f"d{number}", IMAGE))
        graph.op(
            "FULLY_CONNECTED", [tensors[-2], weights, bias], [tensors[-1]],
            options="FullyConnectedOptions", keepNumDims=True,
        )  # fmt: skip
        tensors.append(graph.tensor(f"s{number}", IMAGE))
        graph.op("SIN", [tensors[-2]], [tensors[-1]])
    model = normalize(graph.ends([x], [tensors[-1]]).as_model())
    rows = rows_of(model, -3.0, 3.0, count=40)
    made = made_of(model, rows, Recipe(scheme=Scheme.INT8)).model
    samples = Samples(inputs=model.inputs, arrays=(np.concatenate([row[0] for row in rows]),))
    corrected = correction.sequential.correct(model, made, samples, advance=ignore)
    assert corrected.data != made.data
    exact = outputs(model, rows)
    assert decibels(exact, outputs(corrected, rows)) > decibels(exact, outputs(made, rows)) - 0.5


def lstm_model(*, clip: float = 0.0, steps: int = 12) -> Model:
    """Return a fused LSTM with 6 units, whose cells reach about 4."""
    random = np.random.default_rng(4)
    graph = Graph()
    x = graph.tensor("x", (1, steps, 5))
    weights = [graph.tensor(f"w{n}", (6, 5), values=random.normal(size=(6, 5))) for n in range(4)]
    weights += [graph.tensor(f"r{n}", (6, 6), values=random.normal(size=(6, 6)) / 2) for n in range(4)]
    biases = [graph.tensor(f"b{n}", (6,), values=random.normal(size=6) + (n == 1)) for n in range(4)]
    state, cell = graph.tensor("state", (1, 6)), graph.tensor("cell", (1, 6))
    for index in (state, cell):
        graph.graph.tensors[index].isVariable = True
    out = graph.tensor("out", (1, steps, 6))
    graph.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        [x, *weights, -1, -1, -1, *biases, -1, -1, state, cell, -1, -1, -1, -1], [out],
        options="UnidirectionalSequenceLSTMOptions", fusedActivationFunction=4, cellClip=clip,
    )  # fmt: skip
    return normalize(graph.ends([x], [out]).as_model())


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8])
def test_a_fused_lstm_becomes_integers(scheme: Scheme) -> None:
    model = lstm_model()
    rows = rows_of(model, -2.0, 2.0, count=30)
    recipe = Recipe(scheme=scheme, io="float32")
    made = made_of(model, rows, recipe).model
    assert unexpected_float_ops(made, recipe=recipe) == ()
    assert decibels(outputs(model, rows), outputs(made, rows)) > 28
    cells = [
        each for each in made.graph.tensors if each.isVariable and tflite_file.type_name(each) == "INT16"
    ]
    assert len(cells) == 1
    (scale, zero) = tflite_file.quantization(cells[0]) or (0.0, 1)
    assert zero == 0
    assert np.log2(scale) == int(np.log2(scale))
    lines = op_report.op_lines(tried(model, recipe=recipe) or model)
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" not in {line.op for line in lines if line.reason == "float"}


def test_the_range_of_a_cell_is_that_of_all_its_steps() -> None:
    whole = lstm_model(steps=12)
    x = np.random.default_rng(5).uniform(-2, 2, (8, 12, 5)).astype(np.float32)
    (cell,) = lstm.inner_ranges(whole, Samples(inputs=whole.inputs, arrays=(x,))).values()
    seen = []
    for steps in range(1, 13):
        part = lstm_model(steps=steps)
        interpreter = Interpreter(part, every_tensor=True)
        index = next(
            n for n, each in enumerate(part.graph.tensors) if tflite_file.tensor_name(each) == "cell"
        )
        for sequence in x:
            interpreter.reset()
            interpreter.run([sequence[None, :steps]])
            seen.append(interpreter.tensor(index))
    assert float(cell.low) == pytest.approx(min(float(each.min()) for each in seen), rel=1e-5)
    assert float(cell.high) == pytest.approx(max(float(each.max()) for each in seen), rel=1e-5)
