"""States that pass from an output to an input: recognized, recorded, quantized with one scale, and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.ranges import TensorRange  # noqa: E402
from edgeq_converters.data import files  # noqa: E402
from edgeq_converters.data.files import RawSamples  # noqa: E402
from edgeq_converters.data.labels import check_labels  # noqa: E402
from edgeq_converters.data.partition import partition  # noqa: E402
from edgeq_converters.data.samples import Samples, subset, to_real  # noqa: E402
from edgeq_converters.data.sequences import in_steps, match_sequences  # noqa: E402
from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph import carried_states, tflite_file  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter, run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.quantization.backends import litert  # noqa: E402
from edgeq_converters.quantization.quantize import unexpected_float_ops  # noqa: E402
from edgeq_converters.recipe import Effort, Recipe  # noqa: E402
from edgeq_converters.values import CarriedState, Caution, OpKind, Scheme, TensorInfo  # noqa: E402
from edgeq_converters.worker.jobs import sensitivity  # noqa: E402
from edgeq_converters.worker.jobs.convert import Converted, convert  # noqa: E402
from edgeq_converters.worker.protocol import SensitivityJob  # noqa: E402
from edgeq_converters.worker.stateful_samples import matched  # noqa: E402
from tests import streaming  # noqa: E402
from tests.converters.graphs import Graph  # noqa: E402

STATE = (CarriedState(input=1, output=1),)
COUNT, STEPS = 16, 20


def _model(data: bytes = b"") -> Model:
    model = Model(data=data or streaming.gru(), subject="m")
    return carried_states.declared(model, carried_states.carried(model).states)


def _raw(x: Any, **more: Any) -> RawSamples:
    return RawSamples(subject="d", arrays={"x": x}, **more)


def _by_hand(model: Model, x: Any) -> tuple[Any, Any]:
    """Return (answers, states that were fed) of sequences (n, steps, width), fed back as a device does it."""
    interpreter = Interpreter(model)
    answers, fed = [], []
    for sequence in x:
        state = to_zero(interpreter)
        for row in sequence:
            fed.append(state)
            interpreter.run([to_input(interpreter, row[None]), state])
            answer, state = interpreter.results()
            answers.append(answer[0])
    return np.array(answers), np.concatenate(fed)


def to_zero(interpreter: Interpreter) -> Any:
    detail = interpreter.inputs[1]
    return np.full(detail["shape"], detail["quantization"][1], detail["dtype"])


def to_input(interpreter: Interpreter, row: Any) -> Any:
    detail = interpreter.inputs[0]
    scale, zero = detail["quantization"]
    return row if not scale else np.clip(np.rint(row / scale) + zero, -128, 127).astype(detail["dtype"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (["x", "state"], ["y", "stateN"], [(1, 1)]),
        (["h_in", "x"], ["h_out", "y"], [(0, 0)]),
        (["x", "h0", "c0"], ["y", "hn", "cn"], [(1, 1), (2, 2)]),
        (["serving_default_hidden_state:0", "x"], ["y", "next_hidden_state"], [(0, 1)]),
        (["audio", "encoder.cell.prev", "decoder.cell.prev"],
         ["decoder.cell.next", "y", "encoder.cell.next"], [(1, 2), (2, 0)]),
        (["image", "mask"], ["image_out", "mask_out"], []),  # nothing says that these are states
        (["x"], ["x_out"], []),
        (["state"], ["state_out"], []),  # nothing would be left to give
        (["x", "state"], ["state_a", "state_b"], []),
        (["x", "state"], ["state_out", "state_next"], []),  # either of them
    ],
)  # fmt: skip
def test_names_that_make_states_certain(inputs: list[str], outputs: list[str], expected: Any) -> None:
    graph = Graph()
    given = {name: graph.tensor(f"i{n}", (1, 2)) for n, name in enumerate(inputs)}
    taken = {name: graph.tensor(f"o{n}", (1, 2)) for n, name in enumerate(outputs)}
    for index in taken.values():
        graph.op("TANH", [next(iter(given.values()))], [index])
    model = Model(data=streaming.signed(graph, given, taken), subject="m")
    assert [(each.input, each.output) for each in carried_states.certain(model)] == expected


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([("hidden", "h_out")], "no input `hidden`"),
        ([("h_in", "h")], "no output `h`"),
        ([("h_in", "y")], "cannot be the next value"),
        ([("h_in", "h_out"), ("h_in", "h_out")], "another state has"),
    ],
)
def test_states_that_the_model_does_not_have_are_refused(pairs: Any, problem: str) -> None:
    with pytest.raises(ConverterError, match=problem) as caught:
        carried_states.carried(_model(), pairs)
    assert caught.value.code == "EQ341"
    assert "--state" in str(caught.value.hint)


def test_an_unknown_input_is_named_before_the_data_is_judged() -> None:
    inputs = _model().inputs
    with pytest.raises(ConverterError, match="no input `hidden`") as caught:
        carried_states.possible(inputs, [("hidden", "h_out")], subject="m")
    assert caught.value.code == "EQ341"
    with pytest.raises(ConverterError) as caught:
        match_sequences(_raw(streaming.sequences(3, 4)), inputs, states=())
    assert "--state INPUT=OUTPUT" in str(caught.value.hint)


@pytest.mark.parametrize("data", [streaming.gru(), streaming.rnn()], ids=["gru", "rnn"])
def test_a_state_that_is_read_too_stays_integer_between_float_ends(data: bytes) -> None:
    model = prepared(_model(data))
    ranges = {
        tflite_file.tensor_name(tensor): TensorRange.per_tensor(-1.0, 1.0)
        for _, tensor in tflite_file.activations(model.parsed)
    }
    recipe = Recipe(scheme=Scheme.INT8_MIXED, io="float32")
    made = litert.quantize(model, recipe=recipe, ranges=ranges)
    assert unexpected_float_ops(made, recipe=recipe) == ()
    Interpreter(made)


def test_the_file_names_its_states() -> None:
    plain = Model(data=streaming.gru(names=("a", "b")), subject="m")
    assert carried_states.carried(plain).states == ()
    named = carried_states.declared(plain, carried_states.by_names(plain, [("a", "b")]))
    assert carried_states.carried(Model(data=named.data, subject="m")).states == STATE
    assert carried_states.declared(named, STATE) is named
    assert carried_states.read(carried_states.declared(named, ())) == ()


@pytest.mark.parametrize("io", ["int8", "float32"])
@pytest.mark.parametrize("kept", [("y",), ("h_out",), ("h_out", "y"), ("added", "h_out", "y"), ("kept", "y")])
def test_operations_around_a_state_may_stay_float(kept: tuple[str, ...], io: str) -> None:
    model = prepared(_model())
    ranges = {
        tflite_file.tensor_name(tensor): TensorRange.per_tensor(-1.0, 1.0)
        for _, tensor in tflite_file.activations(model.parsed)
    }
    recipe = Recipe(scheme=Scheme.INT8_MIXED, io=io, float_ops=kept)
    made = litert.quantize(model, recipe=recipe, ranges=ranges)
    assert unexpected_float_ops(made, recipe=recipe) == ()
    Interpreter(made)


def test_arrays_of_whole_sequences_are_taken_apart() -> None:
    x = streaming.sequences(3, 5)
    model = _model()
    whole = match_sequences(_raw(x), model.inputs, states=[1])
    ids = np.repeat(["a", "b", "c"], 5)
    single = match_sequences(_raw(x.reshape(15, -1), sequence_ids=ids), model.inputs, states=[1])
    for one, other in zip(whole.arrays, single.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.begins, single.begins)
    assert whole.sequences == 3
    labels = in_steps(_raw(x, labels=np.arange(15).reshape(3, 5)), model.inputs, [1]).labels
    np.testing.assert_array_equal(labels, np.arange(15))
    first = np.ones((3, streaming.UNITS), np.float32)
    begun = RawSamples(subject="d", arrays={"x": x, "h_in": first})
    np.testing.assert_array_equal(match_sequences(begun, model.inputs, states=[1]).arrays[1], 1)
    with pytest.raises(ConverterError, match="`x` of shape"):
        match_sequences(_raw(x[..., None]), model.inputs, states=[1])


def test_ids_beside_whole_sequences_join_the_parts_of_one_id() -> None:
    x, model = streaming.sequences(4, 5), _model()
    for ids in (np.array([7, 7, 8, 9]), np.repeat([7, 7, 8, 9], 5).reshape(4, 5)):
        joined = match_sequences(_raw(x, sequence_ids=ids), model.inputs, states=[1])
        assert joined.begins is not None
        np.testing.assert_array_equal(np.flatnonzero(joined.begins), [0, 10, 15])
    with pytest.raises(ConverterError, match="`sequence_id` of shape"):
        match_sequences(_raw(x, sequence_ids=np.arange(3)), model.inputs, states=[1])


@pytest.mark.parametrize("other", [(3, 5, 2), (3, 2), (12, 2)])
def test_inputs_with_other_steps_are_named_with_their_shapes(other: tuple[int, ...]) -> None:
    inputs = [
        TensorInfo(name="x", shape=(1, 4), dtype="float32"),
        TensorInfo(name="z", shape=(1, 2), dtype="float32"),
    ]
    arrays = {"x": streaming.sequences(3, 4), "z": np.zeros(other, np.float32)}
    with pytest.raises(ConverterError) as caught:
        match_sequences(RawSamples(subject="d", arrays=arrays), inputs, states=())
    assert caught.value.code == "EQ203"
    assert caught.value.got == f"`x` (3, 4, 4), `z` {other}"


def test_notes_say_how_samples_were_taken_apart() -> None:
    x, model = streaming.sequences(3, 4), _model()
    (note,) = match_sequences(_raw(x), model.inputs, states=[1]).notes
    assert "3 sequences of 4 steps" in note
    flat = x.reshape(12, -1)
    assert not match_sequences(_raw(flat, sequence_ids=np.repeat([0, 1], 6)), model.inputs, states=[1]).notes
    mixed = _raw(flat, sequence_ids=np.tile([0, 1], 6))
    (note,) = match_sequences(mixed, model.inputs, states=[1]).notes
    assert isinstance(note, Caution)
    assert "12 sequences" in note


def test_a_label_for_each_sequence_is_refused_with_the_shape() -> None:
    with pytest.raises(ConverterError) as caught:
        check_labels(np.zeros(3, np.int64), samples=12, classes=3, subject="d")
    assert "(sequences, steps)" in str(caught.value.hint)


def test_a_state_of_a_larger_batch_begins_with_zeros_for_each_sample() -> None:
    graph = Graph()
    x, h = graph.tensor("x", (2, 4)), graph.tensor("state", (2, 8))
    new, y = graph.tensor("stateN", (2, 8)), graph.tensor("y", (2, 4))
    graph.op("TANH", [h], [new])
    graph.op("TANH", [x], [y])
    model = _model(streaming.signed(graph, {"x": x, "state": h}, {"y": y, "stateN": new}))
    samples = match_sequences(_raw(np.ones((6, 4), np.float32)), model.inputs, states=[1])
    assert [each.shape for each in samples.arrays] == [(6, 4), (6, 8)]
    assert samples.batch == 2


def test_states_are_carried_within_sequences_and_recorded() -> None:
    x = streaming.sequences(4, 6)
    model = _model()
    samples, notes = matched(_raw(x), model)
    answers, fed = _by_hand(model, x)
    np.testing.assert_allclose(run_samples(model, samples, advance=ignore)[0], answers, rtol=1e-6)
    np.testing.assert_allclose(samples.arrays[1], fed, rtol=1e-6)
    assert notes == []
    part = subset(samples, 9)
    assert part.begins is not None
    assert part.begins is not None
    np.testing.assert_array_equal(np.flatnonzero(part.begins), [0, 2, 4, 6])
    _, notes = matched(_raw(x.reshape(24, -1)), model)
    assert "nothing says which samples follow each other" in notes[0]


def test_sequences_are_held_out_whole_and_go_on() -> None:
    samples, _ = matched(_raw(streaming.sequences(COUNT, 4)), _model())
    for fold in partition(samples, seed=0).folds:
        assert fold.held_out.carries
        assert len(fold.held_out) == 4 * fold.held_out.sequences
        assert fold.fit.begins is None
        assert len(fold.fit) + len(fold.held_out) == len(samples)


def _converted(
    tmp_path: Path, data: bytes, *, scheme: Scheme = Scheme.INT8, x: Any = None, **recipe: Any
) -> tuple[Model, Converted]:
    source, output, calibration = tmp_path / "f.tflite", tmp_path / "q.tflite", tmp_path / "c.npz"
    source.write_bytes(data)
    np.savez(calibration, x=streaming.sequences(COUNT, STEPS) if x is None else x)
    done = convert(
        source,
        output,
        recipe=Recipe(scheme=scheme, effort=Effort.QUICK, **recipe),
        data=calibration,
        workdir=tmp_path,
        step=lambda what, total: ignore,
    )
    return Model(data=output.read_bytes(), subject="q"), done


def _drift_db(floating: Model, quantized: Model, *, steps: int) -> tuple[float, float]:
    """Return the SQNR of the answers in the first half of new sequences, and in the second."""
    x = streaming.sequences(8, steps, seed=9)
    real, _ = _by_hand(floating, x)
    integers, _ = _by_hand(quantized, x)
    values = to_real(integers, quantized.outputs[0])
    early = np.tile(np.arange(steps) < steps // 2, len(x))
    return (
        sqnr_db([values[early]], [real[early].astype(np.float64)]) or np.inf,
        sqnr_db([values[~early]], [real[~early].astype(np.float64)]) or np.inf,
    )


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("data", "names"),
    [(streaming.gru(), ()), (streaming.gru(names=("a", "b")), (("a", "b"),)), (streaming.rnn(), ())],
    ids=["gru", "named", "rnn"],
)
def test_an_integer_state_is_fed_back_as_it_is(tmp_path: Path, data: bytes, names: Any) -> None:
    quantized, done = _converted(tmp_path, data, states=names)
    assert {line.kind for line in done.info.ops} == {OpKind.INTEGER}
    given, taken = quantized.inputs[1], quantized.outputs[1]
    assert (given.dtype, given.scale, given.zero_point) == (taken.dtype, taken.scale, taken.zero_point)
    assert carried_states.read(quantized) == STATE
    early, late = _drift_db(Model(data=data, subject="f"), quantized, steps=40)
    assert min(early, late) > 20
    samples = match_sequences(_raw(streaming.sequences(3, 7)), quantized.inputs, states=[1])
    by_hand, _ = _by_hand(quantized, streaming.sequences(3, 7))
    np.testing.assert_array_equal(run_samples(quantized, samples, advance=ignore)[0], by_hand)
    assert done.claim is not None


def test_a_state_whose_scale_a_kernel_fixes_gets_that_of_its_input() -> None:
    graph = Graph()
    x, held = graph.tensor("x", (1, 4), dtype=np.int8), graph.tensor("h", (1, 4), dtype=np.int8, scale=0.5)
    total = graph.tensor("total", (1, 4), dtype=np.int8, scale=1.0)
    following = graph.tensor("hn", (1, 4), dtype=np.int8, scale=1 / 128)
    graph.op("ADD", [x, held], [total], options="AddOptions")
    graph.op("TANH", [total], [following])
    data = streaming.signed(graph, {"x": x, "h": held}, {"y": total, "hn": following})
    uneven = carried_states.declared(Model(data=data, subject="m"), STATE)
    even = carried_states.with_one_scale(uneven)
    assert even.outputs[1].name == "hn"
    assert (even.inputs[1].scale, even.inputs[1].zero_point) == (
        even.outputs[1].scale,
        even.outputs[1].zero_point,
    )
    assert carried_states.read(even) == STATE
    rows = [np.array([[-128, -3, 1, 90]], np.int8), np.array([[5, 0, -1, 7]], np.int8)]
    results = []
    for model in (uneven, even):
        interpreter = Interpreter(model)
        interpreter.run(rows)
        results.append([to_real(*each) for each in zip(interpreter.results(), model.outputs, strict=True)])
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert np.abs(results[0][1] - results[1][1]).max() <= 0.25
    assert carried_states.with_one_scale(even) is even


def test_samples_without_sequences_are_as_they_were() -> None:
    model = _model()
    x = streaming.sequences(2, 3).reshape(6, -1)
    states = np.random.default_rng(0).normal(size=(6, streaming.UNITS)).astype(np.float32)
    raw = RawSamples(subject="d", arrays={"x": x, "h_in": states})
    samples, notes = matched(raw, model)
    assert notes == []
    assert not samples.carries
    alone = Samples(inputs=model.inputs, arrays=(x, states))
    np.testing.assert_array_equal(
        run_samples(model, samples, advance=ignore)[0], run_samples(model, alone, advance=ignore)[0]
    )
    assert files.SEQUENCES not in raw.arrays


@pytest.mark.slow
def test_the_sensitivity_of_a_model_with_states_is_measured(tmp_path: Path) -> None:
    source, data = tmp_path / "f.tflite", tmp_path / "c.npz"
    source.write_bytes(streaming.gru())
    np.savez(data, x=streaming.sequences(COUNT, 10))
    job = SensitivityJob(
        model=source, calibration=data, evaluation=data, calibrator="minmax", samples=100, float_steps=1
    )
    measured = sensitivity.run(job, lambda what, total: ignore)
    assert {output.name for output in measured.int8_outputs} == {"y", "h_out"}
    assert measured.int8_db > 15
