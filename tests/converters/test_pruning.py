"""Pruned conversions from the command line: files, reports and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_converters.graph.model import Model
from edgeq_converters.training.pruning import measured

pytestmark = [pytest.mark.convert, pytest.mark.slow]
Run = Callable[..., Any]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pruned(tunable: Path, run_once: Run) -> dict[str, Any]:
    """The documents of `edgeq convert --prune`, by kind; the files are next to the models."""
    documents = {}
    for kind, scheme in (("channels:0.5", "float32"), ("magnitude:0.8", "int8")):
        path = tunable / f"{kind[:4]}.tflite"
        result = run_once(
            "convert", tunable / "residual.keras", "-o", path, "--scheme", scheme, "--json",
            "--calibration", tunable / "test.npz", "--prune", kind, "--epochs", 8,
            "--training", tunable / "train.npz", "--validation", tunable / "test.npz",
        )  # fmt: skip
        assert result.status == 0, result.err
        documents[kind[:4]] = json.loads(result.out)
    return documents


def test_pruned_channels_are_not_in_the_file(pruned: dict[str, Any], tunable: Path) -> None:
    report = pruned["chan"]["pruning"]
    layers = {item["layer"]: (item["before"], item["after"]) for item in report["layers"]}
    assert layers["stem"] == layers["project"] == (16, 8)
    assert layers["branch"] == layers["squeeze"] == (8, 4)
    assert layers["excite"] == (24, 12)
    assert layers["hidden"] == (32, 16)
    shapes = {a.shape for a in measured.weights(Model.read(tunable / "chan.tflite")).values()}
    assert {(8, 3, 3, 1), (1, 3, 3, 8), (8, 1, 1, 8), (4, 3, 3, 8), (16, 4 * 4 * 12), (3, 16)} <= shapes


@pytest.mark.parametrize(("kind", "recipe"), [("chan", "channels:0.5"), ("magn", "magnitude:0.8")])
def test_a_pruned_model_is_rebuilt_from_its_record(
    pruned: dict[str, Any], tunable: Path, run_once: Run, kind: str, recipe: str
) -> None:
    result = run_once("lineage", tunable / f"{kind}.tflite", "--json")
    link = json.loads(result.out)["lineage"][0]
    assert link["recipe"]["prune"] == recipe
    assert set(link["data"]) >= {"training", "validation"}
    assert link["environment"]["cores"]
    result = run_once("reproduce", tunable / f"{kind}.tflite", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["sha256"] == pruned[kind]["sha256"]


def test_the_gain_is_measured_and_reported(pruned: dict[str, Any]) -> None:
    report = pruned["chan"]["pruning"]
    for figure in ("parameters", "size_bytes", "compressed_bytes"):
        assert report[figure]["after"] < report[figure]["before"]
    assert report["latency_ns"]["after"]["p50"] > 0
    assert report["bought"].startswith("latency and size")
    assert [item["layer"] for item in report["left"]] == ["probability"]
    good = report["accuracy"]
    assert good["before"] > 0.9
    assert good["tuned"] > max(good["pruned"], 0.85)
    assert good["file_after"] == pytest.approx(good["tuned"], abs=0.02)


def test_weights_pruned_by_magnitude_are_zero_in_the_int8_file(pruned: dict[str, Any], tunable: Path) -> None:
    report = pruned["magn"]["pruning"]
    for item in report["layers"]:
        assert item["after"] == item["before"] - round(0.8 * item["before"])
    arrays = measured.weights(Model.read(tunable / "magn.tflite"))
    assert {array.dtype.name for array in arrays.values()} == {"int8"}
    dense = next(array for array in arrays.values() if array.shape == (32, 4 * 4 * 24))
    assert np.count_nonzero(dense == 0) >= round(0.8 * dense.size)
    assert report["zeros_kept"] >= sum(item["before"] - item["after"] for item in report["layers"])


def test_magnitude_reduces_only_the_compressed_size(pruned: dict[str, Any]) -> None:
    report = pruned["magn"]["pruning"]
    assert report["parameters"]["after"] == report["parameters"]["before"]
    assert report["compressed_bytes"]["after"] < 0.7 * report["compressed_bytes"]["before"]
    assert report["bought"].startswith("size on the wire, not latency")
    assert report["accuracy"]["file_after"] > 0.8


def test_no_sample_calibrates_and_measures(pruned: dict[str, Any]) -> None:
    # Calibration and validation are the same 150 samples; float32 is not calibrated.
    assert pruned["chan"]["pruning"]["accuracy"]["samples"] == 150
    assert pruned["magn"]["pruning"]["accuracy"]["samples"] == 75
    notes = pruned["magn"]["notes"]
    assert "75 of 150 held-out samples were left out, because they also calibrate the file" in notes
    assert "75 of 150 calibration samples were left out, because they also measure the accuracy" in notes


def test_the_recipe_holds_the_pruning(pruned: dict[str, Any]) -> None:
    assert pruned["chan"]["recipe"]["prune"] == "channels:0.5"
    assert pruned["chan"]["recipe"]["epochs"] == 8


def checked(*models: object) -> dict[str, Any]:
    """Prune models in a process of their own; return what `check_pruning_rules` printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.converters.check_pruning_rules", *map(str, models)],
        capture_output=True, text=True, check=False, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def is_exact(checks: dict[str, Any]) -> bool:
    """Return whether a model kept its outputs but for the channels that were removed."""
    names, pruned_names = checks["outputs"]
    return bool(checks["same"] == 0.0 and checks["far"] < 1e-4 and names == pruned_names)


KINDS = (
    "transformer",
    "grouped",
    "shared",
    "nested",
    "shuffled",
    "attention_by_hand",
    "recurrent",
    "wrapped",
)
RANDOM = tuple(map(str, range(8)))


@pytest.fixture(scope="module")
def checks(tunable: Path) -> dict[str, dict[str, Any]]:
    """Models of all kinds, random graphs and trained models, pruned in one process."""
    return checked(*KINDS, "unprunable", *RANDOM, tunable / "residual.keras", tunable / "sequential.keras")


def test_only_the_removed_channels_change_the_outputs(checks: dict[str, dict[str, Any]]) -> None:
    assert all(is_exact(each) for each in checks.values()), checks
    assert all(checks[name]["moved"] > 1e-3 for name in KINDS), checks


def test_random_graphs_lose_channels_exactly(checks: dict[str, dict[str, Any]]) -> None:
    assert all(is_exact(checks[name]) for name in RANDOM), checks
    assert sum(bool(checks[name]["layers"]) for name in RANDOM) >= 4
    errors = {checks[name]["error"].partition(" (")[0] for name in RANDOM}
    assert errors <= {"", "model: nothing in the model can be pruned"}


def test_every_kind_of_layer_loses_channels(checks: dict[str, dict[str, Any]]) -> None:
    pruned = {name: set(checks[name]["layers"]) for name in KINDS}
    assert pruned["transformer"] == {"attention0 heads", "attention1 heads", "widen0", "widen1"}
    assert pruned["grouped"] == {"stem", "groups", "ones", "multiplied", "separable", "up"}
    assert pruned["shared"] == {"first", "second", "joined"}
    assert pruned["nested"] == {"a", "b", "head_a"}
    assert pruned["shuffled"] == {"stem", "right", "squeeze", "excite", "gated"}
    assert {"q", "k", "v", "fused", "einsum_q", "einsum_out"} <= pruned["attention_by_hand"]
    assert {"grouped heads", "scored heads", "scored output"} <= pruned["attention_by_hand"]
    assert pruned["wrapped"] == {
        *("frames", "steps", "one", "other"),
        *(f"{name} {way}" for name in ("joined", "summed", "apart") for way in ("forward", "backward")),
    }
    assert pruned["recurrent"] == {"embedding", "conv", "lstm", "gru", "start", "simple"}


def test_a_model_without_its_batch_normalizations_computes_the_same(
    checks: dict[str, dict[str, Any]],
) -> None:
    folded = [each["folded"] for name, each in checks.items() if name.endswith(".keras")]
    assert len(folded) == 2
    assert all(far < 1e-4 and stay == 0 for far, stay in folded), checks


def test_a_wrong_rule_gives_an_error_and_no_model() -> None:
    planted = checked("--planted", "shared")["shared"]
    assert planted["error"].startswith("model: the pruned model computes something else"), planted
    assert planted["far"] > 1e-2


def test_what_cannot_be_pruned_is_named_with_the_reason(checks: dict[str, dict[str, Any]]) -> None:
    assert set(checks["unprunable"]["layers"]) == {"hidden"}
    assert {
        name: reason.partition("(")[2] or reason for name, reason in checks["unprunable"]["unpruned"].items()
    } == {
        "normalized": "GroupNormalization): its statistics are over several channels",
        "scaled": "Multiply): it has a constant for each channel",
        "softmax": "each value of its activation softmax depends on several channels",
        "rows": "ConvLSTM1D): there is no rule for this class",
        "both": "ConvLSTM1D: there is no rule for this class",
        "each": "TimeDistributed: there is no rule for ConvLSTM1D in it",
        "out": "each value of its activation softmax depends on several channels",
    }


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--prune", "channels:1.5", "--training", "train.npz"], "EQ101", "above 0 and below 1"),
        (["--prune", "filters:0.5", "--training", "train.npz"], "EQ101", "magnitude:RATIO"),
        (["--prune", "channels:0.5,by=rank", "--training", "train.npz"], "EQ101", "l1, l2, group"),
        (["--prune", "channels:0.5"], "EQ220", "--training"),
        (["--prune", "channels:0.5", "--training", "nowhere.npz"], "EQ201", "no such data file"),
        (["--prune", "channels:0.5", "--training", "nan.npz"], "EQ204", "finite"),
        (["--prune", "channels:0.5", "--training", "unlabelled.npz"], "EQ220", "labels `y`"),
        (["--prune", "channels:0.5", "--training", "high.npz"], "EQ208", "labels from 0 to 2"),
        (["--prune", "channels:0.5", "--training", "train.npz", "--epochs", "0"], "EQ101", "range 1<=x"),
    ],
)
def test_invalid_requests_are_reported_in_one_line_and_write_nothing(
    tunable: Path, edgeq: Run, tmp_path: Path, words: list[str], code: str, what: str
) -> None:
    words = [str(tunable / word) if word.endswith(".npz") else word for word in words]
    output = tmp_path / "model.tflite"
    result = edgeq("convert", tunable / "residual.keras", "-o", output, "--scheme", "float32", *words)
    assert result.status in (1, 2)
    first = next(line for line in result.err.splitlines() if line.startswith("error"))
    assert code in first
    assert what in result.err
    assert "Traceback" not in result.err
    assert not output.exists()


@pytest.mark.parametrize(
    ("model", "code", "what"),
    [
        ("other.h5", "EQ314", "a h5 model"),
        ("other.tflite", "EQ314", "a tflite model"),
        ("regression.keras", "EQ315", "--distill"),
        ("normalized.keras", "EQ316", "its statistics are over all channels"),
    ],
)
def test_models_that_cannot_be_pruned_are_refused(
    tunable: Path, edgeq: Run, tmp_path: Path, model: str, code: str, what: str
) -> None:
    data = tunable / ("rows.npz" if model.startswith("normalized") else "train.npz")
    output = tmp_path / "model.tflite"
    result = edgeq(
        "convert", tunable / model, "-o", output, "--scheme", "float32", "--prune", "channels:0.5",
        "--training", data,
    )  # fmt: skip
    assert result.status == 1
    assert code in result.err
    assert what in result.err
    assert not output.exists()
