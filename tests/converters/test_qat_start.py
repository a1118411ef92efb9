"""The start and the scoring of QAT: equalized Keras models, grids, scores, samples for selection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common.heads import Head
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat.scoring import (
    SampleScores,
    Score,
    Scorer,
    no_gain,
    split_for_selection,
)

pytestmark = pytest.mark.convert


def checked(model: Path, samples: Path, folder: Path) -> dict[str, float]:
    script = Path(__file__).with_name("check_equalized.py")
    done = subprocess.run(
        [sys.executable, str(script), str(model), str(samples), str(folder)],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_an_equalized_keras_model_equals_its_tflite(tunable: Path, tmp_path: Path) -> None:
    report = checked(tunable / "spread.keras", tunable / "train.npz", tmp_path)
    assert report["equalized"]
    assert report["changed"] >= 4
    assert report["far"] < 1e-4
    assert report["same_weights"]
    assert report["grid_kept"]
    assert report["training_sees_the_grid"]
    assert 8 < report["levels"] <= 15


@pytest.mark.slow
def test_a_model_that_cannot_be_equalized_is_unchanged(tunable: Path, tmp_path: Path) -> None:
    report = checked(tunable / "regression.keras", tunable / "train.npz", tmp_path)
    assert report["far"] < 1e-4
    assert report["equalized"] or report["changed"] == 0


def data(count: int, classes: int = 3) -> LabelledData:
    random = np.random.default_rng(0)
    return LabelledData(
        arrays=(np.arange(count, dtype=np.float32)[:, None],), labels=random.integers(0, classes, count)
    )


def test_more_right_classes_win_and_the_loss_breaks_ties() -> None:
    better, worse = Score(share=0.9, loss=2.0), Score(share=0.8, loss=0.1)
    assert better.beats(worse)
    assert not worse.beats(better)
    assert Score(share=0.9, loss=1.0).beats(better)
    assert not better.beats(better)


@pytest.mark.parametrize(
    ("seen", "unseen", "words"),
    [
        ((0.970, 0.980), (0.975, 0.970), "on the 80 held-out samples"),
        ((0.970, 0.980), (0.970, 0.970), None),
        ((0.970, 0.980), (0.970, 0.975), None),
        ((0.970, 0.970), (0.970, 0.999), "on the 40 training samples reserved for this comparison"),
        ((0.980, 0.970), (0.970, 0.999), "on the 40 training samples reserved for this comparison"),
    ],
)
def test_the_file_that_is_better_on_other_samples_too_is_kept(
    seen: tuple[float, float], unseen: tuple[float, float], words: str | None
) -> None:
    def scores(shares: tuple[float, float]) -> tuple[Score, Score]:
        return Score(share=shares[0], loss=1.0), Score(share=shares[1], loss=1.0)

    reasons = no_gain(scores(seen), scores(unseen), 40, 80)
    assert [words in reason for reason in reasons if words] == ([] if words is None else [True])
    assert bool(reasons) is (words is not None)


def test_without_classes_the_loss_on_other_samples_decides() -> None:
    before, after = Score(share=0.0, loss=0.2), Score(share=0.0, loss=0.1)
    assert no_gain((before, after), (before, after), 40, 80) == ()
    (reason,) = no_gain((before, after), (after, before), 40, 80)
    assert "on the 80 held-out samples" in reason


def test_scores_of_logits_and_probabilities_agree_and_a_zero_probability_stays_finite() -> None:
    held = data(40)
    random = np.random.default_rng(1)
    logits = random.normal(size=(40, 3))
    probable = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for head, outputs in ((Head.LOGITS, logits), (Head.PROBABILITIES, probable)):
        scorer = Scorer(data=held, reference=[outputs], head=head, by_labels=True)
        scores.append(scorer.score([outputs]))
    assert scores[0].share == scores[1].share
    assert scores[0].loss == pytest.approx(scores[1].loss)
    assert held.labels is not None
    scorer = Scorer(data=held, reference=[probable], head=Head.PROBABILITIES, by_labels=True)
    wrong = np.eye(3)[(held.labels + 1) % 3]
    assert scorer.score([wrong]).share == 0.0
    assert np.isfinite(scorer.score([wrong]).loss)


def test_without_labels_the_float_model_defines_the_right_class() -> None:
    held = data(40)
    expected = np.eye(3)[np.arange(40) % 3] * 5.0
    scorer = Scorer(data=held, reference=[expected], head=Head.LOGITS, by_labels=False)
    assert scorer.score([expected]).share == 1.0
    assert scorer.score([expected]).beats(scorer.score([expected[:, ::-1]]))
    values = Scorer(data=held, reference=[expected], head=Head.VALUES, by_labels=False)
    assert values.score([expected]).loss == 0.0
    assert values.score([expected]).beats(values.score([expected + 1.0]))


def test_selection_samples_are_not_trained_on() -> None:
    fit, chosen = split_for_selection(data(200), seed=3, subject="d")
    ours, theirs = set(fit.arrays[0].ravel()), set(chosen.arrays[0].ravel())
    assert not ours & theirs
    assert len(ours) + len(theirs) == 200
    assert len(chosen) == 30
    again = split_for_selection(data(200), seed=3, subject="d")[1]
    assert np.array_equal(again.arrays[0], chosen.arrays[0])
    assert set(split_for_selection(data(200), seed=4, subject="d")[1].arrays[0].ravel()) != theirs


@pytest.mark.parametrize(("count", "chosen"), [(2, 1), (3, 1), (8, 2), (50, 12), (70, 16), (150, 22)])
def test_few_samples_never_serve_as_both(count: int, chosen: int) -> None:
    fit, selection = split_for_selection(data(count), seed=0, subject="d")
    assert (len(fit), len(selection)) == (count - chosen, chosen)
    assert not set(fit.arrays[0].ravel()) & set(selection.arrays[0].ravel())


def test_equal_samples_are_all_trained_on_or_all_selected_on() -> None:
    twice = data(40).take(np.repeat(np.arange(40), 2))
    fit, selection = split_for_selection(twice, seed=1, subject="d")
    assert not set(fit.arrays[0].ravel()) & set(selection.arrays[0].ravel())
    with pytest.raises(ConverterError) as caught:
        split_for_selection(data(1).take(np.zeros(9, np.int64)), seed=1, subject="d")
    assert caught.value.code == "EQ202"


def test_a_tuned_model_must_be_better_beyond_doubt() -> None:
    random = np.random.default_rng(0)
    loss = random.exponential(1.0, 40)
    plain = SampleScores(right=np.ones(40), loss=loss)
    lucky = loss.copy()
    lucky[0] -= 0.5  # one sample of forty
    assert not SampleScores(right=np.ones(40), loss=lucky).surely_beats(plain)
    assert not plain.surely_beats(plain)
    assert SampleScores(right=np.ones(40), loss=loss * 0.9).surely_beats(plain)
    fewer = np.ones(40)
    fewer[:8] = 0
    assert not SampleScores(right=fewer, loss=loss * 0.9).surely_beats(plain)
    assert plain.surely_beats(SampleScores(right=fewer, loss=loss * 0.9))


def test_the_answers_of_a_tuned_model_are_compared_as_evaluate_does() -> None:
    random = np.random.default_rng(2)
    unlabelled = LabelledData(arrays=data(40).arrays, labels=None)

    def agreement(outputs: list[np.ndarray], reference: list[np.ndarray]) -> tuple[str, float | None] | None:
        scorer = Scorer(data=unlabelled, reference=reference, head=Head.VALUES, by_labels=False)
        result = scorer.agreement(outputs)
        return None if result is None else (result.answer.value, result.share)

    score = random.uniform(0.6, 1, (40, 1)).astype(np.float32)
    assert agreement([score - 0.55], [score]) == ("classes", 0.0)  # an argmax of one value never differs
    mask = (random.random((40, 16, 16, 1)) < 0.5).astype(np.float32)
    assert agreement([1 - mask], [mask]) == ("mask", 0.0)
    low = random.uniform(0, 99, (40, 30, 2))
    boxes = np.concatenate([low, low + 20], axis=2)
    scores = np.full((40, 30, 3), 0.1)
    scores[:, ::4, 1] = 0.9
    assert agreement([boxes, scores], [boxes, scores]) == ("boxes", 1.0)
    assert agreement([boxes, scores * 0], [boxes, scores]) == ("boxes", 0.0)
    landmarks = 100 + random.normal(size=(40, 42))
    assert agreement([landmarks], [landmarks]) is None
