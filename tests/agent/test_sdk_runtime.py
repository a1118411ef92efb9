"""The SDK gives the model's own outputs for every accepted type and shape of input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeq_agent import Runtime, errors
from edgeq_agent.inference.model import Tensor
from edgeq_agent.sdk.errors import InferenceError, InputMismatch, InputNotFinite, RuntimeClosed
from edgeq_agent.sdk.tensors import Drain

pytestmark = pytest.mark.convert


def _expected(kit: Any, tiny_models: Path, samples: Any) -> SimpleNamespace:
    integers, raw = kit.run_here(tiny_models / "int8.tflite", samples)
    return SimpleNamespace(integers=integers, raw=raw, real=(raw.astype(np.float32) + 128) / 256)


def test_real_values_in_and_out(serving: Any, tiny_models: Path, tiny_data: Any, kit: Any) -> None:
    expected = _expected(kit, tiny_models, tiny_data[:40])
    with Runtime("tiny", str(serving.home)) as rt:
        for number, sample in enumerate(tiny_data[:40]):
            answer = rt.infer(sample)
            assert (answer.dtype, answer.shape) == (np.float32, (3,))
            np.testing.assert_array_equal(answer, expected.real[number])
            np.testing.assert_array_equal(rt.infer(sample, raw=True), expected.raw[number])
            np.testing.assert_array_equal(rt.infer(expected.integers[number]), expected.real[number])


@pytest.mark.parametrize(
    ("dtype", "scale", "expected"),
    [("int8", 0.5, "float32"), ("float32", 0.0, "float32"), ("int64", 0.0, "int64"), ("bool", 0.0, "bool")],
)
def test_an_output_that_is_not_quantized_keeps_its_type(dtype: str, scale: float, expected: str) -> None:
    drain = Drain(Tensor("y", 0, [2], np.dtype(dtype), scale, 0))
    real = drain.real(np.array([[0, 1]], dtype))
    assert (real.dtype.name, real.tolist()) == (expected, [[0, scale or 1]])


def test_outputs_equal_those_of_the_verb_infer(serving: Any, tiny_data: Any, kit: Any) -> None:
    samples = np.random.default_rng(3).normal(scale=3, size=(50, 6, 6, 2))
    by_verb = serving.call("infer", kit.npz(input_0=samples), model="tiny", outputs=True).result["outputs"]
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        outputs = [rt.infer(sample) for sample in samples]
    np.testing.assert_allclose(outputs, by_verb, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int32", "bool"])
def test_other_types_are_real_values(
    serving: Any, tiny_models: Path, tiny_data: Any, kit: Any, dtype: str
) -> None:
    samples = np.abs(tiny_data[:5]).astype(dtype)
    expected = _expected(kit, tiny_models, samples.astype(np.float64))
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        np.testing.assert_array_equal([rt.infer(sample) for sample in samples], expected.real)
        np.testing.assert_array_equal(rt.infer(samples[0].tolist()), expected.real[0])


def test_the_answer_has_a_batch_axis_if_the_input_has(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        with_axis, without = rt.infer(tiny_data[:1]), rt.infer(tiny_data[0])
        assert (with_axis.shape, without.shape) == ((1, 3), (3,))
        np.testing.assert_array_equal(with_axis[0], without)
        strided = np.asfortranarray(tiny_data[0])[::-1][::-1]
        np.testing.assert_array_equal(rt.infer(strided), without)
        named = rt.infer({rt.inputs[0].name: tiny_data[0]})
        np.testing.assert_array_equal(named, without)


def test_answers_do_not_share_memory(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        for raw in (False, True):
            first = rt.infer(tiny_data[0], raw=raw)
            kept = first.copy()
            rt.infer(tiny_data[1], raw=raw)[:] = 0
            np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (np.zeros((6, 6, 3), np.float32), "(6, 6, 3) of float32"),
        (np.zeros((2, 6, 6, 2), np.float32), "(2, 6, 6, 2) of float32"),
        (np.zeros((), np.float32), "() of float32"),
        (np.zeros((6, 6, 2), np.complex64), "(6, 6, 2) of complex64"),
        (np.full((6, 6, 2), "a"), "(6, 6, 2) of <U1"),
        (None, "() of object"),
    ],
)
def test_an_input_that_does_not_match_is_refused(serving: Any, given: Any, got: str) -> None:
    with Runtime("tiny", str(serving.home)) as rt:
        with pytest.raises(InputMismatch) as caught:
            rt.infer(given)
        assert rt.infer(np.zeros((6, 6, 2))).shape == (3,)
    assert (caught.value.code, caught.value.got) == ("EQ540", got)
    assert "(6, 6, 2) of int8, or real values of float32" in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("given", [{}, {"x": 1}, {"a": 1, "b": 2}])
def test_unknown_input_names_are_refused(serving: Any, given: Any) -> None:
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        name = rt.inputs[0].name
        with pytest.raises(InputMismatch, match=name):
            rt.infer(given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("release", ["current", "previous"])  # float, int8
def test_an_input_that_is_not_finite_is_refused(
    both: Any, tiny_data: Any, value: float, release: str
) -> None:
    sample = tiny_data[0].copy()
    sample[5, 5, 1] = value
    with Runtime("tiny", str(both.home), split={release: 1.0}) as rt:
        with pytest.raises(InputNotFinite) as caught:
            rt.infer(sample)
        assert caught.value.code == "EQ541"
        # Infinities of both signs add up to NaN, huge values to infinity: only the first is refused.
        sample[0, 0, 1] = -value
        with pytest.raises(InputNotFinite):
            rt.infer(sample)
        assert np.isfinite(rt.infer(np.full((6, 6, 2), 3e38, np.float32))).all()


def test_doubles_that_overflow_are_refused(both: Any) -> None:
    with Runtime("tiny", str(both.home), telemetry=False) as rt, pytest.raises(InputNotFinite):
        rt.infer(np.full((6, 6, 2), 1e300))


def test_the_runtime_describes_the_model(serving: Any, int8_bundle: Any) -> None:
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        assert rt.release == int8_bundle.release
        assert rt.releases == {"default": int8_bundle.release}
        assert rt.kernels in ("xnnpack", "builtin", "unknown")
        (entry,), (exit_,) = rt.inputs, rt.outputs
        assert (entry.shape, entry.dtype, entry.quantized) == ((1, 6, 6, 2), np.int8, True)
        assert (exit_.shape, exit_.scale, exit_.zero_point) == ((1, 3), 1 / 256, -128)
        assert ":" not in entry.name
        assert "serving_default" not in entry.name


_TWO = """
import sys
import tensorflow as tf

left, right = tf.keras.Input((4,), name="left"), tf.keras.Input((2, 3), name="right")
total = tf.keras.layers.Add(name="total")([left, left])
flat = tf.keras.layers.Flatten(name="flat")(right)
model = tf.keras.Model([left, right], [total, flat])
open(sys.argv[1], "wb").write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
"""


@pytest.mark.slow
def test_several_inputs_and_outputs(ready: Any, kit: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.tflite"
    done = subprocess.run(
        [sys.executable, "-c", _TWO, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    random = np.random.default_rng(1)
    left = random.normal(size=(3, 4)).astype(np.float32)
    right = random.normal(size=(3, 2, 3)).astype(np.float32)
    shown = _details(path)
    by_size = {4: (left, left + left), 6: (right, right.reshape(3, 6))}
    arrays = {f"input_{number}": by_size[size][0] for number, size in enumerate(shown.inputs)}
    arrays.update({f"output_{number}": by_size[size][1] for number, size in enumerate(shown.outputs)})
    from edgeq_agent import wire

    reference = {"schema": wire.REFERENCE_SCHEMA, "inputs": [], "output": {"classes": shown.outputs[0]}}
    files = {
        "model.tflite": path.read_bytes(),
        "golden.npz": kit.npz(**arrays),
        "reference.json": wire.canonical(reference),
    }
    bundle = kit.bundle_from(files, samples=3, name="two")
    bundle.send(ready)
    assert ready.call("activate", **bundle.request()).result["changed"]
    with Runtime("two", str(ready.home)) as rt:
        names = {info.shape: info.name for info in rt.inputs}
        given = {names[1, 4]: left[0], names[1, 2, 3]: right[0]}
        outputs = rt.infer(given)
        assert sorted(outputs) == sorted(info.name for info in rt.outputs)
        answers = {value.size: value for value in outputs.values()}
        np.testing.assert_allclose(answers[4], left[0] * 2)
        np.testing.assert_allclose(answers[6], right[0].reshape(-1))
        for wrong in (
            left[0],
            {names[1, 4]: left[0]},
            {**given, "more": 1},
            {**given, names[1, 4]: left[:1]},
        ):
            with pytest.raises(InputMismatch):
                rt.infer(wrong)


def _details(path: Path) -> SimpleNamespace:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    return SimpleNamespace(
        inputs=[int(np.prod(detail["shape"])) for detail in interpreter.get_input_details()],
        outputs=[int(np.prod(detail["shape"])) for detail in interpreter.get_output_details()],
    )


def test_a_closed_runtime_refuses_calls(serving: Any, tiny_data: Any) -> None:
    rt = Runtime("tiny", str(serving.home))
    rt.close()
    rt.close()
    with pytest.raises(RuntimeClosed, match="EQ543"):
        rt.infer(tiny_data[0])
    with pytest.raises(RuntimeClosed):
        _ = rt.release


def test_a_model_without_a_release_is_refused(serving: Any) -> None:
    with pytest.raises(errors.AgentError) as caught:
        Runtime("nobody", str(serving.home))
    assert (caught.value.code, caught.value.expected) == ("EQ510", "one of tiny")
    with pytest.raises(errors.AgentError) as caught:
        Runtime("../tiny", str(serving.home))
    assert caught.value.code == "EQ512"


def test_the_home_comes_from_the_environment(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_HOME", str(serving.home))
    with Runtime("tiny", telemetry=False) as rt:
        assert rt.infer(np.zeros((6, 6, 2))).shape == (3,)


def test_an_application_that_forgets_to_close_loses_no_window(serving: Any, kit: Any) -> None:
    code = (
        "import numpy as np; from edgeq_agent import Runtime\n"
        f"rt = Runtime('tiny', {str(serving.home)!r})\n"
        "for _ in range(7): rt.infer(np.zeros((6, 6, 2), np.float32))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False,
        env=serving.environment, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (event,) = serving.call("telemetry").of("window")
    assert event["window"]["inferences"] == 7


def test_the_import_of_the_verbs_stays_quick() -> None:
    code = (
        "import sys, edgeq_agent, edgeq_agent.__main__\n"
        "heavy = ('edgeq_agent.sdk', 'edgeq_agent.http', 'numpy')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_error_has_its_own_code_and_says_it() -> None:
    classes = InferenceError.__subclasses__()
    assert len({cls.kind_code for cls in classes}) == len({cls.kind for cls in classes}) == len(classes)
    text = str(InputMismatch("input x", expected="a", got="b", hint="do c"))
    assert text == "EQ540: input x: expected a, got b (do c)"


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pool", [-1, 1.5, "2", True, 10**9]),
        ("threads", [0, -1, 1.5, "1", 10**9]),
        ("poll_s", [0, -1, NAN, INF, 1e300, "1"]),
        ("window", [0, -5, 1.5, "x", 10**30]),
        ("window_s", [0, -1, NAN, INF, "x"]),
        ("window_least_s", [-1, NAN, INF, "x"]),
        ("deadline_s", [0, -1, NAN, INF, "x"]),
        ("sessions", [-1, 1.5, True]),
        ("session_idle_s", [0, NAN, INF]),
        ("session_finish_s", [0, NAN, INF]),
        ("on_swap", ["x", None]),
        ("feedback", [0, 1.5, True]),
        ("split", ["current", 5, [0.5]]),
        ("shadow", [5, True]),
        ("shadow_fraction", [0, -1, 1.5, NAN, INF, "x", None, True]),
        ("model", ["", "../x", "a\nb", None, 5]),
    ],
)
def test_an_argument_that_no_runtime_can_use_is_refused_at_once(
    name: str, values: list[Any], tmp_path: Path
) -> None:
    for value in values:
        arguments: dict[str, Any] = {"model": "tiny", "home": str(tmp_path), name: value}
        with pytest.raises(errors.AgentError, match=f"^EQ512: {name}: expected "):
            Runtime(**arguments)


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", ["", 0, 5, b"x", ("a",)])
def test_the_name_of_a_session_is_a_text(serving: Any, name: Any) -> None:
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        with pytest.raises(errors.AgentError, match=r"^EQ512: name: expected a text"):
            rt.session(name)
        assert rt.open_sessions == 0
