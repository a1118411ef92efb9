"""Robustness and edge inputs: of a real linear classifier and its rounded weights, and of known answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.evaluation import robustness
from edgeq.evaluation.corruptions import Corruption, Scale
from edgeq.evaluation.edge_inputs import Edge, EdgeInput, edge_arrays, edge_figures
from edgeq.evaluation.robustness import Robustness, chosen_rows, figures_of, measured_robustness, summary
from edgeq_converters import intervals
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]
Classes = npt.NDArray[np.int64]
FLOAT_INPUT = TensorInfo(name="x", shape=(1, 12, 3), dtype="float32")
WEIGHTS = np.random.default_rng(1).normal(size=(36, 4))
DATA = np.random.default_rng(2).normal(size=(90, 12, 3)).astype(np.float32)

FITTING = Scale.of(DATA).corruptions


def classes(inputs: Sequence[Array], weights: npt.NDArray[np.float64]) -> Classes:
    scores = inputs[0].reshape(len(inputs[0]), -1) @ weights
    answers: Classes = scores.argmax(axis=1).astype(np.int64)
    return answers


def both(inputs: Sequence[Array]) -> tuple[Classes, Classes]:
    """Return the classes of a linear classifier, and of the same one with coarse weights."""
    return classes(inputs, WEIGHTS), classes(inputs, np.round(WEIGHTS))


def measured(**changed: Any) -> Robustness:
    given = {"samples": 60, "seed": 3, **changed}
    labels = given.pop("labels", classes([DATA], WEIGHTS))
    result = measured_robustness([DATA], [FLOAT_INPUT], labels, both, **given)
    assert result is not None
    return result


def test_one_entry_a_corruption_and_severity() -> None:
    result = measured(severities=(1, 5))
    assert (result.samples, result.severities, result.seed) == (60, (1, 5), 3)
    expected = [(corruption, severity) for corruption in FITTING for severity in (1, 5)]
    assert [(each.corruption, each.severity) for each in result.of_each] == expected
    assert (result.clean.corruption, result.clean.severity, result.clean.reference) == (None, 0, 1.0)
    by_kind = {(each.corruption, each.severity): each for each in result.of_each}
    mild, strong = by_kind[Corruption.NOISE, 1], by_kind[Corruption.NOISE, 5]
    assert mild.reference is not None
    assert strong.reference is not None
    assert strong.reference < mild.reference < 1.0


def test_the_means_are_those_of_the_entries() -> None:
    result = measured()
    drops = [each.drop for each in result.of_each]
    assert result.mean_drop == pytest.approx(np.mean([each for each in drops if each is not None]))
    assert result.mean_agreement == pytest.approx(np.mean([each.agreement for each in result.of_each]))
    assert result.mean_drop_ci95 is not None
    assert result.mean_drop is not None
    assert result.mean_drop_ci95[0] < result.mean_drop < result.mean_drop_ci95[1]


def test_without_labels_the_models_are_compared_with_each_other() -> None:
    result = measured(labels=None)
    assert (result.mean_drop, result.mean_drop_ci95, result.clean.reference) == (None, None, None)
    assert result.mean_agreement == pytest.approx(measured().mean_agreement)


def test_the_figures_do_not_depend_on_how_the_runs_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def counted(inputs: Sequence[Array]) -> tuple[Classes, Classes]:
        runs.append(len(inputs[0]))
        return both(inputs)

    labels = classes([DATA], WEIGHTS)
    one = measured_robustness([DATA], [FLOAT_INPUT], labels, counted, samples=20)
    trials = 1 + 3 * len(FITTING)
    assert runs == [20 * trials]
    monkeypatch.setattr(robustness, "BYTES_AT_ONCE", DATA[:20].nbytes)
    assert measured_robustness([DATA], [FLOAT_INPUT], labels, counted, samples=20) == one
    assert runs[1:] == [20] * trials


def test_the_same_seed_gives_the_same_figures() -> None:
    assert measured() == measured()
    assert measured() != measured(seed=4)


def test_names_are_not_corrupted_and_pixels_stay_whole_numbers() -> None:
    tokens = TensorInfo(name="ids", shape=(1, 12), dtype="int32")
    ids = np.arange(120).reshape(10, 12).astype(np.int32)
    assert measured_robustness([ids], [tokens], None, both) is None
    pixels = TensorInfo(name="image", shape=(1, 8, 8, 1), dtype="uint8")
    images = np.random.default_rng(0).integers(0, 256, size=(10, 8, 8, 1)).astype(np.uint8)
    seen: list[list[Array]] = []

    def classes_of_images(inputs: Sequence[Array]) -> tuple[Classes, Classes]:
        seen.append(list(inputs))
        answers = (inputs[1].mean(axis=(1, 2, 3)) > 127).astype(np.int64)
        return answers, answers

    result = measured_robustness([ids, images], [tokens, pixels], None, classes_of_images, severities=(3,))
    assert result is not None
    assert result.mean_agreement == 1.0
    ((joined_ids, joined_images),) = seen
    assert joined_images.dtype == np.uint8
    assert (joined_ids == np.tile(ids, (len(joined_ids) // 10, 1))).all()
    assert not (joined_images == np.tile(images, (len(joined_images) // 10, 1, 1, 1))).all()


def test_samples_are_evenly_spaced() -> None:
    assert chosen_rows(10, 4).tolist() == [0, 3, 6, 9]
    assert chosen_rows(3, 200).tolist() == [0, 1, 2]


def test_the_drop_of_one_corruption_has_newcombe_s_interval() -> None:
    labels = np.array([0, 1, 1, 0])
    before, after = np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1])
    figures = figures_of(Corruption.BLUR, 2, before, after, labels)
    assert (figures.reference, figures.variant, figures.drop) == (0.75, 0.5, 0.25)
    assert figures.drop_ci95 == intervals.drop(before == labels, after == labels).ci95
    assert (figures.agreement, figures.agreement_ci95) == (0.75, intervals.share_ci95(before == after))
    same = figures_of(None, 0, labels, labels, labels)
    mean = summary([same, figures, same], samples=4, severities=(2,), seed=0)
    assert (mean.mean_drop, mean.mean_agreement) == (0.125, 0.875)
    assert figures.drop_ci95 is not None
    assert same.drop_ci95 is not None
    assert mean.mean_drop_ci95 is not None
    assert mean.mean_drop_ci95[1] == pytest.approx((figures.drop_ci95[1] + same.drop_ci95[1]) / 2)


def test_edge_inputs_are_at_the_edge_of_the_data() -> None:
    ids = np.arange(90)[:, None].astype(np.int32)
    tensors = [FLOAT_INPUT, TensorInfo(name="ids", shape=(1, 1), dtype="int32")]
    (arrays, names), kinds = edge_arrays([DATA, ids], tensors, not_finite=True)
    assert len(arrays) == len(names) == len(kinds) == len(Edge) - 1 + 16
    assert (names == 0).all()
    rows = {kind: arrays[kinds.index(kind)] for kind in Edge}
    assert (rows[Edge.ZEROS] == 0).all()
    assert (rows[Edge.MINIMUM] == DATA.min()).all()
    assert (rows[Edge.MAXIMUM] == DATA.max()).all()
    assert rows[Edge.CONSTANT] == pytest.approx(DATA.mean(), abs=1e-6)
    assert 0 < rows[Edge.DENORMALS].max() < np.finfo(np.float32).tiny
    assert np.array_equal(rows[Edge.OUT_OF_RANGE], 4 * DATA[0])
    assert np.isnan(rows[Edge.NAN]).all()
    assert (rows[Edge.MINUS_INFINITY] == -np.inf).all()
    _, finite = edge_arrays([DATA], [FLOAT_INPUT], not_finite=False)
    assert set(Edge) - set(finite) == {Edge.NAN, Edge.PLUS_INFINITY, Edge.MINUS_INFINITY}


def test_what_both_models_answer_to_edge_inputs() -> None:
    kinds = [Edge.ZEROS, Edge.OUT_OF_RANGE, Edge.OUT_OF_RANGE, Edge.NAN]
    expected = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [np.nan, np.nan]])
    outputs = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [1.0, 0.0]])
    by_kind = {each.kind: each for each in edge_figures(kinds, [expected], [outputs], classes=True)}
    assert list(by_kind) == list(Edge)
    assert by_kind[Edge.ZEROS] == EdgeInput(
        kind=Edge.ZEROS, samples=1, reference_finite=True, finite=True, same_class=1.0
    )
    assert by_kind[Edge.OUT_OF_RANGE].same_class == 0.5
    assert (by_kind[Edge.NAN].reference_finite, by_kind[Edge.NAN].finite) == (False, True)
    assert by_kind[Edge.NAN].same_class is None
    assert (by_kind[Edge.MAXIMUM].samples, by_kind[Edge.MAXIMUM].finite) == (0, None)
    without = edge_figures(kinds, [expected], [outputs], classes=False)
    assert {each.same_class for each in without} == {None}
