"""Sensitivity: planted weak spots are found, figures mean what they say, bad input is one line."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.cli import main
from edgeq.conversion import Recipe, convert
from edgeq.errors import DataError, ModelError, UsageError
from edgeq.evaluation.sensitivity import Sensitivity, analyze_sensitivity
from edgeq_converters.sensitivity.values import Sensitivity as Values
from edgeq_converters.values import Scheme
from edgeq_converters.worker.protocol import from_json, to_json

pytestmark = pytest.mark.convert

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def sensitivity_of(model: Path, *, calibration: Path, evaluation: Path, **options: Any) -> Sensitivity:
    return analyze_sensitivity(model, calibration=calibration, evaluation=evaluation, **options).sensitivity


@pytest.fixture(scope="module")
def planted(made_by: Callable[[str], Path]) -> Path:
    return made_by("make_planted.py")


@pytest.fixture(scope="module")
def measured(planted: Path) -> Callable[[str], Sensitivity]:
    kept: dict[str, Sensitivity] = {}

    def of(name: str) -> Sensitivity:
        if name not in kept:
            kept[name] = sensitivity_of(
                planted / f"{name}.tflite",
                calibration=planted / "calibration.npz",
                evaluation=planted / "evaluation.npz",
            )
        return kept[name]

    return of


Measured = Callable[[str], Sensitivity]


def convolutions(analysis: Sensitivity) -> list[int]:
    return [op.index for op in analysis.ops if op.op == "CONV_2D"]


@pytest.mark.slow
def test_an_outlier_in_the_weights_is_ranked_worst_and_leaving_it_float_helps(measured: Measured) -> None:
    analysis, even = measured("outlier"), measured("even")
    planted_at = convolutions(analysis)[2]
    worst = analysis.ops[analysis.ranking[0]]
    assert worst.index == planted_at
    assert worst.alone_db is not None
    assert worst.alone_db < 5
    assert worst.share is not None
    assert worst.share > 0.9
    assert worst.released_db == pytest.approx(even.int8_db, abs=1.0)
    assert analysis.float_steps[0].float_ops == (worst.name,)
    assert any(
        f"op {planted_at} (CONV_2D) costs" in line and "leave it float" in line for line in worst.advice
    )


@pytest.mark.slow
def test_a_channel_1000_times_the_others_flags_the_operations_on_both_sides(measured: Measured) -> None:
    analysis, even = measured("channels"), measured("even")
    writer, reader = convolutions(analysis)[2:4]
    assert set(analysis.ranking[:2]) == {writer, reader}
    spread = analysis.ops[writer].activation
    assert spread is not None
    assert spread.channel_ratio is not None
    assert spread.channel_ratio > 100
    assert any("times the median one" in line for line in analysis.ops[writer].advice)
    both = next(step for step in analysis.float_steps if len(step.float_ops) == 2)
    assert both.sqnr_db > even.int8_db - 1.0


@pytest.mark.slow
def test_an_even_model_has_no_broken_operation(measured: Measured) -> None:
    analysis = measured("even")
    assert analysis.int8_db > 12
    assert all(op.alone_db is None or op.alone_db > 12 for op in analysis.ops)


@pytest.mark.slow
def test_the_figures_are_consistent(measured: Measured) -> None:
    analysis = measured("even")
    seen = [op for op in analysis.ops if op.alone_db is not None]
    assert analysis.before == ("SOFTMAX",)
    assert analysis.ops[-1].op == "SOFTMAX"
    assert analysis.ops[-1].alone_db is None
    assert "after the logits" in analysis.ops[-1].reason
    assert [op.index for op in analysis.ops] == list(range(len(analysis.ops)))
    assert sum(op.share or 0.0 for op in seen) == pytest.approx(1.0)
    # With only the first operation int8, both ways of measuring are the same model.
    assert seen[0].cumulative_db == pytest.approx(seen[0].alone_db)
    assert seen[-1].cumulative_db == pytest.approx(analysis.int8_db)
    ranked = [analysis.ops[i].alone_db or math.inf for i in analysis.ranking]
    assert ranked == sorted(ranked)
    for op in seen:
        assert op.activation is not None
        low, high = op.activation.central
        assert op.activation.minimum <= low <= high <= op.activation.maximum
        assert len(op.activation.edges) == len(op.activation.counts) + 1
        assert op.local_db is not None


@pytest.mark.slow
def test_logits_are_the_output_where_no_softmax_follows(measured: Measured) -> None:
    analysis, cut = measured("logits"), measured("even")
    assert analysis.before == ()
    assert analysis.int8_db == pytest.approx(cut.int8_db, abs=0.1)


@pytest.mark.slow
def test_repeated_measurements_are_equal(planted: Path, measured: Measured) -> None:
    again = sensitivity_of(
        planted / "outlier.tflite",
        calibration=planted / "calibration.npz",
        evaluation=planted / "evaluation.npz",
    )
    assert again == measured("outlier")
    assert from_json(Values, json.loads(json.dumps(to_json(again)))) == again


@pytest.mark.slow
def test_a_note_says_that_fewer_samples_were_used(planted: Path) -> None:
    analysis = sensitivity_of(
        planted / "even.tflite",
        calibration=planted / "calibration.npz",
        evaluation=planted / "evaluation.npz",
        samples=20,
        float_steps=0,
    )
    assert analysis.samples == 20
    assert analysis.float_steps == ()
    assert any(line.startswith("20 of 150 evaluation samples") for line in analysis.notes)


@pytest.mark.slow
def test_operations_that_the_quantizer_does_not_know_are_not_ranked(models: Path, data: Path) -> None:
    analysis = sensitivity_of(models / "leaky.tflite", calibration=data, evaluation=data)
    unknown = [op for op in analysis.ops if op.op == "LEAKY_RELU"]
    assert unknown
    assert all("does not know" in op.reason and op.index not in analysis.ranking for op in unknown)


@pytest.mark.slow
def test_a_fixed_batch_of_four_is_measured_with_a_part_batch(
    models: Path, data: Path, tmp_path: Path
) -> None:
    samples = np.load(data)
    np.savez(tmp_path / "odd.npz", x=samples["x"][:11])
    analysis = sensitivity_of(models / "batch4.tflite", calibration=data, evaluation=tmp_path / "odd.npz")
    assert analysis.samples == 11
    assert math.isfinite(analysis.int8_db)


@pytest.mark.slow
def test_a_quantized_model_is_refused(planted: Path, tmp_path: Path) -> None:
    data = planted / "calibration.npz"
    done = convert(
        planted / "even.tflite", tmp_path / "q.tflite", recipe=Recipe(scheme=Scheme.INT8), calibration=data
    )
    with pytest.raises(ModelError) as caught:
        sensitivity_of(done.path, calibration=data, evaluation=data)
    assert caught.value.reported_code == "EQ304"


def test_nan_in_the_data_is_refused_by_name(planted: Path, tmp_path: Path) -> None:
    x = np.load(planted / "evaluation.npz")["x"].copy()
    x[3, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", x=x)
    with pytest.raises(DataError) as caught:
        sensitivity_of(
            planted / "even.tflite",
            calibration=planted / "calibration.npz",
            evaluation=tmp_path / "nan.npz",
        )
    assert caught.value.reported_code == "EQ204"
    assert "nan.npz" in caught.value.subject


def test_an_unknown_calibrator_says_the_nearest(planted: Path) -> None:
    data = planted / "calibration.npz"
    with pytest.raises(UsageError, match="percentile"):
        sensitivity_of(planted / "even.tflite", calibration=data, evaluation=data, calibrator="percentle")
    with pytest.raises(UsageError, match="auto"):
        sensitivity_of(planted / "even.tflite", calibration=data, evaluation=data, calibrator="auto")


def test_the_command_prints_one_document_and_writes_one_page(
    planted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    words = ["--workspace", tmp_path, "sensitivity", planted / "outlier.tflite"]
    words += ["--calibration", planted / "calibration.npz", "--evaluation", planted / "evaluation.npz"]
    assert main([str(word) for word in [*words, "--html", page, "--json"]]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "edgeq.sensitivity/1"
    worst = document["ops"][document["ranking"][0]]
    assert worst["op"] == "CONV_2D"
    assert document["walk"][0]["float_ops"] == [worst["name"]]
    text = page.read_text(encoding="utf-8")
    assert "Sensitivity of outlier" in text
    assert "leave it float" in text
    assert main([str(word) for word in words]) == 0
    assert "before SOFTMAX" in capfd.readouterr().out


def test_the_command_says_bad_input_in_one_line(
    planted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = str(planted / "calibration.npz")
    (tmp_path / "no.tflite").write_bytes(b"\x00" * 64)
    for model, code in ((tmp_path / "absent.tflite", "EQ301"), (tmp_path / "no.tflite", "EQ302")):
        words = ["--workspace", tmp_path, "sensitivity", model, "--calibration", data, "--evaluation", data]
        assert main([str(word) for word in words]) == 1
        error = capfd.readouterr().err
        assert f"error[{code}]" in error
        assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.shared
def test_ic_is_measured_whole_in_time() -> None:
    folder = SHARED / "ic"
    started_s = time.monotonic()
    analysis = sensitivity_of(
        folder / "pretrainedResnet.tflite",
        calibration=folder / "calibration.npz",
        evaluation=folder / "evaluation.npz",
    )
    seconds = time.monotonic() - started_s
    assert len(analysis.ops) == 16
    assert analysis.ops[analysis.ranking[0]].op == "AVERAGE_POOL_2D"
    assert seconds < 60
