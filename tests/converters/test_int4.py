"""4-bit weights: sensitive operations stay int8 to keep a target SQNR, and poor models give a warning."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from edgeq.conversion import Recipe, Scheme, Switch, convert
from edgeq.errors import ModelError, UsageError
from edgeq.evaluation import evaluate
from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.ranges import calibrated_ranges
from edgeq_converters.data.partition import FitSamples, Fold, HeldOutSamples
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import edit, kernels, logits, tflite_file
from edgeq_converters.graph.layers import KINDS
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.metrics import sqnr_db
from edgeq_converters.quantization import correction, int4
from edgeq_converters.quantization.quantize import quantize

from . import nets

pytestmark = pytest.mark.convert
PLAIN: dict[str, Any] = {
    "scheme": Scheme.INT4,
    "calibrator": "minmax",
    "bias_correction": Switch.OFF,
    "equalization": Switch.OFF,
}


@pytest.fixture(scope="module")
def fragile(made_by: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `fragile.tflite`: some weights of its third convolution are 5 times the others.

    They meet zero inputs. Eight bits have enough steps for the other weights beside them; four bits do not.
    """
    planted, folder = made_by("make_planted.py"), tmp_path_factory.mktemp("fragile")
    for name in ("calibration.npz", "evaluation.npz"):
        shutil.copy(planted / name, folder)
    model = Model.read(planted / "even.tflite")
    editor = edit.Editor(model)
    third = editor.parsed.subgraphs[0].tensors[int4.int4_candidates(model)[2].weights]
    weights = edit.constant(editor.parsed, third)
    weights[:, 1, 1, 0] = 5 * np.abs(weights).max()
    edit.set_constant(editor.parsed, third, weights)
    (folder / "fragile.tflite").write_bytes(editor.pack().data)
    return folder


def made(folder: Path, output: Path, **keys: Any) -> Any:
    recipe = Recipe(**{**PLAIN, **keys})
    return convert(folder / "fragile.tflite", output, recipe=recipe, calibration=folder / "calibration.npz")


def weight_types(model: Model) -> list[str]:
    graph = model.graph
    return [
        tflite_file.type_name(graph.tensors[operator.inputs[1]])
        for operator in graph.operators
        if tflite_file.op_name(model.parsed, operator) in KINDS
    ]


def kinds(path: Path) -> list[str]:
    return weight_types(Model.read(path))


def quality(folder: Path, path: Path) -> float:
    sqnr = evaluate(path, folder / "evaluation.npz", reference=folder / "fragile.tflite").output_sqnr_db
    assert sqnr is not None
    return sqnr


@pytest.mark.slow
def test_the_operation_that_four_bits_break_keeps_eight(fragile: Path, tmp_path: Path) -> None:
    chosen = made(fragile, tmp_path / "chosen.tflite", int4_sqnr_db=9.0)
    whole = made(fragile, tmp_path / "whole.tflite", int4_sqnr_db=0.0)
    assert kinds(whole.path) == ["INT4"] * 5
    assert kinds(chosen.path)[2] == "INT8"
    assert "INT4" in kinds(chosen.path)
    assert quality(fragile, chosen.path) > quality(fragile, whole.path) + 5
    assert whole.size_bytes < chosen.size_bytes
    assert any("as many as keep 9 dB" in note for note in chosen.notes)


@pytest.mark.slow
def test_a_poor_model_gives_a_warning_with_its_sqnr_and_the_remedy(fragile: Path, tmp_path: Path) -> None:
    whole = made(fragile, tmp_path / "whole.tflite", int4_sqnr_db=0.0)
    (warning,) = (each for each in whole.warnings if each.startswith("4-bit weights leave "))
    assert float(warning.split()[3]) < 15.0
    assert "edgeq tune --qat --scheme int4" in warning
    good = made(fragile, tmp_path / "good.tflite", int4_sqnr_db=60.0)  # none has four bits then
    assert not any(each.startswith("4-bit weights leave ") for each in (*good.notes, *good.warnings))


@pytest.mark.slow
def test_a_higher_target_sqnr_keeps_more_operations_at_8_bits(fragile: Path, tmp_path: Path) -> None:
    counts = []
    for level in (8.0, 12.0, 60.0):
        counts.append(kinds(made(fragile, tmp_path / "m.tflite", int4_sqnr_db=level).path).count("INT4"))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[1]
    assert counts[-1] == 0


@pytest.mark.slow
def test_the_same_samples_in_another_order_choose_the_same(fragile: Path, tmp_path: Path) -> None:
    with np.load(fragile / "calibration.npz") as kept:
        np.savez(tmp_path / "turned.npz", x=kept["x"][::-1])
    one = made(fragile, tmp_path / "one.tflite", int4_sqnr_db=9.0)
    recipe = Recipe(**{**PLAIN, "int4_sqnr_db": 9.0})
    source, output = fragile / "fragile.tflite", tmp_path / "other.tflite"
    other = convert(source, output, recipe=recipe, calibration=tmp_path / "turned.npz")
    assert "INT4" in kinds(one.path)
    assert one.sha256 == other.sha256


@pytest.mark.slow
def test_int8_ops_name_the_operations_that_keep_8_bits(fragile: Path, tmp_path: Path) -> None:
    first = int4.int4_candidates(Model.read(fragile / "fragile.tflite"))[0].name
    named = made(fragile, tmp_path / "named.tflite", int8_ops=(first,))
    assert kinds(named.path) == ["INT8"] + ["INT4"] * 4
    with pytest.raises(ModelError, match="int8_ops names") as caught:
        made(fragile, tmp_path / "none.tflite", int8_ops=("nothing",))
    assert caught.value.reported_code == "EQ330"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scheme": "int8", "int8_ops": ["x"]}, "int8_ops: only the scheme int4"),
        ({"scheme": "int4", "int4_sqnr_db": -1}, "int4_sqnr_db: expected decibels"),
        ({"scheme": "int4", "int4_sqnr_db": True}, "int4_sqnr_db: expected decibels"),
        ({"scheme": "int4", "int8_ops": "x"}, "int8_ops: expected a list of names"),
    ],
)
def test_invalid_recipes_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict({"schema": "edgeq.recipe/1", **keys}).check()


@pytest.mark.slow
def test_a_negative_int4_sqnr_is_a_usage_error(
    fragile: Path, tmp_path: Path, edgeq: Callable[..., Any]
) -> None:
    words = ["convert", fragile / "fragile.tflite", "-o", tmp_path / "o.tflite", "--scheme", "int4"]
    result = edgeq(*words, "--calibration", fragile / "calibration.npz", "--int4-sqnr-db", "-3")
    assert result.status == UsageError.exit_status
    assert "error[EQ101]" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "o.tflite").exists()


@pytest.mark.slow
def test_kernels_may_differ_by_rounding_only(
    fragile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Model.read(made(fragile, tmp_path / "whole.tflite", int4_sqnr_db=0.0).path)
    kernels.require_alike(whole)
    monkeypatch.setattr(kernels, "LEAST_DB", 400.0)
    with pytest.raises(ConverterError, match="optimized and plain kernels"):
        kernels.require_alike(whole)


def _at_most(limit: int, candidates: Sequence[int4.WeightedOperation]) -> bool:
    return len(candidates) <= limit


def test_operations_that_do_not_run_in_four_bits_are_noted_with_the_reason(
    fragile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LEAST_DB", 1e9)  # no two kernels are that alike
    model = normalize(Model.read(fragile / "fragile.tflite"))
    with np.load(fragile / "calibration.npz") as data:
        samples = Samples(inputs=model.inputs, arrays=(data["x"],))
    fold = Fold(fit=FitSamples(samples), held_out=HeldOutSamples(samples))
    recipe, notes = int4.choose(model, fold, recipe=Recipe(**PLAIN), step=lambda *_: nets.quiet)
    names = [each.name for each in int4.int4_candidates(model)]
    assert set(recipe.int8_ops) == set(names)
    assert notes[1:] == (
        f"8-bit weights in `{names[0]}` and {len(names) - 1} more:"
        " the runtime's optimized and plain kernels give different results",
    )


def test_bisection_finds_the_largest_number_that_holds() -> None:
    each = tuple(int4.WeightedOperation(name=str(i), weights=i, count=1) for i in range(9))
    for limit in range(10):
        assert int4.most_that_hold(each, partial(_at_most, limit)) == limit


@given(st.lists(st.integers(-8, 7), max_size=40))
def test_four_bit_constants_are_read_as_they_were_written(values: list[int]) -> None:
    parsed = schema.ModelT()
    parsed.buffers = [schema.BufferT()]
    tensor = schema.TensorT()
    tensor.type, tensor.buffer, tensor.shape = schema.TensorType.INT4, 0, np.array([len(values)], np.int32)
    edit.set_constant(parsed, tensor, np.array(values, np.int8))
    assert len(parsed.buffers[0].data) == (len(values) + 1) // 2
    np.testing.assert_array_equal(edit.constant(parsed, tensor), np.array(values, np.int8))


@pytest.fixture(scope="module")
def four_bits() -> tuple[Model, Model, Model]:
    """(float net, its int4 model before correction, after it)."""
    model = nets.net(spread=0.5)
    few = nets.samples(model)
    ranges = calibrated_ranges(model, observe(model, few, advance=nets.quiet), calibrator="minmax")
    plain = quantize(model, recipe=Recipe(scheme=Scheme.INT4), ranges=ranges).model
    return model, plain, correction.correct(model, plain, few, advance=nets.quiet)


def test_correction_rounds_four_bit_weights_again(four_bits: tuple[Model, Model, Model]) -> None:
    model, plain, corrected = four_bits
    other = nets.samples(model, 200, seed=6)
    expected = nets.at_logits(model, other)
    before, after = (sqnr_db([nets.at_logits(made, other)], [expected]) for made in (plain, corrected))
    assert after > before + 4
    assert weight_types(corrected) == weight_types(plain) == ["INT4", "INT8", "INT4", "INT4"]
    assert len(corrected.data) <= len(plain.data)


def test_the_runtime_computes_with_the_four_bit_constants_that_are_read_here(
    four_bits: tuple[Model, Model, Model],
) -> None:
    model, _, corrected = four_bits
    editor = edit.Editor(corrected)
    for tensor in editor.parsed.subgraphs[0].tensors:
        if tflite_file.type_name(tensor) == "INT4":
            values = edit.constant(editor.parsed, tensor)
            assert np.abs(values).max() == 7
            tensor.type = schema.TensorType.INT8
            edit.set_constant(editor.parsed, tensor, values)
    other = nets.samples(model, 20, seed=6)
    step = logits.cut(corrected).model.outputs[0].scale
    assert step is not None
    # The kernels of both types round the last digit differently.
    nearly = 1.01 * step
    np.testing.assert_allclose(
        nets.at_logits(editor.pack(), other), nets.at_logits(corrected, other), atol=nearly
    )
