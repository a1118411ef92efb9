"""Compare a model's answers with the float model's: classes, detected boxes, or a mask.

What the outputs are is recognized by their shapes and the float model's values. Outputs that are none of
these (landmarks, embeddings, other quantities) have no answer to agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]
IOU = 0.5
"""Overlap (intersection over union) from which two boxes are the same detection."""
SCORE = 0.5
"""Score from which a box counts as detected, and a value of a mask as inside."""
USELESS_BELOW = 0.1
"""Share of the boxes of a post-processing below which a model is useless."""
_CORNERS = 4
_SMALLEST_MASK = 8
_LONG = 4
"""Anchors for each column from which an output of values in 0..1 is boxes and scores rather than a mask."""
_BY_POSITION = 0.98
"""Share of the values' squares that their means over the samples hold in quantities, such as coordinates."""


class Answer(StrEnum):
    """What the outputs of a model are."""

    CLASSES = "classes"
    BOXES = "boxes"
    MASK = "mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far a model gives the float model's answers.

    Attributes:
        answer: what was compared.
        share: 0..1; None where the float model detects nothing, and the model neither.
        same: of each sample, for classes; None for other answers.
        listed: whether the boxes are those of a post-processing, in an order of its own.
    """

    answer: Answer
    share: float | None
    same: npt.NDArray[np.bool_] | None = None
    listed: bool = False

    @property
    def useless(self) -> str | None:
        """In words, why a list of boxes is useless; None where it is not, or the answer is another one."""
        if not self.listed or self.share is None or self.share >= USELESS_BELOW:
            return None
        return f"{100 * self.share:.1f} % of the detected boxes are the float model's"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Detections:
    """Boxes of all samples.

    Attributes:
        boxes: (samples, boxes, 4).
        scores: (samples, boxes), 0..1.
        classes: (samples, boxes).
        by_place: whether box i of both models is the same anchor; else they are lists in any order.
    """

    boxes: Real
    scores: Real
    classes: Real
    by_place: bool


def compare(
    outputs: Sequence[Real],
    expected: Sequence[Real],
    *,
    labelled: bool = False,
    selected: Sequence[int] = (),
) -> Agreement | None:
    """Return how far a model's answers are those of the float model; None where they hold no answers.

    Args:
        outputs: real values of the model, samples first.
        expected: the float model's, in the same order and shapes; they decide what the outputs are.
        labelled: whether the data has a class for each sample: the first output is then classes.
        selected: positions of the outputs that NON_MAX_SUPPRESSION and what follows it compute. If they hold
            no boxes, there is no agreement.
    """
    if selected and not labelled:
        lists = _selected(outputs, expected, selected), _selected(expected, expected, selected)
        if lists[0] is None or lists[1] is None:
            return None
        return Agreement(answer=Answer.BOXES, share=_same_boxes(lists[0], lists[1]), listed=True)
    if not labelled:
        arranged = _detections(expected, expected), _detections(outputs, expected)
        if arranged[0] is not None and arranged[1] is not None:
            return Agreement(
                answer=Answer.BOXES,
                share=_same_boxes(arranged[1], arranged[0]),
                listed=not arranged[0].by_place,
            )
        if _is_mask(expected[0]):
            return Agreement(answer=Answer.MASK, share=_mask_iou(outputs[0], expected[0]))
        if _has_class_for_each_place(expected[0]):
            share = np.mean(outputs[0].argmax(axis=-1) == expected[0].argmax(axis=-1))
            return Agreement(answer=Answer.CLASSES, share=float(share))
        if not _is_classes(expected[0]):
            return None
    same = _class_of(outputs[0], expected[0]) == _class_of(expected[0], expected[0])
    return Agreement(answer=Answer.CLASSES, share=float(np.mean(same)), same=same)


def aligned(
    outputs: Sequence[Real], expected: Sequence[Real], *, selected: Sequence[int] = ()
) -> tuple[Sequence[Real], Sequence[Real]]:
    """Return (outputs, the float model's) whose values at one place belong to each other.

    Those are the same arrays, but for the outputs of a detection post-processing, which lists boxes in
    the order of their scores. There the rows of the model take the order of the float model's. Boxes that
    only one of them lists are zeros in both, like the rows behind the count: the agreement is about them.
    The same box may come from another anchor, so that the indices of NON_MAX_SUPPRESSION are zeros too.

    Args:
        selected: as in `compare`.
    """
    if not all(np.isfinite(each).all() for each in (*outputs, *expected)):
        return outputs, expected
    if selected:
        got, reference = (_selected(each, expected, selected) for each in (outputs, expected))
    else:
        got, reference = _listed(outputs, expected), _listed(expected, expected)
    if got is None or reference is None:
        return outputs, expected
    corners = _has_corners(reference.boxes[reference.scores > 0])
    one, other = (_as_corners(each.boxes, corners) for each in (got, reference))
    size = got.scores.shape[1]
    lists = [
        i
        for i, each in enumerate(expected)
        if each.ndim > 1 and each.shape[1] == size and (not selected or i in selected)
    ]
    ours, theirs = ([np.array(each) for each in arrays] for arrays in (outputs, expected))
    has = got.scores > 0, reference.scores > 0
    for sample in range(len(one)):
        pairs = _pairs(sample, got, reference, one, other, has)
        rows, places = ([pair[side] for pair in pairs] for side in (0, 1))
        for i in lists:
            ours[i][sample], theirs[i][sample] = 0, 0
            ours[i][sample, places] = outputs[i][sample, rows]
            theirs[i][sample, places] = expected[i][sample, places]
    for i in selected:
        if i in lists and _are_indices(expected[i], reference.scores > 0):
            ours[i], theirs[i] = np.zeros_like(ours[i]), np.zeros_like(theirs[i])
    return ours, theirs


def _is_unit(values: Real) -> bool:
    return bool(values.size) and float(values.min()) >= 0 and float(values.max()) <= 1


def _threshold(reference: Real) -> float:
    """Return the value that means a score of SCORE: itself for 0..1, and 0 for logits."""
    return SCORE if _is_unit(reference) else 0.0


def _class_of(output: Real, reference: Real) -> npt.NDArray[np.int64]:
    flat = output.reshape(len(output), -1)
    if flat.shape[1] == 1:
        inside: npt.NDArray[np.int64] = (flat[:, 0] >= _threshold(reference)).astype(np.int64)
        return inside
    best: npt.NDArray[np.int64] = flat.argmax(axis=1).astype(np.int64)
    return best


def _is_classes(reference: Real) -> bool:
    flat = reference.reshape(len(reference), -1)
    if max(reference.shape[1:], default=1) != flat.shape[1] or not np.isfinite(flat).all():
        return False  # more than one axis holds values
    if flat.shape[1] == 1:
        return _is_unit(flat)
    # Quantities keep their places: their means over the samples hold nearly all. Logits move with the sample.
    held = len(flat) * np.square(flat.mean(axis=0)).sum()
    return len(flat) < 2 or _is_unit(flat) or bool(held < _BY_POSITION * np.square(flat).sum())


def _has_class_for_each_place(reference: Real) -> bool:
    """Return whether an output holds probabilities of classes for each pixel or time step."""
    return reference.ndim > 2 and 1 < reference.shape[-1] < reference[0].size and _are_shares(reference)


def _are_shares(values: Real) -> bool:
    return _is_unit(values) and np.allclose(values.sum(axis=-1), 1, atol=1e-2)


def _is_mask(reference: Real) -> bool:
    shape = reference.shape[1:]
    return (
        len(shape) in (2, 3)
        and min(shape[:2]) >= _SMALLEST_MASK
        and (len(shape) == 2 or shape[2] == 1)
        and bool(np.isfinite(reference).all())
    )


def _mask_iou(output: Real, reference: Real) -> float | None:
    """Return the intersection over union of all samples' masks; None where both are empty."""
    one, other = output >= _threshold(reference), reference >= _threshold(reference)
    union = int((one | other).sum())
    return None if union == 0 else int((one & other).sum()) / union


def _detections(outputs: Sequence[Real], reference: Sequence[Real]) -> _Detections | None:
    """Return outputs arranged as detections; None where the reference's are none.

    Args:
        reference: outputs whose values decide which output is which, and what their columns are.
    """
    if not all(np.isfinite(each).all() for each in reference):
        return None
    return _listed(outputs, reference) or _dense(outputs, reference) or _in_one(outputs, reference)


def _listed(outputs: Sequence[Real], reference: Sequence[Real]) -> _Detections | None:
    """Read the four outputs of a detection post-processing: boxes, classes, scores and their count."""
    sizes = [each.shape[1:] for each in reference]
    boxes = [i for i, shape in enumerate(sizes) if len(shape) == 2 and shape[1] == _CORNERS]
    if len(reference) != _CORNERS or len(boxes) != 1:
        return None
    lists = [i for i, shape in enumerate(sizes) if shape == sizes[boxes[0]][:1]]
    counts = [i for i, each in enumerate(reference) if each[0].size == 1 and i not in lists]
    if len(lists) != 2 or len(counts) != 1:
        return None
    whole = [i for i in lists if (reference[i] == np.rint(reference[i])).all()]
    classes = whole[0] if whole else lists[0]
    scores = next(i for i in lists if i != classes)
    places = np.arange(outputs[scores].shape[1])
    # What lies behind the count is left over from memory.
    valid = places < outputs[counts[0]].reshape(-1, 1)
    return _Detections(
        boxes=outputs[boxes[0]],
        scores=np.where(valid, outputs[scores], 0.0),
        classes=outputs[classes],
        by_place=False,
    )


def _selected(
    outputs: Sequence[Real], reference: Sequence[Real], selected: Sequence[int]
) -> _Detections | None:
    """Read what NON_MAX_SUPPRESSION chose: boxes (samples, N, 4), with scores, classes and count if any.

    Boxes without scores count as sure.
    """
    boxes = [i for i in selected if reference[i].ndim == 3 and reference[i].shape[2] == _CORNERS]
    if len(boxes) != 1 or not all(np.isfinite(reference[i]).all() for i in selected):
        return None
    rows = reference[boxes[0]].shape[:2]
    has, valid = _filled(outputs, selected, boxes[0]), _filled(reference, selected, boxes[0])
    scores, classes = np.ones(rows), np.zeros(rows)
    for i in selected:
        if i == boxes[0] or reference[i].ndim not in (2, 3) or reference[i].shape[1] != rows[1]:
            continue
        own, its = (each[i].reshape(*rows, -1) for each in (outputs, reference))
        used = its[valid]
        if its.shape[2] > 1:
            classes = own.argmax(axis=2).astype(np.float64)
        if used.size and _is_unit(used) and not (used == np.rint(used)).all():
            scores = own.max(axis=2)
        elif its.shape[2] == 1 and (its == np.rint(its)).all() and not _are_indices(its[..., 0], valid):
            classes = own[..., 0]
    return _Detections(
        boxes=outputs[boxes[0]], scores=np.where(has, scores, 0.0), classes=classes, by_place=False
    )


def _filled(outputs: Sequence[Real], selected: Sequence[int], boxes: int) -> npt.NDArray[np.bool_]:
    """Return which rows of a list hold a box: those before the count, or before a last row that repeats."""
    rows = outputs[boxes].shape[:2]
    for i in selected:
        if outputs[i][0].size == 1 and (i != boxes and rows[1] > 1):
            filled: npt.NDArray[np.bool_] = np.arange(rows[1]) < outputs[i].reshape(-1, 1)
            return filled
    same = (outputs[boxes] == outputs[boxes][:, -1:]).all(axis=2)
    # A row of the padding: all behind it are equal to the last one, and it is not alone.
    padding = np.flip(np.cumprod(np.flip(same, axis=1), axis=1), axis=1).astype(bool)
    held: npt.NDArray[np.bool_] = ~(padding & (padding.sum(axis=1, keepdims=True) > 1))
    return held


def _are_indices(values: Real, valid: npt.NDArray[np.bool_]) -> bool:
    """Return whether a list holds indices of anchors: whole numbers, none twice in a sample."""
    if values.size != valid.size:
        return False
    rows = [row[places] for row, places in zip(values.reshape(valid.shape), valid, strict=True)]
    whole = all((row == np.rint(row)).all() for row in rows)
    return (
        whole and max(map(len, rows), default=0) > 1 and all(len(np.unique(row)) == len(row) for row in rows)
    )


def _dense(outputs: Sequence[Real], reference: Sequence[Real]) -> _Detections | None:
    """Read a box of each anchor, (samples, N, 4 or more), and its scores, (samples, N) or (samples, N, C)."""
    for i, boxes in enumerate(reference):
        for j, scores in enumerate(reference):
            if i == j or boxes.ndim != 3 or boxes.shape[2] < _CORNERS or boxes.shape[1] < 2:
                continue
            if scores.ndim not in (2, 3) or scores.shape[1] != boxes.shape[1]:
                continue
            narrow = scores.ndim == 2 or scores.shape[2] == 1
            if narrow or (boxes.shape[2] == _CORNERS and scores.shape[2] != _CORNERS):
                return _at_anchors(outputs[i], outputs[j], scores)
    return None


def _in_one(outputs: Sequence[Real], reference: Sequence[Real]) -> _Detections | None:
    """Read boxes and scores in one output: (samples, N, 4 + C), or (samples, 4 + C, N) with fewer rows."""
    values = reference[0]
    if len(reference) != 1 or values.ndim != 3 or min(values.shape[1:]) <= _CORNERS:
        return None
    turned = values.shape[1] < values.shape[2] and _is_unit(values[:, _CORNERS:])
    if turned:
        values, outputs = values.transpose(0, 2, 1), [outputs[0].transpose(0, 2, 1)]
    scores = values[..., _CORNERS:]
    sides = sorted(values.shape[1:])
    looks_like_mask = _is_unit(values) and sides[1] < _LONG * sides[0]
    if not _is_unit(scores) or _are_shares(values) or looks_like_mask:
        return None
    return _at_anchors(outputs[0][..., :_CORNERS], outputs[0][..., _CORNERS:], scores)


def _at_anchors(boxes: Real, scores: Real, reference: Real) -> _Detections:
    scores, reference = (each.reshape(*each.shape[:2], -1) for each in (scores, reference))
    best = scores.max(axis=2)
    return _Detections(
        boxes=boxes[..., :_CORNERS],
        scores=best if _is_unit(reference) else 1 / (1 + np.exp(-np.clip(best, -60, 60))),
        classes=scores.argmax(axis=2).astype(np.float64),
        by_place=True,
    )


def _same_boxes(got: _Detections, expected: _Detections) -> float | None:
    """Return the share of detections that both models have; of all that at least one has.

    The same detection has the same class and an overlap of IOU at least, and for anchors the same anchor.
    """
    has = got.scores >= SCORE, expected.scores >= SCORE
    corners = _has_corners(expected.boxes[has[1]])
    one, other = (_as_corners(each.boxes, corners) for each in (got, expected))
    matched = 0
    for sample in range(len(one)):
        if expected.by_place:
            both = has[0][sample] & has[1][sample]
            near = _iou(one[sample][both], other[sample][both]) >= IOU
            matched += int((near & (got.classes[sample][both] == expected.classes[sample][both])).sum())
        else:
            matched += len(_pairs(sample, got, expected, one, other, has))
    union = int(has[0].sum()) + int(has[1].sum()) - matched
    return None if union == 0 else matched / union


def _pairs(
    sample: int,
    got: _Detections,
    expected: _Detections,
    one: Real,
    other: Real,
    has: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
) -> list[tuple[int, int]]:
    """Return (row of the model, row of the float model) of each detection of a sample that both have.

    The detections of the float model, the surest first, each take the nearest free one of the same class.
    """
    free = [int(i) for i in np.flatnonzero(has[0][sample])]
    pairs = []
    for index in sorted(np.flatnonzero(has[1][sample]), key=lambda i: -expected.scores[sample][i]):
        same = [i for i in free if got.classes[sample][i] == expected.classes[sample][index]]
        overlaps = [float(_iou(one[sample][i], other[sample][index])) for i in same]
        if overlaps and max(overlaps) >= IOU:
            nearest = same[int(np.argmax(overlaps))]
            free.remove(nearest)
            pairs.append((nearest, int(index)))
    return pairs


def _has_corners(boxes: Real) -> bool:
    """Return whether boxes are two corners; else they are a centre and a size."""
    return bool((boxes[:, 2:] >= boxes[:, :2]).all())


def _as_corners(boxes: Real, corners: bool) -> Real:
    if corners:
        return boxes
    half = np.abs(boxes[..., 2:]) / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def _iou(one: Real, other: Real) -> Real:
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(np.maximum(each[..., 2:] - each[..., :2], 0), axis=-1) for each in (one, other)]
    union = areas[0] + areas[1] - shared
    overlap: Real = np.where(union > 0, shared / np.where(union > 0, union, 1), (one == other).all(axis=-1))
    return overlap
