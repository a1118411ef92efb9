"""The task of a model, guessed from the shapes of its outputs and the labels of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blueprint import Task

Shape = tuple[int, ...]
_SMALLEST_SIDE = 8
"""Rows and columns from which an output with two axes of places is an image."""
_CLEARLY_REBUILT = 16
"""Values from which an output of the input's shape is a reconstruction."""
_BOX = 4
"""Numbers that state a box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelForm:
    """What the array `y` looks like.

    Attributes:
        shape: samples first.
        whole: whether every value is a whole number.
        binary: whether every value is 0 or 1.
        one_hot: whether each row of a table holds one 1 and zeros.
    """

    shape: Shape
    whole: bool
    binary: bool
    one_hot: bool

    @classmethod
    def of(cls, labels: npt.NDArray[Any]) -> LabelForm:
        """Return the form of numeric labels, samples first."""
        present = np.unique(labels)
        binary = set(present.tolist()) <= {0, 1}
        table = labels.reshape(len(labels), -1)
        return cls(
            shape=labels.shape,
            whole=bool((present == np.rint(present)).all()),
            binary=binary,
            one_hot=binary and table.shape[1] > 1 and bool((table.sum(axis=1) == 1).all()),
        )

    @property
    def sample(self) -> Shape:
        """The shape of one sample's label without axes of length one: () for a number."""
        return tuple(size for size in self.shape[1:] if size != 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGuess:
    """A task and the reason for it.

    Attributes:
        task: None where shapes and labels leave more than one.
        reason: half a sentence that follows the task: `each sample of y is one whole number`.
    """

    task: Task | None
    reason: str


def guess_task(
    outputs: Sequence[Sequence[int]], labels: LabelForm | None, *, inputs: Sequence[Sequence[int]] = ()
) -> TaskGuess:
    """Return the task that fits a model and its labels. A pure function.

    Labels decide where there are any; the shapes alone leave several tasks open more often.

    Args:
        outputs: the shape of each output for one sample: without the axis of the batch.
        labels: the form of `y`; None without labels.
        inputs: the same of each input. An output of the input's shape is a reconstruction.
    """
    if not outputs:
        return TaskGuess(task=None, reason="the model has no output")
    first = tuple(outputs[0])
    # A classifier may have as many features as classes. Without labels, only a larger output is clear; with
    # labels of two values, one that has more values than two is.
    least = _CLEARLY_REBUILT if labels is None else 3
    rebuilds = len(inputs) == 1 and math.prod(first) >= least and _plain(inputs[0]) == _plain(first)
    if labels is None:
        return _by_shape([tuple(each) for each in outputs], rebuilds=rebuilds)
    if _is_boxes(labels) and (len(outputs) > 1 or math.prod(labels.sample) != math.prod(first)):
        return TaskGuess(task=Task.DETECTION, reason="y has rows of four or five numbers for each sample")
    if labels.sample == ():
        return _by_number(first, labels, rebuilds=rebuilds)
    return _by_array(first, labels)


def _by_shape(outputs: Sequence[Shape], *, rebuilds: bool) -> TaskGuess:
    first = _plain(outputs[0])
    if _has_boxes(outputs):
        return TaskGuess(task=Task.DETECTION, reason="an output holds four numbers for each of many places")
    if rebuilds:
        return TaskGuess(task=Task.ANOMALY, reason="the output has the shape of the input")
    if len(first) == 3 and min(first[:2]) >= _SMALLEST_SIDE:
        return TaskGuess(
            task=Task.SEGMENTATION, reason="the output holds a value of each class at each place"
        )
    if len(first) == 1 and first[0] > 1:
        return TaskGuess(task=Task.CLASSIFICATION, reason="the output is a row of values")
    return TaskGuess(task=None, reason="the data has no y, and the shape of the output fits several tasks")


def _by_number(output: Shape, labels: LabelForm, *, rebuilds: bool) -> TaskGuess:
    """Return the task for one number a sample."""
    size = math.prod(output)
    if labels.binary and (rebuilds or size == 1):
        output_is = "has the shape of the input" if rebuilds else "is one number"
        return TaskGuess(task=Task.ANOMALY, reason=f"y is 0 or 1, and the output {output_is}")
    if size == 1:
        return TaskGuess(task=Task.REGRESSION, reason="y and the output are one number a sample")
    if labels.whole:
        return TaskGuess(task=Task.CLASSIFICATION, reason="y is one whole number a sample")
    return TaskGuess(task=None, reason=f"y is one real number a sample, and the output has {size} values")


def _by_array(output: Shape, labels: LabelForm) -> TaskGuess:
    """Return the task for several numbers a sample."""
    places = _plain(output)
    size, count = math.prod(output), math.prod(labels.sample)
    if labels.whole and len(labels.sample) == 2 and places[:2] == labels.sample:
        return TaskGuess(task=Task.SEGMENTATION, reason="y is one whole number at each place of the output")
    if count != size:
        return TaskGuess(task=None, reason=f"y has {count} values a sample, and the output has {size}")
    if labels.one_hot:
        return TaskGuess(task=Task.CLASSIFICATION, reason="each row of y holds one 1 and zeros")
    if labels.binary:
        return TaskGuess(task=Task.MULTI_LABEL, reason="y is 0 or 1 for each value of the output")
    return TaskGuess(task=Task.REGRESSION, reason="y is a number for each value of the output")


def _plain(shape: Sequence[int]) -> Shape:
    return tuple(size for size in shape if size != 1)


def _is_boxes(labels: LabelForm) -> bool:
    """Return whether each sample has several boxes: four corners, with or without a class."""
    return len(labels.shape) == 3 and labels.shape[1] > 1 and labels.shape[2] in (_BOX, _BOX + 1)


def _has_boxes(outputs: Sequence[Shape]) -> bool:
    """Return whether outputs hold boxes with their scores: of the same anchors, or in a list."""
    boxes = [each for each in outputs if len(each) == 2 and each[1] == _BOX and each[0] > 1]
    return len(outputs) > 1 and any(
        other[:1] == each[:1] for each in boxes for other in outputs if other is not each
    )
