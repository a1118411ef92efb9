"""The separation of samples that measure accuracy from those that a model is trained or calibrated on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.partition import apart
from edgeq_converters.data.samples import digests_of
from edgeq_converters.training.common.training_data import DataSplit, LabelledData, divided, split
from edgeq_converters.values import TensorInfo, warnings_of

INPUTS = (TensorInfo(name="x", shape=(1, 2), dtype="float32"),)


def raw(*rows: int) -> RawSamples:
    """Return samples with these numbers."""
    x = np.array([[row, 1] for row in rows], np.float32)
    return RawSamples(subject="d.npz", arrays={"x": x}, labels=np.array([row % 3 for row in rows]))


def parted(
    training: RawSamples, validation: RawSamples | None = None, calibration: RawSamples | None = None
) -> DataSplit:
    return split(
        (training, validation), INPUTS, labels_needed=True, classes=3, seed=1, calibration=calibration
    )


def rows(data: LabelledData) -> list[int]:
    return [int(row) for row in data.arrays[0][:, 0]]


KEYS = st.lists(st.integers(0, 12).map(lambda key: digests_of([np.array([key])])[0]), min_size=1, max_size=40)


@given(fit=KEYS, held_out=KEYS, seed=st.integers(0, 9))
def test_no_sample_is_in_both_parts_and_both_keep_what_only_they_have(
    fit: list[bytes], held_out: list[bytes], seed: int
) -> None:
    fits, measures = apart(fit, held_out, seed=seed)
    kept = {key for key, keep in zip(fit, fits, strict=True) if keep}
    measured = {key for key, keep in zip(held_out, measures, strict=True) if keep}
    assert not kept & measured
    assert set(fit) - set(held_out) <= kept
    assert set(held_out) - set(fit) <= measured
    if len(set(fit) | set(held_out)) > 1:
        assert kept
        assert measured


def test_validation_samples_that_are_trained_on_do_not_measure() -> None:
    data = parted(raw(*range(10)), raw(8, 9, 10, 11))
    assert rows(data.held_out) == [10, 11]
    assert warnings_of(data.notes) == ("2 of 4 validation samples are training samples; they were left out",)
    same = parted(raw(*range(10)), raw(*range(10)))
    assert len(same.held_out) == 2
    assert not set(rows(same.held_out)) & set(rows(same.training))
    assert warnings_of(same.notes) == (
        "all 10 validation samples are training samples, so they cannot measure accuracy",
    )


@pytest.mark.parametrize(
    ("calibration", "measured", "calibrates"),
    [
        (range(20, 30), 10, 10),  # nothing is shared
        (range(18, 30), 8, 12),  # few of the held-out samples are shared
        (range(0, 40), 10, 30),  # all of them, but few of the calibration samples
        (range(10, 20), 5, 5),  # both are the same
    ],
)
def test_calibration_samples_do_not_measure(calibration: range, measured: int, calibrates: int) -> None:
    data = parted(raw(*range(40, 60)), raw(*range(10, 20)), raw(*calibration))
    assert data.calibration is not None
    assert (len(data.held_out), len(data.calibration)) == (measured, calibrates)
    assert not set(rows(data.held_out)) & set(rows(data.calibration))


def test_the_same_share_of_different_samples_is_held_out_where_many_are_equal() -> None:
    data = LabelledData(arrays=(np.tile(np.arange(10, dtype=np.float32), 20)[:, None],), labels=None)
    rest, apart = divided(data, 40, seed=0, subject="d")
    assert (len(np.unique(rest.arrays[0])), len(np.unique(apart.arrays[0]))) == (8, 2)
    assert len(rest) + len(apart) == 200
