"""The task that shapes and labels give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.blueprint import Task
from edgeq.evaluation import LabelForm, guess_task

Shape = tuple[int, ...]
CLASSES = np.array([0, 2, 1, 3, 1, 0])
FLAGS = np.array([0, 1, 1, 0, 0, 1])


@pytest.mark.parametrize(
    ("outputs", "inputs", "labels", "task"),
    [
        ([(4,)], [(49, 10, 1)], CLASSES, Task.CLASSIFICATION),
        ([(1, 1, 4)], [(49, 10, 1)], CLASSES, Task.CLASSIFICATION),
        ([(4,)], [(8,)], np.eye(4)[CLASSES], Task.CLASSIFICATION),
        ([(4,)], [(8,)], CLASSES + 0.5, None),
        ([(3,)], [(8,)], np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0]]), Task.MULTI_LABEL),
        ([(1,)], [(8,)], CLASSES + 0.25, Task.REGRESSION),
        ([(1,)], [(8,)], CLASSES[:, None], Task.REGRESSION),
        ([(2,)], [(8,)], np.random.default_rng(0).normal(size=(6, 2)), Task.REGRESSION),
        ([(3, 4)], [(8,)], np.random.default_rng(0).normal(size=(6, 3, 4)), Task.REGRESSION),
        ([(1,)], [(8,)], FLAGS, Task.ANOMALY),
        ([(640,)], [(640,)], FLAGS, Task.ANOMALY),
        ([(640,)], [(10,)], FLAGS, Task.CLASSIFICATION),
        ([(2,)], [(2,)], FLAGS, Task.CLASSIFICATION),
        ([(8,)], [(8,)], FLAGS, Task.ANOMALY),
        ([(8,)], [(8,)], None, Task.CLASSIFICATION),
        ([(16, 16, 3)], [(16, 16, 3)], np.zeros((6, 16, 16), int), Task.SEGMENTATION),
        ([(16, 16, 1)], [(16, 16, 3)], np.ones((6, 16, 16, 1), int), Task.SEGMENTATION),
        ([(20, 4), (20,), (20,), (1,)], [(96, 96, 3)], np.zeros((6, 9, 5)), Task.DETECTION),
        ([(5,)], [(8,)], np.zeros((6, 3)), None),
        ([(20, 4), (20,), (20,), (1,)], [(96, 96, 3)], None, Task.DETECTION),
        ([(640,)], [(640,)], None, Task.ANOMALY),
        ([(16, 16, 3)], [(32, 32, 3)], None, Task.SEGMENTATION),
        ([(4,)], [(8,)], None, Task.CLASSIFICATION),
        ([(1,)], [(8,)], None, None),
        ([], [(8,)], CLASSES, None),
    ],
)
def test_the_task_follows_from_shapes_and_labels(
    outputs: list[Shape], inputs: list[Shape], labels: npt.NDArray[Any] | None, task: Task | None
) -> None:
    form = None if labels is None else LabelForm.of(labels)
    guess = guess_task(outputs, form, inputs=inputs)
    assert guess.task == task
    assert guess.reason


def test_the_form_of_labels() -> None:
    form = LabelForm.of(np.eye(3)[[0, 1, 1]])
    assert form == LabelForm(shape=(3, 3), whole=True, binary=True, one_hot=True)
    assert not LabelForm.of(np.array([[1, 1], [0, 1]])).one_hot
    assert not LabelForm.of(np.array([0.0, 1.5])).whole
    assert LabelForm.of(np.zeros((4, 1, 5))).sample == (5,)
