"""Loops written out: the values of the loop for every form of it, and one line where that cannot be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph import op_report, tflite_file  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite import loops  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.recipe import Recipe, Switch  # noqa: E402
from edgeq_converters.values import OpKind, Scheme  # noqa: E402
from edgeq_converters.worker.jobs.convert import convert  # noqa: E402

from .graphs import Graph  # noqa: E402

WIDTH = 3
COLLECTIONS = ("last", "update", "slices", "reversed")


class Body:
    """Operations of one graph, added by kind."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def whole(self, values: Any) -> int:
        array = np.asarray(values, np.int32)
        name = f"c{len(self.graph.graph.tensors)}"
        return self.graph.tensor(name, array.shape, dtype=np.int32, values=array)

    def real(self, values: Any) -> int:
        array = np.asarray(values, np.float32)
        return self.graph.tensor(f"c{len(self.graph.graph.tensors)}", array.shape, values=array)

    def op(
        self, kind: str, inputs: list[int], shape: tuple[int, ...], dtype: Any = np.float32, **o: Any
    ) -> int:
        out = self.graph.tensor(f"{kind}{len(self.graph.graph.tensors)}", shape, dtype=dtype)
        self.graph.op(kind, inputs, [out], **o)
        return out


def counted(first: int, most: int, stride: int, collection: str) -> Model:
    """Return a model whose loop runs for n = first, first + stride, ... below most.

    Each step reads row n of x, halves the sum with the state, and collects it in row n of a table.
    """
    graph = Graph()
    x = graph.tensor("x", (most, WIDTH))
    condition, body = Body(graph.subgraph()), Body(graph.subgraph())
    shapes: list[tuple[tuple[int, ...], Any]] = [
        ((), np.int32), ((1, WIDTH), np.float32), ((most, WIDTH), np.float32), ((most, WIDTH), np.float32),
    ]  # fmt: skip

    def state(part: Body) -> list[int]:
        return [part.graph.tensor(f"s{i}", shape, dtype=dtype) for i, (shape, dtype) in enumerate(shapes)]

    inputs = state(condition)
    holds = condition.op("LESS", [inputs[0], condition.whole(most)], (), np.bool_)
    condition.graph.ends(inputs, [holds])
    number, total, table, rows = inputs = state(body)
    following = body.op("ADD", [number, body.whole(stride)], (), np.int32)
    at = body.op("RESHAPE", [number, body.whole([1])], (1,), np.int32)
    row = body.op("GATHER", [rows, at], (1, WIDTH), options="GatherOptions")
    new = body.op("MUL", [body.op("ADD", [row, total], (1, WIDTH)), body.real(0.5)], (1, WIDTH))
    start = body.op("CONCATENATION", [at, body.whole([0])], (2,), np.int32, options="ConcatenationOptions")
    if collection == "update":
        filled = body.op("DYNAMIC_UPDATE_SLICE", [table, new, start], (most, WIDTH))
    elif collection in {"slices", "reversed"}:
        size = body.op(
            "CONCATENATION", [at, body.whole([-1])], (2,), np.int32, options="ConcatenationOptions"
        )
        after = body.op("ADD", [start, body.whole([1, 0])], (2,), np.int32)
        parts = []
        for begin, extent in ((body.whole([0, 0]), size), (after, body.whole([-1, -1]))):
            parts.append(body.graph.tensor(f"part{begin}", (1, 1), signature=(-1, -1)))
            body.graph.op("SLICE", [table, begin, extent], [parts[-1]])
        filled = body.op(
            "CONCATENATION", [parts[0], new, parts[1]], (most, WIDTH), options="ConcatenationOptions"
        )
    else:
        filled = table
    body.graph.ends(inputs, [following, new, filled, rows])
    main = Body(graph)
    ends = [graph.tensor(f"end{i}", shape, dtype=dtype) for i, (shape, dtype) in enumerate(shapes)]
    table0 = main.real(np.arange(most * WIDTH).reshape(most, WIDTH))
    graph.op(
        "WHILE", [main.whole(first), main.real(np.zeros((1, WIDTH))), table0, x], ends,
        options="WhileOptions", condSubgraphIndex=condition.graph.number, bodySubgraphIndex=body.graph.number,
    )  # fmt: skip
    outputs = [ends[1], ends[2]]
    if collection == "reversed":
        outputs[1] = main.op("REVERSE_V2", [ends[2], main.whole([0])], (most, WIDTH))
    return graph.ends([x], outputs).as_model("counted")


def results(model: Model, *, seed: int = 5) -> list[np.ndarray]:
    interpreter = Interpreter(model)
    random = np.random.default_rng(seed)
    interpreter.run([random.normal(size=each["shape"]).astype(each["dtype"]) for each in interpreter.inputs])
    return interpreter.results()


def kinds(model: Model) -> set[str]:
    return {tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators}


@settings(max_examples=12, deadline=None)
@given(
    first=st.integers(0, 4),
    most=st.integers(1, 6),
    stride=st.integers(1, 3),
    collection=st.sampled_from(COLLECTIONS),
)
def test_a_loop_that_is_written_out_has_the_values_of_the_loop(
    first: int, most: int, stride: int, collection: str
) -> None:
    model = counted(first, most, stride, collection)
    written = prepared(model)
    for before, after in zip(results(model), results(written), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)
    assert not kinds(written) & {"WHILE", "DYNAMIC_UPDATE_SLICE", "REVERSE_V2"}
    assert len(written.parsed.subgraphs) == 1
    assert [info.name for info in written.outputs] == [info.name for info in model.outputs]


def test_rows_that_a_loop_collects_become_one_concatenation() -> None:
    written = prepared(counted(0, 5, 1, "slices"))
    names = [tflite_file.op_name(written.parsed, operator) for operator in written.graph.operators]
    assert names.count("CONCATENATION") == 1
    assert "SLICE" not in names


def long() -> Model:
    return counted(0, 60, 1, "last")


def until_positive() -> Model:
    """Return a loop that runs until its value, which the input starts, is above one."""
    graph = Graph()
    x = graph.tensor("x", (1,))
    condition, body = Body(graph.subgraph()), Body(graph.subgraph())
    value = condition.graph.tensor("v", (1,))
    condition.graph.ends([value], [condition.op("LESS", [value, condition.real([1.0])], (1,), np.bool_)])
    value = body.graph.tensor("v", (1,))
    body.graph.ends([value], [body.op("ADD", [value, body.real([1.0])], (1,))])
    end = graph.tensor("end", (1,))
    graph.op(
        "WHILE", [x], [end],
        options="WhileOptions", condSubgraphIndex=condition.graph.number, bodySubgraphIndex=body.graph.number,
    )  # fmt: skip
    return graph.ends([x], [end]).as_model("open")


@pytest.mark.parametrize(
    ("model", "problem"), [(until_positive, "depends on the inputs"), (long, "more than 50")]
)
def test_a_loop_without_a_fixed_or_small_number_of_steps_is_refused(
    model: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "MOST_OPERATIONS", 50)
    with pytest.raises(ConverterError, match=problem) as caught:
        loops.unroll(loops_editor(model()))
    assert caught.value.code == "EQ337"
    assert "dynamic" in str(caught.value.hint)


def loops_editor(model: Model) -> Any:
    from edgeq_converters.graph.edit import Editor
    from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

    return GraphEditor(Editor(model).parsed, subject=model.subject)


@pytest.mark.parametrize("value", [True, False])
def test_the_branch_that_is_always_taken_stays(value: bool) -> None:
    graph = Graph()
    x = graph.tensor("x", (2, WIDTH))
    branches = []
    for factor in (2.0, 3.0):
        branch = Body(graph.subgraph())
        inner = branch.graph.tensor("b", (2, WIDTH))
        branch.graph.ends([inner], [branch.op("MUL", [inner, branch.real(factor)], (2, WIDTH))])
        branches.append(branch.graph.number)
    chosen = graph.tensor("chosen", (), dtype=np.bool_, values=value)
    out = graph.tensor("out", (2, WIDTH))
    graph.op(
        "IF", [chosen, x], [out],
        options="IfOptions", thenSubgraphIndex=branches[0], elseSubgraphIndex=branches[1],
    )  # fmt: skip
    model = graph.ends([x], [out]).as_model()
    written = prepared(model)
    np.testing.assert_allclose(results(written)[0], results(model)[0], rtol=1e-6)
    assert "IF" not in kinds(written)


def recurrent(kind: str) -> Any:
    """Return a Keras model with random weights and biases."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    x = keras.Input((5, 4), batch_size=1, name="x")
    forms = {
        "LSTM": lambda: layers.LSTM(6)(x),
        "LSTM sequence": lambda: layers.LSTM(6, return_sequences=True)(x),
        "LSTM backwards": lambda: layers.LSTM(6, go_backwards=True)(x),
        "LSTM stacked": lambda: layers.LSTM(4)(layers.LSTM(6, return_sequences=True)(x)),
        "LSTM both ways": lambda: layers.Bidirectional(layers.LSTM(6))(x),
        "GRU": lambda: layers.GRU(6)(x),
        "GRU reset before": lambda: layers.GRU(6, reset_after=False)(x),
        "GRU both ways, sequence": lambda: layers.Bidirectional(layers.GRU(6, return_sequences=True))(x),
        "simple": lambda: layers.SimpleRNN(6)(x),
        "masked": lambda: layers.LSTM(6)(layers.Masking()(x)),
        "state": lambda: layers.LSTM(6, return_state=True)(x),
    }
    made = forms[kind]()
    model = keras.Model(x, list(made) if isinstance(made, (list, tuple)) else made)
    random = np.random.default_rng(4)
    model.set_weights([random.normal(scale=0.5, size=each.shape) for each in model.get_weights()])
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "LSTM", "LSTM sequence", "LSTM backwards", "LSTM stacked", "LSTM both ways",
        "GRU", "GRU reset before", "GRU both ways, sequence", "simple", "masked", "state",
    ],
)  # fmt: skip
def test_recurrent_layers_of_keras_are_written_out(kind: str) -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.lite.TFLiteConverter.from_keras_model(recurrent(kind)).convert()
    model = Model(data=data, subject=kind)
    assert "WHILE" in kinds(model)
    written = prepared(model)
    assert not kinds(written) & {"WHILE", "REVERSE_V2", "SHAPE", "FILL"}
    for before, after in zip(results(model), results(written), strict=True):
        assert np.abs(before).max() > 0.01
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "LSTM both ways"])
def test_a_file_with_a_recurrent_layer_becomes_integers(kind: str, tmp_path: Path) -> None:
    """Every operation is an integer one, and the outputs keep 20 dB of those of the loop."""
    tf = pytest.importorskip("tensorflow")
    source, output = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    source.write_bytes(tf.lite.TFLiteConverter.from_keras_model(recurrent(kind)).convert())
    samples = np.random.default_rng(6).normal(size=(64, 5, 4)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=samples)
    recipe = Recipe(
        scheme=Scheme.INT8, io="float32", calibrator="minmax",
        bias_correction=Switch.OFF, equalization=Switch.OFF,
    )  # fmt: skip
    made = convert(
        source, output,
        recipe=recipe, data=tmp_path / "c.npz", workdir=tmp_path, step=lambda *_: ignore,
    )  # fmt: skip
    assert {line.kind for line in made.info.ops if line.op not in op_report.CONVERSIONS} == {OpKind.INTEGER}
    before, after = results(Model.read(source))[0], results(Model.read(output))[0]
    assert 10 * np.log10((before**2).sum() / ((before - after) ** 2).sum()) > 20
