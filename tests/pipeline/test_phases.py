"""The phases that a blueprint makes possible, and their candidates."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgeq.blueprint import Blueprint, Scheme, Technique
from edgeq.pipeline import recipes
from edgeq.pipeline.phases import Phase, planned
from edgeq.values import DeviceKind
from edgeq_converters.recipe import Switch
from tests.pipeline.candidates import blueprint


def reasons(plan: Blueprint, kind: DeviceKind | None = None) -> dict[Phase, str]:
    return {each.phase: each.skipped for each in planned(plan, kind) if each.skipped}


@pytest.fixture
def keras3(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    return path


def test_without_training_data_nothing_is_trained() -> None:
    assert reasons(blueprint()) == {
        Phase.PRUNING: "data.training is missing",
        Phase.QAT: "data.training is missing",
    }


def test_a_keras_3_model_with_training_data_has_every_phase(keras3: Path) -> None:
    assert reasons(blueprint(source=keras3, training=Path("t.npz"))) == {}


def test_another_source_is_tuned_but_not_pruned(tmp_path: Path) -> None:
    source = tmp_path / "model.tflite"
    source.write_bytes(b"\x1c\0\0\0TFL3")
    assert reasons(blueprint(source=source, training=Path("t.npz"))) == {
        Phase.PRUNING: "only a Keras 3 model can be pruned"
    }


def test_a_technique_that_is_not_allowed_is_left_out() -> None:
    skipped = reasons(blueprint(techniques=(Technique.QAT,)))
    assert skipped[Phase.CALIBRATION] == "techniques.allow does not list calibration"
    assert skipped[Phase.MIXED_PRECISION] == "techniques.allow does not list mixed-precision"


def test_schemes_decide_what_is_possible() -> None:
    skipped = reasons(blueprint(schemes=(Scheme.FLOAT16, Scheme.DYNAMIC)))
    assert set(skipped) == {Phase.CALIBRATION, Phase.MIXED_PRECISION, Phase.PRUNING, Phase.QAT}
    plan = blueprint(device_schemes={DeviceKind.CORAL: (Scheme.FLOAT16,)})
    assert Phase.CALIBRATION in reasons(plan, DeviceKind.CORAL)
    assert Phase.CALIBRATION not in reasons(plan, DeviceKind.ANDROID)


def test_plain_candidates_correct_nothing() -> None:
    plan = blueprint(schemes=(Scheme.FLOAT16, Scheme.INT8, Scheme.INT4, Scheme.INT8_MIXED))
    named = {each.name: each.recipe for each in recipes.plain(plan, None)}
    assert list(named) == ["float16", "int8-plain"]
    assert named["int8-plain"].calibrator == "minmax"
    assert named["int8-plain"].bias_correction is named["int8-plain"].equalization is Switch.OFF
    assert [each.name for each in recipes.calibrated(plan, None)] == ["int8", "int4", "int8-mixed"]


def test_every_recipe_is_valid_and_has_the_types_of_the_blueprint() -> None:
    plan = blueprint(schemes=tuple(Scheme), io="uint8")
    for each in (*recipes.plain(plan, None), *recipes.calibrated(plan, None), *recipes.pruned(plan, None)):
        each.recipe.check()
        assert each.recipe.io == ("uint8" if "uint8" in each.recipe.scheme.io_types else "float32")


def test_pruned_candidates_are_of_the_first_integer_scheme() -> None:
    names = [each.name for each in recipes.pruned(blueprint(schemes=(Scheme.INT4, Scheme.INT8)), None)]
    assert names == ["pruned-30-int4", "pruned-50-int4"]
    assert recipes.pruned(blueprint(schemes=(Scheme.FLOAT16,)), None) == []
