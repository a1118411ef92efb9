"""`edgeq tune --qat`: better integers where plain conversion fails, ranges in the file, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.conversion import Recipe, Scheme, Switch, convert
from edgeq.evaluation import evaluate
from edgeq_converters import tflite_file

pytestmark = pytest.mark.convert
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def tuned(tunable: Path, run_once: Run) -> dict[str, Any]:
    """What `edgeq tune` said of a model whose channels differ by a factor of a thousand."""
    said = run_once(
        "tune", tunable / "spread.keras", "--qat", "-o", tunable / "tuned.keras", "--json", "--epochs", 25,
        "--training", tunable / "train.npz", "--validation", tunable / "test.npz",
    )  # fmt: skip
    assert said.status == 0, said.err
    return dict(json.loads(said.out))


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
    assert good["qat"] > spoiled + 0.1  # training alone mends it: its recipe corrects and equalizes nothing
    assert tuned["recipe"]["equalization"] == tuned["recipe"]["bias_correction"] == "off"
    assert tuned["tensors"] > 5


def test_the_learned_ranges_are_in_the_file(tuned: dict[str, Any], tunable: Path, run_once: Run) -> None:
    output = tunable / "tuned.tflite"
    said = run_once(
        "convert", tunable / "tuned.keras", "-o", output, "--recipe", tunable / "tuned.recipe.json",
        "--calibration", tunable / "test.npz", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    model = tflite_file.parse(output.read_bytes(), subject="x")
    scales = {
        tflite_file.tensor_name(tensor): tflite_file.quantization(tensor)
        for tensor in model.subgraphs[0].tensors
    }
    learned = {name: (high - low) / 255 for name, low, high in tuned["recipe"]["ranges"]}
    found = [scales[name][0] for name in learned if scales.get(name)]
    assert len(found) == len(learned)
    for name, scale in learned.items():
        pair = scales[name]
        assert pair is not None
        assert pair[0] == pytest.approx(scale, rel=1e-3)


def test_the_same_seed_gives_the_same_file_without_labels(tunable: Path, run_once: Run) -> None:
    digests = []
    for number in range(2):
        output = tunable / f"again{number}.keras"
        said = run_once(
            "tune", tunable / "sequential.keras", "--qat", "--distill", "-o", output, "--json",
            "--training", tunable / "unlabelled.npz", "--epochs", 1, "--seed", 4,
        )  # fmt: skip
        assert said.status == 0, said.err
        document = json.loads(said.out)
        assert document["accuracy"]["qat"] is None
        assert document["agreement"]["qat"] > 0.5
        digests.append((document["sha256"], document["recipe"]))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (["residual.keras"], 1, "EQ220"),
        (["other.tflite", "--training", "train.npz"], 1, "EQ314"),
        (["regression.keras", "--training", "train.npz"], 1, "EQ315"),
        (["residual.keras", "--training", "train.npz", "--epochs", "-1"], 2, "EQ101"),
    ],
)
def test_what_cannot_be_tuned_is_told_and_nothing_written(
    tunable: Path, edgeq: Run, tmp_path: Path, words: list[str], status: int, what: str
) -> None:
    words = [str(tunable / word) if "." in word else word for word in words]
    said = edgeq("tune", words[0], "--qat", "-o", tmp_path / "out.keras", *words[1:])
    assert said.status == status
    assert what in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_the_output_is_a_keras_file(tunable: Path, edgeq: Run, tmp_path: Path) -> None:
    said = edgeq(
        "tune",
        tunable / "residual.keras",
        "--qat",
        "-o",
        tmp_path / "out.h5",
        "--training",
        tunable / "train.npz",
    )
    assert said.status == 2
    assert ".keras" in said.err
