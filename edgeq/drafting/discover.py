"""Find the one model and the data in a folder, by their endings and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from edgeq.errors import UsageError

_MODELS = (".keras", ".h5", ".hdf5", ".tflite", ".onnx", ".pt2")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".webp")
# The beginnings of words in a file's name.
_ROLES = {
    "calibration": ("calib", "represent"),
    "evaluation": ("eval", "test"),
    "training": ("train",),
    "validation": ("valid", "val", "dev"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFiles:
    """The files and folders of data that a draft is made of; None where there is none.

    Attributes:
        whole: one for everything, to be split.
    """

    whole: Path | None = None
    calibration: Path | None = None
    evaluation: Path | None = None
    training: Path | None = None
    validation: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """The files and folders that there are."""
        paths = [getattr(self, entry.name) for entry in fields(self)]
        return tuple(path for path in paths if path is not None)


def find_model(folder: Path) -> Path:
    """Return the one model in a folder.

    Raises:
        UsageError: there is none, or there are several.
    """
    return _one(
        [entry for entry in _entries(folder) if _is_model(entry)],
        folder,
        what="model",
        expected="one .keras, .h5, .tflite, .onnx or .pt2 file or SavedModel folder",
        hint="name the model as the first argument",
    )


def find_data(folder: Path) -> DataFiles:
    """Return the data in a folder: .npz files by their names, or folders of images.

    A single file or folder without a name of its own is data for everything.

    Raises:
        UsageError: there is none, or several for the same purpose.
    """
    candidates = [entry for entry in _entries(folder) if entry.suffix == ".npz" or _has_images(entry)]
    by_role: dict[str, list[Path]] = {}
    for entry in candidates:
        by_role.setdefault(role_of(entry), []).append(entry)
    named = {
        role: _one(
            entries,
            folder,
            what=f"file of {role} data",
            expected="one",
            hint=f"name it: --{role} FILE",
        )
        for role, entries in by_role.items()
        if role != "whole"
    }
    if "evaluation" in named:
        return DataFiles(**named)
    whole = by_role.get("whole", [])
    if len(whole) == 1:
        return DataFiles(**{**named, "whole": whole[0]})
    raise UsageError(
        f"data in {folder.absolute()}",
        expected="one .npz or folder of images, or evaluation.npz and calibration.npz",
        got=_listed(whole) or " and ".join(f"{role} data alone" for role in named) or "none",
        hint="name the data: --data FILE, or --evaluation FILE and --calibration FILE",
    )


def role_of(path: Path) -> str:
    """Return what a file is for by the words of its name: `training` for `x_train.npz`, else `whole`."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    for role, beginnings in _ROLES.items():
        if any(word.startswith(beginnings) for word in words):
            return role
    return "whole"


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _is_model(entry: Path) -> bool:
    return (entry / "saved_model.pb").is_file() if entry.is_dir() else entry.suffix in _MODELS


def _has_images(entry: Path) -> bool:
    """Return whether a folder has subfolders of images, one for each class."""
    if not entry.is_dir():
        return False
    classes = [inner for inner in entry.iterdir() if inner.is_dir()]
    return any(image.suffix.lower() in _IMAGES for inner in classes for image in inner.iterdir())


def _one(candidates: Sequence[Path], folder: Path, *, what: str, expected: str, hint: str) -> Path:
    if len(candidates) == 1:
        return candidates[0]
    raise UsageError(
        f"{what} in {folder.absolute()}", expected=expected, got=_listed(candidates) or "none", hint=hint
    )


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
