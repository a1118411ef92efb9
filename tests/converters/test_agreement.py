"""Agreement of classes, boxes and masks, and of outputs that hold no answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq_converters.agreement import Agreement, Answer, aligned, compare

SAMPLES, ANCHORS = 5, 60


def detections(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (samples, N, 4) as corners, scores of three classes for each, and those that are sure."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, 500, (SAMPLES, ANCHORS, 2))
    boxes = np.concatenate([low, low + random.uniform(20, 100, low.shape)], axis=2)
    scores = random.uniform(0, 0.4, (SAMPLES, ANCHORS, 3))
    sure = random.random((SAMPLES, ANCHORS)) < 0.3
    scores[..., 1][sure] = 0.9
    return boxes, scores, sure


def logit(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.log(values / (1 - values))
    return result


def centred(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], axis=2)


def listed(boxes: np.ndarray, scores: np.ndarray, order: Sequence[int] = (0, 1, 2, 3)) -> list[np.ndarray]:
    """Return the four outputs of a post-processing, with leftovers behind the count."""
    outputs = np.zeros((SAMPLES, ANCHORS, 4)), np.zeros((SAMPLES, ANCHORS)), np.full((SAMPLES, ANCHORS), 0.99)
    counts = []
    for sample in range(SAMPLES):
        best = scores[sample].max(axis=1)
        places = [i for i in np.argsort(-best) if best[i] > 0.3]
        counts.append(len(places))
        outputs[0][sample, : len(places)] = boxes[sample, places]
        outputs[1][sample, : len(places)] = scores[sample, places].argmax(axis=1)
        outputs[2][sample, : len(places)] = best[places]
    every = [*outputs, np.array(counts, float)]
    return [every[i] for i in order]


Layout = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]
LAYOUTS: dict[str, Layout] = {
    "corners": lambda boxes, scores: [boxes, scores],
    "scores first": lambda boxes, scores: [scores, boxes],
    "centres": lambda boxes, scores: [centred(boxes), scores],
    "logits": lambda boxes, scores: [boxes, logit(scores)],
    "one class": lambda boxes, scores: [boxes, scores.max(axis=2)],
    "one column": lambda boxes, scores: [boxes, scores.max(axis=2, keepdims=True)],
    "key points": lambda boxes, scores: [np.tile(boxes, 3), logit(scores.max(axis=2, keepdims=True))],
    "one output": lambda boxes, scores: [np.concatenate([boxes, scores], axis=2)],
    "normalized": lambda boxes, scores: [np.concatenate([centred(boxes) / 700, scores], axis=2)],
    "turned": lambda boxes, scores: [np.concatenate([centred(boxes), scores], axis=2).transpose(0, 2, 1)],
    "post-processed": listed,
    "other order": lambda boxes, scores: listed(boxes, scores, (2, 0, 3, 1)),
}


def compared(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Agreement:
    result = compare(got, expected)
    assert result is not None
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_agree_by_place_class_and_score(layout: str) -> None:
    boxes, scores, sure = detections()
    arrange = LAYOUTS[layout]
    expected = arrange(boxes, scores)
    same = compared(expected, expected)
    assert (same.answer, same.share, same.same) == (Answer.BOXES, 1.0, None)
    # A little noise changes nothing.
    assert compared(arrange(boxes + 1.0, scores * 0.99), expected).share == 1.0
    count = int(sure.sum())
    first = tuple(np.argwhere(sure)[0])
    moved = boxes.copy()
    moved[first] += 90  # beyond half of its size
    lost = scores.copy()
    lost[first] = 0.35  # below the score of a detection
    for changed, union in ((arrange(moved, scores), count + 1), (arrange(boxes, lost), count)):
        assert compared(changed, expected).share == pytest.approx((count - 1) / union)
    if scores.shape[2] and layout not in ("one class", "one column", "key points"):
        other = scores.copy()
        other[(*first, 2)] = 0.95  # another class
        assert compared(arrange(boxes, other), expected).share == pytest.approx((count - 1) / (count + 1))


@pytest.mark.parametrize("layout", ["corners", "one output", "post-processed"])
def test_dead_scores_agree_on_nothing(layout: str) -> None:
    boxes, scores, _ = detections()
    arrange = LAYOUTS[layout]
    assert compared(arrange(boxes, scores * 0), arrange(boxes, scores)).share == 0.0


@pytest.mark.parametrize("layout", ["post-processed", "other order"])
def test_listed_boxes_are_compared_in_one_order(layout: str) -> None:
    boxes, scores, sure = detections()
    noise = np.random.default_rng(1).uniform(0, 0.05, scores.shape)  # it changes the order, and no class
    expected, got = LAYOUTS[layout](boxes, scores), LAYOUTS[layout](boxes + 0.1, scores + noise)
    ours, theirs = aligned(got, expected)
    place = next(i for i, each in enumerate(expected) if each.ndim == 3)
    known = theirs[place].any(axis=2) & ours[place].any(axis=2)
    assert known.sum() >= sure.sum()
    np.testing.assert_allclose(ours[place][known], theirs[place][known] + 0.1)
    other = aligned([boxes, scores], [boxes, scores])
    assert all(one is two for one, two in zip(other[0], (boxes, scores), strict=True))


def test_lists_without_a_common_box_are_useless() -> None:
    boxes, scores, _ = detections()
    expected = listed(boxes, scores)
    assert compared(expected, expected).useless is None
    assert "0.0 %" in str(compared(listed(boxes + 400, scores), expected).useless)
    assert compared([boxes + 400, scores], [boxes, scores]).useless is None  # the SQNR shows that


def test_where_nothing_is_detected_there_is_no_agreement() -> None:
    boxes, scores, _ = detections()
    few = [boxes, scores * 0.1]
    assert compared(few, few).share is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.sampled_from(sorted(LAYOUTS)))
def test_the_share_of_boxes_is_the_same_both_ways(seed: int, layout: str) -> None:
    boxes, scores, _ = detections(seed)
    noisy = np.clip(scores + np.random.default_rng(seed).normal(0, 0.1, scores.shape), 0.01, 0.99)
    one, other = LAYOUTS[layout](boxes, scores), LAYOUTS[layout](boxes + 3, noisy)
    there, back = compared(one, other).share, compared(other, one).share
    assert there == pytest.approx(back)
    assert there is not None
    assert 0 <= there <= 1


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (32, 24, 1)])
@pytest.mark.parametrize("logits", [False, True])
def test_a_mask_agrees_by_its_overlap(shape: tuple[int, ...], logits: bool) -> None:
    inside = np.zeros((3, *shape))
    inside[:, 4:12, 4:12] = 1
    narrower = inside.copy()
    narrower[:, 4:8] = 0
    expected, got = ([(each - 0.5) * 8] if logits else [each] for each in (inside, narrower))
    result = compared(got, expected)
    assert (result.answer, result.share) == (Answer.MASK, 0.5)


@pytest.mark.parametrize("shape", [(7, 4), (6, 5, 3)])
def test_probabilities_of_each_place_are_classes(shape: tuple[int, ...]) -> None:
    grown = np.exp(np.random.default_rng(1).normal(size=(4, *shape)))
    expected = grown / grown.sum(axis=-1, keepdims=True)
    got = expected.copy()
    got[0] = np.roll(got[0], 1, axis=-1)
    result = compared([got], [expected])
    assert (result.answer, result.share) == (Answer.CLASSES, 0.75)


def test_classes_and_single_scores() -> None:
    logits = np.random.default_rng(2).normal(size=(40, 10))
    got = logits.copy()
    got[:10] = np.roll(got[:10], 1, axis=1)
    result = compared([got], [logits])
    assert (result.answer, result.share) == (Answer.CLASSES, 0.75)
    assert result.same is not None
    assert result.same.sum() == 30
    score = np.array([[0.1], [0.9], [0.6], [0.4]])
    assert compared([np.array([[0.2], [0.7], [0.4], [0.3]])], [score]).share == 0.75


@pytest.mark.parametrize(
    "values",
    [
        100 + np.random.default_rng(3).normal(size=(30, 63)),  # landmarks in pixels
        np.random.default_rng(3).normal(size=(30, 1)) * 50,  # one quantity
        np.random.default_rng(3).normal(size=(30, 12, 12, 17)),  # heat maps
        np.random.default_rng(3).normal(size=(30, 20, 6)),  # values over time
    ],
    ids=["landmarks", "quantity", "heat maps", "series"],
)
def test_quantities_have_no_agreement(values: np.ndarray) -> None:
    assert compare([values], [values]) is None


def test_labels_say_that_the_first_output_is_classes() -> None:
    values = 100 + np.random.default_rng(3).normal(size=(30, 5))
    result = compare([values], [values], labelled=True)
    assert result is not None
    assert (result.answer, result.share) == (Answer.CLASSES, 1.0)


# NON_MAX_SUPPRESSION's: "i" indices, "b" boxes, "s" scores, "a" all scores, "c" classes, "n" count.
SELECTIONS = ("bisn", "bin", "ibsn", "bs", "bsc", "bn", "b", "bacn", "nib", "bsi")


def chosen(boxes: np.ndarray, scores: np.ndarray, layout: str) -> list[np.ndarray]:
    """Return what NON_MAX_SUPPRESSION and GATHER give: rows behind the count repeat the first anchor."""
    places, counts = [], []
    for sample in range(SAMPLES):
        best = scores[sample].max(axis=1)
        order = [i for i in np.argsort(-best) if best[i] > 0.5]
        counts.append(len(order))
        places.append(order + [0] * (ANCHORS - len(order)))
    rows = np.arange(SAMPLES)[:, None], np.array(places)
    valid = np.arange(ANCHORS) < np.array(counts)[:, None]
    every = {
        "i": np.array(places, float),
        "b": boxes[rows],
        "s": np.where(valid, scores[rows].max(axis=2), 0),
        "a": scores[rows],
        "c": scores[rows].argmax(axis=2).astype(float),
        "n": np.array(counts, float)[:, None],
    }
    return [every[each] for each in layout]


@pytest.mark.parametrize("layout", SELECTIONS)
def test_selected_boxes_agree_in_any_order(layout: str) -> None:
    boxes, scores, sure = detections()
    sure[:, [0, -1]] = False
    scores = np.minimum(scores, 0.2)
    scores[..., 2][sure] = np.random.default_rng(5).uniform(0.8, 0.99, int(sure.sum()))
    everything = range(len(layout))
    noise = np.random.default_rng(1).uniform(-0.04, 0, scores.shape)  # it changes the order
    # The same boxes come from other anchors: the model's are numbered the other way round.
    expected = chosen(boxes, scores, layout)
    got = chosen((boxes + 1)[:, ::-1], (scores + noise)[:, ::-1], layout)
    if layout not in ("b", "bn"):
        assert not np.array_equal(got[layout.index("b")], expected[layout.index("b")] + 1)
    result = compare(got, expected, selected=everything)
    assert result is not None
    assert (result.answer, result.share, result.useless) == (Answer.BOXES, 1.0, None)
    ours, theirs = aligned(got, expected, selected=everything)
    at = layout.index("b")
    rows = theirs[at].any(axis=2)
    assert rows.sum() == sure.sum()
    np.testing.assert_allclose(ours[at][rows], theirs[at][rows] + 1)
    if "i" in layout and "n" in layout:
        assert not ours[layout.index("i")].any()
    far = compare(chosen(boxes + 5000, scores, layout), expected, selected=everything)
    assert far is not None
    assert "0.0 %" in str(far.useless)


@pytest.mark.parametrize("layout", ["in", "n", "sn"])
def test_a_selection_without_boxes_has_no_agreement(layout: str) -> None:
    boxes, scores, _ = detections()
    expected = chosen(boxes, scores, layout)
    assert compare(expected, expected, selected=range(len(layout))) is None
