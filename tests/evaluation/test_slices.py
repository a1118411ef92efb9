"""Slices: which samples a condition names, their figures, and columns that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.blueprint import Limits, Slice, parse_condition
from edgeq.errors import DataError
from edgeq.evaluation.slices import rows_of, slice_figures
from edgeq_converters import intervals

NIGHT = np.array([True, False, True, False])
ROOMS = np.array(["kitchen", "hall", "kitchen", "bath"])
SNR = np.array([1.0, 5.0, np.nan, 9.0])


def part(condition: str) -> Slice:
    return Slice(name="part", where=parse_condition(condition), limits=Limits())


@pytest.mark.parametrize(
    ("condition", "column", "rows"),
    [
        ("night", NIGHT, [True, False, True, False]),
        ("not night", NIGHT, [False, True, False, True]),
        ("night", NIGHT.astype(np.int8), [True, False, True, False]),
        ("night", NIGHT[:, None], [True, False, True, False]),
        ("room == 'kitchen'", ROOMS, [True, False, True, False]),
        ("room != 'kitchen'", ROOMS, [False, True, False, True]),
        ("room == 'kitchen'", ROOMS.astype("S7"), [True, False, True, False]),
        ("snr < 5", SNR, [True, False, False, False]),
        ("snr <= 5", SNR, [True, True, False, False]),
        ("snr > 5", SNR, [False, False, False, True]),
        ("snr >= 5", SNR, [False, True, False, True]),
        ("snr == 9", SNR.astype(np.float32), [False, False, False, True]),
        ("night == 1", NIGHT, [True, False, True, False]),
    ],
)
def test_a_condition_names_samples(condition: str, column: npt.NDArray[Any], rows: list[bool]) -> None:
    assert rows_of(part(condition), column, samples=4, subject="e.npz").tolist() == rows


@pytest.mark.parametrize(
    ("condition", "column", "code", "words"),
    [
        ("night", NIGHT[:3], "EQ203", ["`night` of shape (4,)", "(3,)"]),
        ("night", np.zeros((4, 2), bool), "EQ203", ["(4, 2)"]),
        ("night", np.array([0, 1, 2, 1]), "EQ205", ["truth values", "int64", "0, 1, 2"]),
        ("night", ROOMS, "EQ205", ["truth values", "kitchen"]),
        ("room == 'kitchen'", SNR, "EQ205", ["texts in `room`", "float64"]),
        ("room < 5", ROOMS, "EQ205", ["numbers in `room`", "<U7"]),
        ("snr > 100", SNR[[0, 1, 3, 3]], "EQ202", ["is empty", "snr > 100", "1.0, 5.0, 9.0"]),
        ("snr > 100", np.arange(4.0), "EQ202", ["0.0, 1.0, 2.0, 3.0"]),
        ("room == 'attic'", ROOMS, "EQ202", ["attic", "bath, hall, kitchen"]),
        ("not night", np.ones(4, bool), "EQ202", ["not night"]),
    ],
)
def test_a_column_that_does_not_fit_is_refused(
    condition: str, column: npt.NDArray[Any], code: str, words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        rows_of(part(condition), column, samples=4, subject="e.npz")
    assert caught.value.reported_code == code
    assert "e.npz: slice 'part'" in caught.value.message
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint


def test_many_values_are_described_by_their_range() -> None:
    with pytest.raises(DataError, match="goes from 0 to 99"):
        rows_of(part("snr > 100"), np.arange(100), samples=100, subject="e.npz")


def test_the_figures_are_those_of_the_slice_alone() -> None:
    before = np.array([True, True, True, True, False, True])
    after = np.array([True, False, True, False, True, True])
    same = np.array([True, False, True, False, False, True])
    rows = np.array([True, True, True, True, False, False])
    figures = slice_figures(part("night"), rows, right=(before, after), same=same)
    assert (figures.samples, figures.where) == (4, "night")
    assert (figures.reference_accuracy, figures.accuracy, figures.drop) == (1.0, 0.5, 0.5)
    assert figures.drop_ci95 == intervals.drop(before[:4], after[:4]).ci95
    assert figures.accuracy_ci95 == intervals.share_ci95(after[:4])
    assert (figures.agreement, figures.agreement_ci95) == (0.5, intervals.share_ci95(same[:4]))


def test_a_slice_without_labels_or_answers_has_no_figures() -> None:
    figures = slice_figures(part("night"), NIGHT, right=None, same=None)
    assert figures.samples == 2
    assert (figures.accuracy, figures.drop, figures.agreement) == (None, None, None)
    dependent = slice_figures(part("night"), NIGHT, right=(NIGHT, NIGHT), same=NIGHT, independent=False)
    assert dependent.drop == 0.0
    assert (dependent.drop_ci95, dependent.accuracy_ci95, dependent.agreement_ci95) == (None, None, None)
