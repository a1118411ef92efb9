"""Figures of a segmentation beside its float model: intersection over union of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.evaluation.bootstrap import Ends, percentile_ci95
from edgeq.evaluation.undefined import finite

Real = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
IGNORED = 255
"""Label of pixels that do not count, as in PASCAL VOC and Cityscapes; for fewer than 256 classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOverlap:
    """One class: intersection over union with the labels, 0..1; None where neither has it anywhere.

    Attributes:
        pixels: that have this label.
        delta: the variant's overlap minus the float model's.
    """

    index: int
    name: str
    pixels: int
    reference: float | None
    variant: float | None
    delta: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Figures of a segmentation.

    Attributes:
        reference_mean_iou, mean_iou: mean over the classes that have an overlap.
        mean_iou_drop: the float model's minus the variant's.
        mean_iou_drop_ci95: paired percentile bootstrap over the samples; None for samples that depend on
            each other.
        reference_pixel_accuracy, pixel_accuracy: share of the pixels that get their label.
        ignored: pixels with the label IGNORED.
    """

    of_each: tuple[ClassOverlap, ...]
    reference_mean_iou: float | None
    mean_iou: float | None
    mean_iou_drop: float | None
    mean_iou_drop_ci95: Ends | None
    reference_pixel_accuracy: float
    pixel_accuracy: float
    ignored: int


def classes_at_places(output: Real, reference: Real) -> Indices:
    """Return the class of each place; one value is a mask: 1 from 0.5, or from 0 for logits.

    Args:
        output: (samples, ..., classes).
        reference: the float model's output, whose values decide whether they are logits.
    """
    if output.shape[-1] > 1:
        best: Indices = output.argmax(axis=-1).astype(np.int64)
        return best
    threshold = 0.5 if reference.min() >= 0 and reference.max() <= 1 else 0.0
    return (output[..., 0] >= threshold).astype(np.int64)


def segmentation_of(
    reference: Indices,
    variant: Indices,
    labels: npt.NDArray[Any],
    *,
    classes: int,
    names: Sequence[str] = (),
    independent: bool = True,
    seed: int = 0,
) -> Segmentation:
    """Return the figures of two models on the same samples. A pure function.

    Args:
        reference, variant: class of each place, (samples, ...).
        labels: of the same shape; 0..classes - 1 or IGNORED.
        names: of the classes; their indices without them.
        independent: whether the samples are independent of each other; there is no interval otherwise.
        seed: of the bootstrap.
    """
    flat = labels.reshape(len(labels), -1).astype(np.int64)
    counted = flat != IGNORED if classes <= IGNORED else np.ones(flat.shape, np.bool_)
    answers = [each.reshape(len(flat), -1) for each in (reference, variant)]
    overlaps = [_overlaps(each, flat, counted, classes) for each in answers]
    terms = np.concatenate(overlaps, axis=1)
    width = 2 * classes
    shares = [_shares(each.sum(axis=0)[None])[0] for each in overlaps]
    means = [_mean(each[None])[0] for each in shares]
    pixels = np.bincount(flat[counted], minlength=classes)
    right = [float((each == flat)[counted].mean()) for each in answers]
    return Segmentation(
        of_each=tuple(
            ClassOverlap(
                index=i,
                name=names[i] if i < len(names) else str(i),
                pixels=int(pixels[i]),
                reference=finite(shares[0][i]),
                variant=finite(shares[1][i]),
                delta=finite(shares[1][i] - shares[0][i]),
            )
            for i in range(classes)
        ),
        reference_mean_iou=finite(means[0]),
        mean_iou=finite(means[1]),
        mean_iou_drop=finite(means[0] - means[1]),
        mean_iou_drop_ci95=percentile_ci95(
            terms,
            lambda sums: np.asarray(_mean(_shares(sums[:, :width])) - _mean(_shares(sums[:, width:]))),
            seed=seed,
        )
        if independent
        else None,
        reference_pixel_accuracy=right[0],
        pixel_accuracy=right[1],
        ignored=int((~counted).sum()),
    )


def _overlaps(answers: Indices, labels: Indices, counted: npt.NDArray[np.bool_], classes: int) -> Real:
    """Return (samples, 2 * classes): the pixels in the intersection of each class, then in the union."""
    result = np.zeros((len(labels), 2 * classes))
    for row in range(len(labels)):
        inside = counted[row]
        got, own = answers[row][inside], labels[row][inside]
        both = np.bincount(own[got == own], minlength=classes)
        result[row, :classes] = both
        result[row, classes:] = (
            np.bincount(got, minlength=classes) + np.bincount(own, minlength=classes) - both
        )
    return result


def _shares(sums: Real) -> Real:
    """Return the intersection over union of each class; NaN where the union is empty."""
    classes = sums.shape[1] // 2
    union = sums[:, classes:]
    return np.where(union > 0, sums[:, :classes] / np.where(union > 0, union, 1.0), np.nan)


def _mean(shares: Real) -> Real:
    """Return the mean over the classes that have a share; NaN where none has."""
    known = np.isfinite(shares)
    count = known.sum(axis=1)
    total = np.where(known, shares, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
