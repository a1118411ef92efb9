"""Columns of the data: arrays that say which samples belong to a slice, and texts that no model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgeq_converters.data import files
from edgeq_converters.data.labels import check_numbers
from edgeq_converters.data.samples import match
from edgeq_converters.data.sequences import in_steps
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import Caution, TensorInfo

X = np.ones((6, 3), np.float32)
INPUT = TensorInfo(name="x", shape=(1, 3), dtype="float32")


def saved(folder: Path, **arrays: npt.ArrayLike) -> Path:
    path = folder / "e.npz"
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return path


def refusal(path: Path, columns: list[str]) -> ConverterError:
    with pytest.raises(ConverterError) as caught:
        files.read(path, columns=columns)
    return caught.value


def test_no_input_takes_a_column_and_it_is_not_reported_as_unused(tmp_path: Path) -> None:
    path = saved(tmp_path, x=X, snr=[np.nan] * 6, night=[True] * 6, room=list("abcdef"), y=range(6))
    raw = files.read(path, columns=["snr", "room", "y"])
    assert set(raw.columns) == {"snr", "room", "y"}
    assert set(raw.arrays) == {"x", "night"}
    assert raw.labels is not None
    (caution,) = match(raw, [INPUT]).notes
    assert isinstance(caution, Caution)
    assert "`night`" in caution
    assert "snr" not in caution


def test_an_array_may_be_a_column_and_an_input(tmp_path: Path) -> None:
    raw = files.read(saved(tmp_path, x=X[:, 0], level=X[:, 1]), columns=["x", "level"])
    assert set(raw.columns) == {"x", "level"}
    assert set(raw.arrays) == {"x"}  # it feeds an input of any name; `level` only one that is called so


def test_texts_that_no_slice_uses_are_set_aside(tmp_path: Path) -> None:
    path = saved(tmp_path, x=X, room=list("abcdef"), place=list("abcdef"))
    raw = files.read(path)
    assert set(raw.arrays) == {"x"}
    assert match(raw, [INPUT]).notes == (f"{path}: `place`, `room` holds texts; not used",)


def test_texts_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="expected numbers in `x`") as caught:
        files.read(saved(tmp_path, x=list("abc")))
    assert caught.value.code == "EQ205"


def test_an_unknown_column_names_the_nearest_and_those_that_exist(tmp_path: Path) -> None:
    error = refusal(saved(tmp_path, x=X, night=[True] * 6, y=range(6)), ["nigth"])
    assert error.code == "EQ205"
    assert "expected an array `nigth` with one value for each sample, which a slice names" in str(error)
    assert "got `night`, `x`, `y`" in str(error)
    assert error.hint == "did you mean `night`?"
    far = refusal(saved(tmp_path, x=X), ["temperature"])
    assert far.hint is not None
    assert "add the array" in far.hint


def test_a_folder_of_images_has_the_column_y_alone(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name / "0.png")
    assert files.read(tmp_path, columns=["y"]).columns["y"].tolist() == [0, 1]
    assert "got `y`" in str(refusal(tmp_path, ["night"]))


def test_nan_in_samples_is_refused_unless_it_is_wanted(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.full((2, 3), np.nan))
    with pytest.raises(ConverterError) as caught:
        files.read(path)
    assert caught.value.code == "EQ204"
    assert np.isnan(files.read(path, finite=False).arrays["x"]).all()


def test_a_column_of_sequences_is_that_of_each_step(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.ones((2, 4, 3)), night=[True, False], step=np.arange(8).reshape(2, 4))
    raw = in_steps(files.read(path, columns=["night", "step"]), [INPUT], ())
    assert raw.columns["night"].tolist() == [True] * 4 + [False] * 4
    assert raw.columns["step"].tolist() == list(range(8))


def test_labels_of_sequences_may_have_several_values(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.ones((2, 4, 3)), y=np.zeros((2, 4, 5)))
    raw = in_steps(files.read(path), [INPUT], ())
    assert raw.labels is not None
    assert raw.labels.shape == (8, 5)


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (np.zeros((5, 2)), "EQ206"),
        (np.array(list("abcdef")), "EQ205"),
        (np.array([1, 2, 3, 4, 5, np.inf]), "EQ204"),
    ],
)
def test_labels_of_any_form_must_be_finite_numbers_of_each_sample(
    labels: npt.NDArray[Any], code: str
) -> None:
    with pytest.raises(ConverterError) as caught:
        check_numbers(labels, samples=6, subject="e.npz")
    assert caught.value.code == code
    assert caught.value.subject == "e.npz"
    real = check_numbers(np.arange(12.0).reshape(6, 2), samples=6, subject="e.npz")
    assert real.shape == (6, 2)
