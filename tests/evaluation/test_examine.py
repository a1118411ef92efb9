"""`examine` and `edgeq evaluate --details` on small real models: figures, tables, JSON and bad input."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq.blueprint import Limits, Slice, Task, parse_condition
from edgeq.bundle.make import make_bundle
from edgeq.cli import main
from edgeq.cli.evaluate import TASKS
from edgeq.errors import DataError, EdgeqError, MissingExtra, ModelError, UsageError
from edgeq.evaluation import Details, evaluate, examine
from edgeq.evaluation.corruptions import Corruption
from edgeq.evaluation.edge_inputs import Edge
from edgeq.evaluation.probabilities import Scores
from edgeq.store import UNRECORDED
from tests import stateful
from tests.converters.graphs import Graph

pytestmark = [pytest.mark.convert, pytest.mark.usefixtures("workspace")]
WEIGHTS = np.random.default_rng(1).normal(size=(3, 8))
COARSE = np.round(WEIGHTS)
COUNT = 80
X = np.random.default_rng(2).normal(size=(COUNT, 8)).astype(np.float32)
NOISE = np.random.default_rng(3).normal(0, 1.0, size=(COUNT, 3))


@dataclass(frozen=True, kw_only=True)
class Files:
    """A float model, a coarser variant, and data for them."""

    reference: Path
    variant: Path
    data: Path


def linear(path: Path, weights: npt.NDArray[np.float64], *, softmax: bool) -> Path:
    """Write a model whose output is x W^T, or its softmax."""
    graph = Graph()
    rows, columns = weights.shape
    x = graph.tensor("x", (1, columns))
    w = graph.tensor("w", weights.shape, values=weights.astype(np.float32))
    bias = graph.tensor("b", (rows,), values=np.zeros(rows, np.float32))
    product = graph.tensor("product", (1, rows))
    graph.op("FULLY_CONNECTED", (x, w, bias), (product,), options="FullyConnectedOptions")
    output = product
    if softmax:
        output = graph.tensor("shares", (1, rows))
        graph.op("SOFTMAX", (product,), (output,), options="SoftmaxOptions", beta=1.0)
    path.write_bytes(graph.ends([x], [output]).data())
    return path


def files(
    folder: Path, labels: npt.ArrayLike | None, *, softmax: bool = True, **columns: npt.ArrayLike
) -> Files:
    arrays: dict[str, Any] = {"x": X, **columns}
    if labels is not None:
        arrays["y"] = labels
    np.savez(folder / "e.npz", **arrays)
    return Files(
        reference=linear(folder / "float.tflite", WEIGHTS, softmax=softmax),
        variant=linear(folder / "coarse.tflite", COARSE, softmax=softmax),
        data=folder / "e.npz",
    )


def classes() -> npt.NDArray[np.int64]:
    answers: npt.NDArray[np.int64] = np.argmax(X @ WEIGHTS.T + NOISE, axis=1)
    return answers


def part(name: str, condition: str) -> Slice:
    return Slice(name=name, where=parse_condition(condition), limits=Limits())


def test_a_classifier_in_detail(tmp_path: Path) -> None:
    night, rooms = np.arange(COUNT) % 2 == 0, np.array(["hall", "kitchen"])[np.arange(COUNT) // 40]
    given = files(tmp_path, classes(), night=night, room=rooms)
    slices = [part("night", "night"), part("hall", "room == 'hall'"), part("yes", "y == 1")]
    details = examine(
        given.variant, given.reference, given.data, slices=slices, robustness=True, robustness_samples=40
    )
    metrics = evaluate(given.variant, given.data, reference=given.reference, store=UNRECORDED)
    assert (details.task, details.task_reason) == (Task.CLASSIFICATION, "y is one whole number a sample")
    assert details.classes is not None
    assert details.classes.accuracy == metrics.accuracy
    change = details.classes.difference
    assert (change.drop, change.drop_ci95) == (metrics.accuracy_drop, metrics.accuracy_drop_ci95)
    assert change.smallest_drop == metrics.smallest_drop
    assert details.probabilities is not None
    assert details.probabilities.scores is Scores.PROBABILITIES
    # The figures of a slice are those of the data with its samples alone.
    right = np.argmax(X @ COARSE.T, axis=1) == classes()
    assert [each.samples for each in details.slices] == [40, 40, int((classes() == 1).sum())]
    assert details.slices[0].accuracy == pytest.approx(right[night].mean())
    assert details.slices[1].accuracy == pytest.approx(right[:40].mean())
    assert details.slices[0].agreement_ci95 is not None
    assert not any("not used" in each for each in (*details.notes, *details.warnings))
    assert details.robustness is not None
    assert {each.corruption for each in details.robustness.of_each} == {
        Corruption.NOISE, Corruption.CONTRAST, Corruption.BRIGHTNESS,
        Corruption.OCCLUSION, Corruption.DROPPED_SENSOR, Corruption.CLIPPING,
    }  # fmt: skip
    assert details.robustness.samples == 40
    assert [each.kind for each in details.edge_inputs] == list(Edge)
    by_kind = {each.kind: each for each in details.edge_inputs}
    assert by_kind[Edge.OUT_OF_RANGE].samples == 16
    assert by_kind[Edge.MAXIMUM].finite is True
    assert by_kind[Edge.NAN].samples == 1
    assert by_kind[Edge.NAN].finite is False
    assert Details.from_json(json.loads(json.dumps(details.to_json()))) == details


def test_a_model_beside_itself_loses_nothing(tmp_path: Path) -> None:
    given = files(tmp_path, classes(), softmax=False)
    details = examine(given.reference, given.reference, given.data, robustness=True, severities=(5,))
    assert details.classes is not None
    assert (details.classes.difference.lost, details.classes.difference.gained) == (0, 0)
    assert details.probabilities is not None
    assert details.probabilities.scores is Scores.LOGITS
    assert details.probabilities.reference == details.probabilities.variant
    assert details.robustness is not None
    assert (details.robustness.mean_drop, details.robustness.mean_agreement) == (0.0, 1.0)


@pytest.mark.first_is_quick
@pytest.mark.parametrize("task", [Task.REGRESSION, Task.MULTI_LABEL])
def test_labels_of_other_tasks_pass(tmp_path: Path, task: Task) -> None:
    exact = X @ WEIGHTS.T
    labels = exact + NOISE if task is Task.REGRESSION else (exact + NOISE > 0).astype(int)
    given = files(tmp_path, labels, softmax=False)
    details = examine(given.variant, given.reference, given.data, robustness=True)
    assert details.task is task
    assert details.classes is None
    assert any("no robustness" in note for note in details.notes)
    if task is Task.REGRESSION:
        assert details.regression is not None
        assert details.regression.reference.mae == pytest.approx(np.abs(NOISE).mean(), rel=1e-3)
        assert details.regression.mae_increase > 0
        metrics = evaluate(given.variant, given.data, reference=given.reference, task=task, store=UNRECORDED)
        assert (metrics.accuracy, metrics.output_sqnr_db is None) == (None, False)
    else:
        assert details.multi_label is not None
        assert details.multi_label.reference_micro_f1 is not None


def test_a_regression_can_be_bundled_with_its_data(tmp_path: Path) -> None:
    given = files(tmp_path, X @ WEIGHTS.T, softmax=False)

    def bundled(task: Task | None) -> None:
        make_bundle(
            tmp_path / "m.eqb",
            model_file=given.variant,
            name="level",
            variant="coarse",
            data=given.data,
            task=task,
            store=UNRECORDED,
        )

    with pytest.raises(DataError) as caught:
        bundled(None)
    assert caught.value.reported_code == "EQ206"
    bundled(Task.REGRESSION)
    assert (tmp_path / "m.eqb").stat().st_size > 0


@pytest.mark.slow
def test_an_integer_model_gets_no_nan(float_model: Path, int8_model: Path, data: Path) -> None:
    details = examine(int8_model, float_model, data, robustness=True, robustness_samples=20)
    by_kind = {each.kind: each for each in details.edge_inputs}
    assert (by_kind[Edge.NAN].samples, by_kind[Edge.NAN].finite) == (0, None)
    assert by_kind[Edge.OUT_OF_RANGE].finite is True
    assert details.probabilities is not None
    assert details.probabilities.floor == pytest.approx(1 / 512)
    assert details.classes is not None
    assert details.classes.reference_accuracy == 0.75


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("labels", "slices", "expected", "code", "words"),
    [
        (classes(), [part("n", "nigth")], DataError, "EQ205", ["`nigth`", "`night`"]),
        (classes(), [part("n", "not night")], DataError, "EQ202", ["slice 'n' is empty"]),
        (classes(), [part("n", "night == 'yes'")], DataError, "EQ205", ["texts in `night`"]),
        (classes(), [part("n", "x > 0")], DataError, "EQ203", ["(80,)", "(80, 8)"]),
        (classes() + 5, [], DataError, "EQ208", ["labels from 0 to 2"]),
        (np.eye(3)[classes()], [], DataError, "EQ206", ["(80,)", "(80, 3)"]),
        (classes()[:70], [], DataError, "EQ206", ["(80, ...)", "(70,)"]),
    ],
)
def test_bad_data_is_refused(
    tmp_path: Path,
    labels: npt.NDArray[Any],
    slices: list[Slice],
    expected: type[EdgeqError],
    code: str,
    words: list[str],
) -> None:
    given = files(tmp_path, labels, night=np.ones(COUNT, bool))
    with pytest.raises(expected) as caught:
        examine(given.variant, given.reference, given.data, slices=slices)
    assert caught.value.reported_code == code
    assert caught.value.hint
    for word in (str(given.data), *words):
        assert word in caught.value.message


def test_a_detector_is_refused_with_what_works(tmp_path: Path) -> None:
    missing = tmp_path / "none.tflite"
    with pytest.raises(UsageError, match="details of a detector are not supported") as caught:
        examine(missing, missing, missing, task=Task.DETECTION)
    assert "without --details compares the boxes" in caught.value.hint
    with pytest.raises(ModelError, match=r"none\.tflite"):
        examine(missing, missing, missing)


@pytest.mark.parametrize(("module", "name"), [("sklearn", "scikit-learn"), ("PIL", "Pillow")])
def test_a_missing_library_is_a_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # imports of it fail as if it were not installed
    missing = tmp_path / "none.tflite"
    with pytest.raises(MissingExtra, match=f"{name} is not installed") as caught:
        examine(missing, missing, missing)
    assert caught.value.hint == "pip install 'edgeq[quantize]'"


def test_a_wrong_number_of_names_is_refused(tmp_path: Path) -> None:
    given = files(tmp_path, classes())
    with pytest.raises(UsageError, match="expected 3 names, one a class, got 2"):
        examine(given.variant, given.reference, given.data, labels=["a", "b"])


def test_the_command_shows_tables_and_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, classes(), night=np.arange(COUNT) < 30)
    words = ["evaluate", given.variant, "--data", given.data, "--reference", given.reference, "--details"]
    words += ["--slice", "dark=night", "--slice", "light=not night", "--labels", "yes,no,noise"]
    assert main([str(word) for word in words]) == 0
    shown = capfd.readouterr()
    assert "task: classification (y is one whole number a sample)" in shown.out
    assert "slice  condition  samples" in shown.out
    assert "McNemar's exact test" in shown.out
    assert "edge input" in shown.out
    assert "not used" not in shown.err
    assert main([*[str(word) for word in words], "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    details = Details.from_json(document["details"])
    assert details.classes is not None
    assert f"{100 * details.classes.accuracy:.1f} %" in shown.out
    assert [each.name for each in details.classes.of_each] == ["yes", "no", "noise"]
    assert document["metrics"]["accuracy"] == details.classes.accuracy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--details"], "expected --reference FLOAT.tflite"),
        (["--slice", "dark=night", "--reference", "f"], "--slice: has no effect without --details"),
        (["--robustness", "--reference", "f"], "--robustness: has no effect without --details"),
        (["--task", "regression", "--reference", "f"], "--task: has no effect without --details"),
        (["--details", "--slice", "night"], "expected NAME=CONDITION"),
        (["--details", "--slice", "dark=snr <"], "slice 'dark': expected the name of a mask"),
        (["--details", "--slice", "a=b", "--slice", "a=c"], "two slices are called 'a'"),
        (["--details", "--labels", "a,,b"], "a name is empty"),
        (["--details", "--task", "sequence"], "'sequence' is not one of"),
        (["--details", "--seed", "-1"], "-1 is not in the range"),
        (["--details", "--task", "detection", "--reference", "f"], "details of a detector are not supported"),
    ],
)
def test_usage_that_starts_nothing(words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "m.tflite", "--data", "e.npz", *words]) == 2
    assert message in capfd.readouterr().err


def test_the_command_knows_every_task() -> None:
    assert [each.value for each in Task] == list(TASKS)


@pytest.mark.slow
def test_samples_that_follow_each_other_have_no_intervals(tmp_path: Path) -> None:
    for name, gain in (("float", 1.0), ("coarse", 0.8)):
        (tmp_path / f"{name}.tflite").write_bytes(stateful.accumulator(gain))
    samples = stateful.samples()
    ids, first = np.arange(len(samples)) // 3, np.arange(len(samples)) < 3
    np.savez(tmp_path / "e.npz", x=samples, y=np.ones(len(samples), int), sequence_id=ids, first=first)
    details = examine(
        tmp_path / "coarse.tflite",
        tmp_path / "float.tflite",
        tmp_path / "e.npz",
        slices=[part("first", "first")],
        robustness=True,
    )
    assert not details.independent
    assert details.robustness is None
    assert "no robustness: the samples follow each other, and it takes some of them" in details.notes
    assert details.classes is not None
    assert details.classes.difference.p_value is None
    assert details.classes.worst.drop_ci95 is None
    assert (details.slices[0].samples, details.slices[0].drop_ci95) == (3, None)
