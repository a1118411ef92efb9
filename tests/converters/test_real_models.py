"""Two of MLPerf Tiny's reference models: our int8 is at least as accurate as theirs, within half a point."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.conversion import OpKind, convert
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
