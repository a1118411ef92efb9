"""Losses of the user's: where they come from, their targets, and trainings with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.conversion.losses import loss_source
from edgeq.conversion.training import with_pruning
from edgeq.converters_client import worker_session
from edgeq.errors import UsageError
from edgeq_converters.data.files import RawSamples
from edgeq_converters.errors import ConverterError
from edgeq_converters.recipe import Recipe
from edgeq_converters.training.common import custom_loss, training_targets
from edgeq_converters.training.loss_source import LossSource
from edgeq_converters.training.pruning.retuning import phases_of
from edgeq_converters.training.settings import PruningRequest
from edgeq_converters.values import Scheme, TensorInfo
from edgeq_converters.worker.client import IN_WORKER

Run = Callable[..., Any]


def of_this_file(targets: Any, outputs: Any) -> Any:
    """A loss at the top level of a file."""
    return (targets - outputs) ** 2


def test_a_loss_is_a_name_a_file_a_module_or_a_function(tmp_path: Path) -> None:
    file = tmp_path / "losses.py"
    file.write_text("raise SystemExit")  # nothing is run here
    here = Path(__file__).resolve()
    assert loss_source("mse") == LossSource(function="mse")
    assert loss_source(f"{file}:a") == LossSource(function="a", file=file)
    assert loss_source(f"{__name__}:of_this_file").file == here
    given = loss_source(of_this_file)
    assert (given.function, given.file, given.package) == ("of_this_file", here, __name__)


@pytest.mark.parametrize(
    "loss",
    ["", ":", "mean", "mse:", ":f", "nowhere.py:f", "nowhere:f", "no.where:f", "losses.py:f()", "sys:exit",
     lambda _targets, _outputs: 0.0, print],
)  # fmt: skip
def test_other_texts_and_functions_are_refused_in_one_line(loss: Any) -> None:
    with pytest.raises(UsageError) as caught:
        loss_source(loss)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_every_training_has_an_epoch() -> None:
    recipe, prune = Recipe(scheme=Scheme.FLOAT32), "channels:0.5,rounds=3,lasso=0.1"
    with pytest.raises(UsageError, match="at least 6"):
        with_pruning(recipe, prune=prune, epochs=5, distill=True, loss=None)
    assert with_pruning(recipe, prune=prune, epochs=6, distill=True, loss=None).epochs == 6
    with pytest.raises(ValueError, match="rounds"):
        PruningRequest.parse("channels:0.5,rounds=\N{ARABIC-INDIC DIGIT THREE}")


def test_a_worker_starts_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IN_WORKER, "1")
    with pytest.raises(UsageError, match="the file of its loss") as caught, worker_session("convert"):
        pass
    assert "__main__" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "what"), [("import sys\nsys.exit(5)\n", "SystemExit: 5"), ("x = 1\n", "has no function 'loss'")]
)
def test_a_file_that_gives_no_loss_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConverterError, match=what) as caught:
        custom_loss.imported(LossSource(function="loss", file=tmp_path / "mine.py"))
    assert caught.value.code == "EQ339"


def test_a_package_is_imported_from_the_folder_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "outer_of_loss" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def loss(targets, outputs):\n    return 7\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = LossSource(function="loss", file=package / "__init__.py", package="outer_of_loss.inner")
    assert custom_loss.imported(source)(0, 0) == 7


_BROADCAST = """
import numpy as np
import tensorflow as tf
from edgeq_converters.training.common.custom_loss import CustomLoss
from edgeq_converters.training.loss_source import LossSource

for name, target, output in (
    ("mse", (4, 1, 3), (4, 3)),
    ("mse", (4, 3), (4, 1, 3)),
    ("mse", (4,), (4, 1)),
    ("sparse_categorical_crossentropy", (4, 1), (4, 3)),
):
    values = np.random.default_rng(0).uniform(0.1, 1, output).astype(np.float32)
    if name == "mse":
        right = values.reshape(target)
    else:
        right = values.argmax(-1).reshape(target)
        values = np.eye(3, dtype=np.float32)[right.ravel()]
    loss = CustomLoss(source=LossSource(function=name), function=None, outputs=("o",), targets=("o",))
    assert float(loss([tf.constant(values)], [tf.constant(right)])) < 1e-5, (name, target, output)
"""


@pytest.mark.convert
@pytest.mark.slow
def test_targets_are_compared_with_their_own_outputs() -> None:
    done = subprocess.run([sys.executable, "-c", _BROADCAST], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_one_loss_is_trained_and_only_with_a_training() -> None:
    recipe, loss = Recipe(scheme=Scheme.FLOAT32), LossSource(function="mse")
    with pytest.raises(UsageError, match="--distill"):
        with_pruning(recipe, prune="channels:0.5", epochs=None, distill=True, loss=loss)
    with pytest.raises(UsageError, match="--prune"):
        with_pruning(recipe, prune=None, epochs=None, distill=False, loss=loss)


def _targets(**arrays: Any) -> dict[str, Any]:
    given = {name: np.asarray(values) for name, values in arrays.items()}
    raw = RawSamples(subject="t.npz", labels=given.pop("y", None), arrays=given)
    inputs = (TensorInfo(name="y_in", shape=(1, 1), dtype="float32"),)
    return training_targets.of(raw, inputs, ["box", "score"]).checked(2, ["box", "score"])


def test_targets_are_arrays_name_and_by_position() -> None:
    arrays = _targets(y_in=[0, 0], image=[0, 0], y_box=[0.5, 1], y_1=[0, 1], y_weight=[1, 2], y=[3, 4])
    assert set(arrays) == {"box", "score", "weight", "y"}
    assert arrays["box"].dtype == np.float32
    assert arrays["score"].dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({}, "EQ220"),
        ({"y_in": [0, 0]}, "EQ220"),
        ({"y_box": [1.0]}, "EQ206"),
        ({"y_box": [1.0, np.nan]}, "EQ204"),
        ({"y": ["a", "b"]}, "EQ205"),
        ({"y": 3.0}, "EQ203"),
    ],
)
def test_targets_that_do_not_fit_are_refused(arrays: dict[str, Any], code: str) -> None:
    with pytest.raises(ConverterError) as caught:
        _targets(**arrays)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("request_", "epochs", "phases"),
    [
        ("channels:0.5", 7, [7]),
        ("channels:0.5,rounds=3", 7, [3, 2, 2]),
        ("channels:0.5,rounds=2,lasso=0.1", 7, [2, 2, 2, 1]),
        ("channels:0.5,rounds=4", 2, [1, 1, 1, 1]),
    ],
)
def test_rounds_share_the_epochs(request_: str, epochs: int, phases: list[int]) -> None:
    assert phases_of(PruningRequest.parse(request_), epochs) == phases


@pytest.fixture(scope="module")
def pruned(tunable: Path, run_once: Run) -> dict[str, Any]:
    """The document of a pruned conversion."""
    result = run_once(
        "convert", tunable / "detector.keras", "-o", tunable / "detector.tflite", "--scheme", "float32",
        "--prune", "channels:0.5,rounds=2,lasso=0.1", "--training", tunable / "detector.npz",
        "--loss", f"{tunable / 'losses.py'}:detection", "--epochs", 8, "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    return dict(json.loads(result.out))


@pytest.mark.convert
@pytest.mark.slow
def test_rounds_of_pruning_reach_the_ratio(pruned: dict[str, Any]) -> None:
    report = pruned["pruning"]
    sizes = {each["layer"]: (each["before"], each["after"]) for each in report["layers"]}
    assert sizes == {"stem": (16, 8), "side": (8, 4), "joined": (24, 12)}
    assert (report["rounds"], report["epochs"]) == (2, 8)
    assert {each["layer"] for each in report["left"]} == {"box", "score"}


@pytest.mark.convert
@pytest.mark.slow
def test_the_loss_is_measured_and_falls_again(pruned: dict[str, Any]) -> None:
    loss = pruned["pruning"]["loss"]
    assert loss["tuned"] < loss["pruned"]
    assert loss["file_before"] == pytest.approx(loss["before"], rel=1e-3)
    assert loss["file_after"] == pytest.approx(loss["tuned"], rel=1e-3)
    assert pruned["pruning"]["accuracy"]["tuned"] is None


@pytest.mark.convert
@pytest.mark.slow
def test_a_model_trained_with_a_function_is_rebuilt_from_its_record(
    pruned: dict[str, Any], tunable: Path, run_once: Run
) -> None:
    assert pruned["recipe"]["loss"] == f"{tunable / 'losses.py'}:detection"
    result = run_once("reproduce", tunable / "detector.tflite", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["sha256"] == pruned["sha256"]


@pytest.mark.convert
@pytest.mark.slow
def test_tuning_takes_a_loss_of_keras_for_each_output(tunable: Path, run_once: Run) -> None:
    result = run_once(
        "tune", tunable / "detector.keras", "--qat", "-o", tunable / "tuned-detector.keras", "--json",
        "--training", tunable / "detector.npz", "--loss", "mse", "--epochs", 3,
    )  # fmt: skip
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert set(document["loss"]) == {"float", "tuned", "ptq", "qat"}
    assert all(0 < value < 1 for value in document["loss"].values())
    assert document["lineage"]["recipe"]["loss"] == "mse"


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "loss", "code", "what"),
    [
        ("detector.npz", "losses.py:misspelt", "EQ339", "KeyError: 'boxes'"),
        ("boxes.npz", "mse", "EQ220", "`y_box`, `y_score`"),
        ("wide.npz", "mse", "EQ206", "(samples, 2)"),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused(
    tunable: Path, edgeq: Run, tmp_path: Path, data: str, loss: str, code: str, what: str
) -> None:
    output = tmp_path / "model.tflite"
    result = edgeq(
        "convert", tunable / "detector.keras", "-o", output, "--scheme", "float32",
        "--prune", "channels:0.5", "--training", tunable / data,
        "--loss", f"{tunable / loss}" if ":" in loss else loss,
    )  # fmt: skip
    assert result.status == 1
    error = next(line for line in result.err.splitlines() if line.startswith("error"))
    assert code in error
    assert what in error
    assert "Traceback" not in result.err
    assert not output.exists()
