"""The one model and the data of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.drafting.discover import find_data, find_model, role_of
from edgeq.errors import UsageError


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.tflite", "a.onnx", "a.pt2", "saved/saved_model.pb"])
def test_the_only_model_is_taken(name: str, tmp_path: Path) -> None:
    folder = touched(tmp_path, name, "notes.txt", ".hidden.keras", "data/x.npz")
    assert find_model(folder) == folder / name.split("/")[0]


def test_several_models_are_listed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_model(touched(tmp_path, "a.keras", "b.onnx"))
    assert caught.value.message.endswith("SavedModel folder, got a.keras, b.onnx")
    assert caught.value.hint == "name the model as the first argument"
    with pytest.raises(UsageError, match="got none"):
        find_model(touched(tmp_path / "empty", "notes.txt"))


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("calibration.npz", "calibration"),
        ("kws-calib.npz", "calibration"),
        ("representative.npz", "calibration"),
        ("evaluation.npz", "evaluation"),
        ("x_test.npz", "evaluation"),
        ("TRAIN.npz", "training"),
        ("my-val.npz", "validation"),
        ("latest.npz", "whole"),
        ("strain.npz", "whole"),
        ("digits.npz", "whole"),
    ],
)
def test_a_name_says_what_data_is_for(name: str, role: str) -> None:
    assert role_of(Path(name)) == role


def test_data_is_found_by_name(tmp_path: Path) -> None:
    files = find_data(touched(tmp_path, "calibration.npz", "test.npz", "train.npz", "digits.npz"))
    assert (files.whole, files.evaluation, files.training) == (
        None,
        tmp_path / "test.npz",
        tmp_path / "train.npz",
    )


def test_a_folder_of_images_is_data(tmp_path: Path) -> None:
    folder = touched(tmp_path, "photos/cat/1.png", "photos/dog/1.JPG", "other/a.png", "m/variables/b.bin")
    assert find_data(folder).all == (folder / "photos",)


@pytest.mark.parametrize(
    ("names", "got"),
    [
        (["a.npz", "b.npz"], "a.npz, b.npz"),
        (["train.npz"], "training data alone"),
        ([], "none"),
        (["x_test.npz", "y_test.npz"], "x_test.npz, y_test.npz"),
    ],
)
def test_data_that_leaves_a_choice_is_listed(names: list[str], got: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_data(touched(tmp_path, *names))
    assert caught.value.got == got
