"""Two of MLPerf Tiny's reference models: int8 is as accurate as theirs, int4 within a point of int8."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.conversion import OpKind, Recipe, Scheme, Switch, convert
from edgeq.evaluation import evaluate

pytestmark = [pytest.mark.shared, pytest.mark.convert, pytest.mark.slow]
DATA = Path(__file__).parents[3] / "shared" / "data"
MODELS = {
    "keyword spotting": ("kws", "saved_model", "kws_ref_model.tflite", 26.0, 0.985),
    "image classification": ("ic", "pretrainedResnet.h5", "pretrainedResnet_quant.tflite", 21.0, 0.95),
}


@pytest.mark.parametrize("name", MODELS)
def test_int8_is_as_accurate_as_the_published_int8(name: str, tmp_path: Path) -> None:
    folder, source, published, least_db, least_agreement = MODELS[name]
    if not (DATA / folder / source).exists():
        pytest.skip("the real models are not beside this checkout (../shared/data)")
    calibration, evaluation = DATA / folder / "calibration.npz", DATA / folder / "evaluation.npz"
    reference = convert(DATA / folder / source, tmp_path / "float.tflite", scheme="float32")
    done = convert(reference.path, tmp_path / "int8.tflite", scheme="int8", calibration=calibration)
    assert {line.kind for line in done.op_report} == {OpKind.INTEGER}
    ours = evaluate(done.path, evaluation, reference=reference.path)
    theirs = evaluate(DATA / folder / published, evaluation)
    print(f"{name}: {ours}, published accuracy {theirs.accuracy}, {reference.seconds + done.seconds:.1f} s")  # noqa: T201
    assert ours.accuracy is not None
    assert theirs.accuracy is not None
    assert ours.accuracy >= theirs.accuracy - 0.005
    assert ours.output_sqnr_db is not None
    assert ours.output_sqnr_db >= least_db
    assert ours.agreement is not None
    assert ours.agreement >= least_agreement


@pytest.mark.parametrize(("name", "part_of_int8"), [("image classification", 0.6), ("keyword spotting", 0.8)])
def test_int4_weights_lose_about_a_point_of_int8_s_accuracy(
    name: str, part_of_int8: float, tmp_path: Path
) -> None:
    folder, source, *_ = MODELS[name]
    if not (DATA / folder / source).exists():
        pytest.skip("the real models are not beside this checkout (../shared/data)")
    calibration, evaluation = DATA / folder / "calibration.npz", DATA / folder / "evaluation.npz"
    reference = convert(DATA / folder / source, tmp_path / "float.tflite", scheme="float32").path
    keys = {"calibrator": "percentile:99.99", "equalization": Switch.OFF, "bias_correction": Switch.ON}
    accuracies, sizes = [], []
    for scheme in (Scheme.INT8, Scheme.INT4):
        recipe = Recipe(scheme=scheme, int4_sqnr_db=0.0, **keys)  # type: ignore[arg-type]
        made = convert(reference, tmp_path / f"{scheme}.tflite", recipe=recipe, calibration=calibration)
        accuracy = evaluate(made.path, evaluation).accuracy
        assert accuracy is not None
        accuracies.append(accuracy)
        sizes.append(made.size_bytes)
    # A point, and two standard errors of the difference on the 900 to 2000 samples.
    assert accuracies[1] >= accuracies[0] - 0.02
    assert sizes[1] <= part_of_int8 * sizes[0]
