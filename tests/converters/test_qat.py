"""`edgeq tune --qat`: better integer models than plain conversion, learned ranges, lineage and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.conversion import Recipe, Scheme, Switch, convert
from edgeq.evaluation import evaluate
from edgeq.files import sha256_of
from edgeq.store import Store
from edgeq_converters.graph import tflite_file

pytestmark = [pytest.mark.convert, pytest.mark.slow]
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def tuned(tunable: Path, run_once: Run) -> dict[str, Any]:
    """The document of `edgeq tune` for a model whose channels differ by a factor of a thousand."""
    result = run_once(
        "tune", tunable / "spread.keras", "--qat", "-o", tunable / "tuned.keras", "--json", "--epochs", 25,
        "--training", tunable / "train.npz", "--validation", tunable / "test.npz",
    )  # fmt: skip
    assert result.status == 0, result.err
    return dict(json.loads(result.out))


def test_the_tuned_model_is_better_in_integers(tuned: dict[str, Any], tunable: Path) -> None:
    plain = Recipe(
        scheme=Scheme.INT8, calibrator="minmax", bias_correction=Switch.OFF, equalization=Switch.OFF
    )
    output = tunable / "plain.tflite"
    convert(tunable / "spread.keras", output, recipe=plain, calibration=tunable / "test.npz")
    spoiled = evaluate(output, tunable / "test.npz").accuracy
    good = tuned["accuracy"]
    assert spoiled is not None
    assert good["float"] > 0.9
    assert spoiled < good["float"] - 0.1  # one scale for all channels spoils the model
    assert good["qat"] > spoiled + 0.1  # training alone repairs it: its recipe corrects and equalizes nothing
    assert tuned["kept"] == "qat"
    assert tuned["recipe"]["equalization"] == tuned["recipe"]["bias_correction"] == "off"
    assert tuned["tensors"] > 5
    # At least as good as conversion with equalization, from which training started.
    assert good["qat"] >= good["ptq"]
    assert tuned["began"].startswith("equalized, ")
    for name, share in good.items():
        low, high = tuned["accuracy_ci95"][name]
        assert low <= share <= high
    assert set(tuned["accuracy_drop"]) == {"ptq", "tuned", "qat"}
    low, high = tuned["accuracy_drop_ci95"]["qat"]
    assert low <= good["float"] - good["qat"] <= high
    assert 0 < tuned["smallest_drop"] < 0.1


def test_the_learned_ranges_are_in_the_file(tuned: dict[str, Any], tunable: Path, run_once: Run) -> None:
    output = tunable / "tuned.tflite"
    result = run_once(
        "convert", tunable / "tuned.keras", "-o", output, "--recipe", tunable / "tuned.recipe.json",
        "--calibration", tunable / "test.npz", "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    model = tflite_file.parse(output.read_bytes(), subject="x")
    scales = {
        tflite_file.tensor_name(tensor): tflite_file.quantization(tensor)
        for tensor in model.subgraphs[0].tensors
    }
    learned = {name: (high - low) / 255 for name, low, high in tuned["recipe"]["ranges"]}
    for name, scale in learned.items():
        pair = scales[name]
        assert pair is not None
        assert pair[0] == pytest.approx(scale, rel=1e-3)


@pytest.fixture(scope="module")
def kept(tunable: Path, run_once: Run) -> dict[str, Any]:
    """The document for a model that one epoch without labels does not improve."""
    result = run_once(
        "tune", tunable / "sequential.keras", "--qat", "--distill", "-o", tunable / "kept.keras", "--json",
        "--training", tunable / "unlabelled.npz", "--epochs", 1, "--seed", 4,
    )  # fmt: skip
    assert result.status == 0, result.err
    return dict(json.loads(result.out))


def test_a_model_that_tuning_does_not_improve_is_unchanged(kept: dict[str, Any], tunable: Path) -> None:
    assert kept["kept"] == "ptq"
    assert (tunable / "kept.keras").read_bytes() == (tunable / "sequential.keras").read_bytes()
    recipe = Recipe.from_dict(kept["recipe"])
    assert recipe == Recipe(scheme=Scheme.INT8, int4_sqnr_db=0.0, seed=4)
    assert kept["tensors"] == 0
    assert any(note.startswith("tuning did not help on the 48 training samples") for note in kept["notes"])
    assert kept["accuracy"]["qat"] is None
    assert kept["agreement"]["qat"] > 0.5
    assert kept["agreement_of"] == "classes"


def test_a_tuned_model_has_a_lineage(tuned: dict[str, Any], tunable: Path, run_once: Run) -> None:
    lineage = tuned["lineage"]
    for name, file in {"source": "spread.keras", "output": "tuned.keras"}.items():
        assert lineage[name]["sha256"] == sha256_of(tunable / file)
    for name, file in {"training": "train.npz", "validation": "test.npz"}.items():
        assert lineage["data"][name]["sha256"] == sha256_of(tunable / file)
    expected = {"schema": "edgeq.tuning/1", "scheme": "int8", "epochs": 25, "distill": False, "seed": 0}
    assert lineage["recipe"] == expected
    assert lineage["seed"] == 0
    assert {"edgeq", "keras", "tensorflow"} <= set(lineage["tools"])
    assert int(lineage["environment"]["cores"]) >= 1
    result = run_once("lineage", tunable / "tuned.keras")
    assert result.status == 0, result.err
    for words in ("scheme=int8", "epochs=25", "cores", "train.npz", "test.npz"):
        assert words in result.out


def test_the_lineage_of_a_conversion_includes_the_tuning(
    tuned: dict[str, Any], tunable: Path, run_once: Run
) -> None:
    output = tunable / "chained.tflite"
    result = run_once(
        "convert", tunable / "tuned.keras", "-o", output, "--recipe", tunable / "tuned.recipe.json",
        "--calibration", tunable / "test.npz",
    )  # fmt: skip
    assert result.status == 0, result.err
    result = run_once("lineage", output, "--json")
    links = json.loads(result.out)["lineage"]
    assert [Path(link["source"]["path"]).name for link in links] == ["tuned.keras", "spread.keras"]
    assert f"ranges={tuned['tensors']} learned" in run_once("lineage", output).out


def test_the_same_seed_reproduces_the_model(tuned: dict[str, Any], tunable: Path, run_once: Run) -> None:
    assert tuned["kept"] == "qat"  # else the same bytes would be the source's own
    (tunable / "train.npz").rename(tunable / "moved.npz")
    try:
        result = run_once("reproduce", tunable / "tuned.keras")
        assert result.status == 1
        assert "error[EQ324]" in result.err
        assert "--training PATH" in result.err
        again = tunable / "again.keras"
        words = ["--training", tunable / "moved.npz", "-o", again, "--json"]
        result = run_once("reproduce", tunable / "tuned.keras", *words)
    finally:
        (tunable / "moved.npz").rename(tunable / "train.npz")
    assert result.status == 0, result.err
    assert json.loads(result.out)["same"]
    assert sha256_of(again) == tuned["sha256"]


def test_a_lineage_whose_source_is_its_output_ends(
    kept: dict[str, Any], tunable: Path, run_once: Run
) -> None:
    result = run_once("lineage", tunable / "kept.keras", "--json")
    assert result.status == 0, result.err
    assert len(json.loads(result.out)["lineage"]) == 1


@pytest.fixture
def forged(kept: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Record a changed lineage and return its workspace."""

    def record(digest: str, part: str, **changes: Any) -> Path:
        body = json.loads(json.dumps(kept["lineage"]))
        body["output"]["sha256"] = digest * 32
        body[part].update(changes)
        with Store.open(tmp_path) as store:
            store.record_run("tune", "forged", {"lineage": body})
        return tmp_path

    return record


def test_a_different_core_count_is_named_if_a_training_gave_different_bytes(
    forged: Callable[..., Path], edgeq: Run
) -> None:
    workspace = forged("cd", "environment", cores="96")
    result = edgeq("--workspace", workspace, "reproduce", "cdcd")
    assert (result.status, result.out) == (1, "")
    assert "error[EQ324]: cdcdcdcdcdcd: the rebuilt file has different bytes (cores was 96, is " in result.err
    assert "training sums in a different order on other processors and core counts" in result.err


def test_a_tuning_of_another_version_is_refused(forged: Callable[..., Path], edgeq: Run) -> None:
    result = edgeq("--workspace", forged("ef", "recipe", teacher="large.keras"), "reproduce", "efef")
    assert result.status == 1
    assert "error[EQ324]" in result.err
    assert "teacher" in result.err


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (["residual.keras"], 1, "EQ220"),
        (["other.tflite", "--training", "train.npz"], 1, "EQ314"),
        (["regression.keras", "--training", "train.npz"], 1, "EQ315"),
        (["residual.keras", "--training", "train.npz", "--epochs", "-1"], 2, "EQ101"),
    ],
)
def test_models_that_cannot_be_tuned_are_refused_and_nothing_is_written(
    tunable: Path, edgeq: Run, tmp_path: Path, words: list[str], status: int, what: str
) -> None:
    words = [str(tunable / word) if "." in word else word for word in words]
    result = edgeq("tune", words[0], "--qat", "-o", tmp_path / "out.keras", *words[1:])
    assert result.status == status
    assert what in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("out*"))


def test_the_output_is_a_keras_file(tunable: Path, edgeq: Run, tmp_path: Path) -> None:
    result = edgeq(
        "tune",
        tunable / "residual.keras",
        "--qat",
        "-o",
        tmp_path / "out.h5",
        "--training",
        tunable / "train.npz",
    )
    assert result.status == 2
    assert ".keras" in result.err
