"""Models that keep state: it is read from the file, and every check begins with the same state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_agent.inference import model, state
from tests import stateful

pytestmark = pytest.mark.convert

START = np.array(stateful.START, np.float32)
SAMPLES = stateful.samples()


class TestDetection:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (stateful.accumulator(), (False, True, (1,))),
            (stateful.accumulator(initialized=False), (False, True, ())),
            (stateful.svdf(), (True, False, ())),
            (stateful.stateless(), (False, False, ())),
        ],
    )
    def test_the_state_of_a_model_is_read_from_its_file(
        self, content: bytes, expected: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        assert tuple(state.read(str(path))) == expected

    def test_a_variable_that_only_its_initializer_assigns_is_a_constant(self, tmp_path: Path) -> None:
        assert not state.parse(stateful.constant_variable()).kept


@pytest.mark.parametrize("content", [stateful.accumulator(), stateful.svdf()])
@pytest.mark.parametrize("reloads", [False, True])
def test_a_fresh_model_has_the_state_of_a_loaded_one(tmp_path: Path, content: bytes, reloads: bool) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    loaded = model.load("ai_edge_litert", str(path))

    def run(row: int) -> Any:
        model.invoke(loaded, [SAMPLES], row)
        return model.output(loaded)

    first = [run(row) for row in range(3)]
    assert not np.array_equal(run(0), first[0]), "the model keeps state"
    if reloads:
        loaded = loaded._replace(interpreter=_OldRuntime(loaded.interpreter))
    loaded = model.fresh(loaded)
    np.testing.assert_array_equal([run(row) for row in range(3)], first)


class _OldRuntime:
    """An interpreter without the functions that reset variables, as other runtimes may be."""

    def __init__(self, interpreter: Any) -> None:
        for name in ("set_tensor", "get_tensor", "invoke"):
            setattr(self, name, getattr(interpreter, name))


@pytest.mark.slow
def test_health_check_bench_and_infer_begin_with_the_same_state(ready: Any, kit: Any) -> None:
    for number, (content, outputs) in enumerate(
        [(stateful.accumulator(), START + SAMPLES), (stateful.svdf(), SAMPLES)]
    ):
        bundle = kit.total_bundle(content, outputs, counter=number + 2)
        bundle.send(ready)
        assert ready.call("activate", **bundle.request()).result["changed"]
        assert ready.call("bench", model="total", runs=30, min_seconds=0.01).result["runs"] >= 30
        answered = ready.call("infer", kit.npz(input_0=SAMPLES), model="total", outputs=True).result
        np.testing.assert_array_equal(answered["outputs"], outputs)
        assert answered["sequences"] == len(SAMPLES)


@pytest.mark.slow
def test_samples_can_be_sequences(total: Any, kit: Any) -> None:
    ask = {"model": "total", "outputs": True, "window": 4}
    one = total.call("infer", kit.npz(input_0=SAMPLES), sequence=True, **ask).result
    np.testing.assert_array_equal(one["outputs"], START + np.cumsum(SAMPLES, axis=0))
    assert one["sequences"] == 1
    with_ids = kit.npz(input_0=SAMPLES, sequence_id=np.array([7, 7, 8, 8, 7, 7]))
    three = total.call("infer", with_ids, **ask).result
    expected = np.concatenate([np.cumsum(SAMPLES[start : start + 2], axis=0) for start in (0, 2, 4)])
    np.testing.assert_array_equal(three["outputs"], START + expected)
    assert three["sequences"] == 3


@pytest.mark.slow
def test_a_sequence_that_begins_with_an_unusable_sample_is_reset_all_the_same(total: Any, kit: Any) -> None:
    samples = SAMPLES.copy()
    samples[2] = np.nan
    payload = kit.npz(input_0=samples, sequence_id=np.array([1, 1, 2, 2, 2, 2]))
    outputs = total.call("infer", payload, model="total", outputs=True).result["outputs"]
    np.testing.assert_array_equal(outputs[3:], START + np.cumsum(samples[3:], axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("ids", [np.arange(5), np.zeros((6, 1), int), np.zeros(6)])
def test_ids_that_do_not_fit_the_samples_are_refused(total: Any, kit: Any, ids: Any) -> None:
    payload = kit.npz(input_0=SAMPLES, sequence_id=ids)
    error = total.call("infer", payload, model="total").error
    assert (error["code"], error["subject"]) == ("EQ512", "payload sequence_id")
