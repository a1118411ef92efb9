"""Read samples and labels from .npz and .npy files and folders of images, before any model is known."""

from __future__ import annotations

import difflib
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import array_names
from edgeq_converters.errors import ConverterError

LABELS = "y"
SEQUENCES = "sequence_id"
CLASS_NAMES = "labels"
"""Texts, one for each class: not samples. Numbers of this name are an input like any other."""
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".webp"}
UNREADABLE = (
    ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, KeyError, struct.error,
    SyntaxError, TypeError, IndexError, OverflowError, MemoryError, NotImplementedError, RuntimeError,
    AttributeError,
)  # fmt: skip
"""What `zipfile`, numpy and JSON raise on archives that are damaged or hold something else."""
_KINDS = "a .npz (x, y), a .npy or a folder with one subfolder of images per class"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSamples:
    """Samples as they were read.

    Attributes:
        subject: the file or folder, for messages.
        arrays: by name, samples first, without the labels and the ids of sequences.
        images: decoded images of shape (height, width, 3) and any size, instead of arrays.
        labels: as read, unchecked; None without labels.
        class_names: in the order of the classes; empty where the data does not name them.
        sequence_ids: which sequence each sample belongs to, as read, unchecked; None for independent samples.
        columns: arrays that were asked for by name, as read, unchecked: numbers, truth values or texts.
        notes: how the arrays were taken apart, for the user.
    """

    subject: str
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    images: tuple[npt.NDArray[np.uint8], ...] = ()
    labels: npt.NDArray[Any] | None = None
    class_names: tuple[str, ...] = ()
    sequence_ids: npt.NDArray[Any] | None = None
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(path: Path, *, columns: Sequence[str] = (), finite: bool = True) -> RawSamples:
    """Return the samples of a file or folder.

    No model takes texts: an array of them is set aside, and a note says so.

    Args:
        columns: names of arrays that say which samples belong to a part of the data.
        finite: refuse NaN and infinity.

    Raises:
        ConverterError: EQ201 unreadable, EQ202 empty, EQ204 NaN or infinity, EQ205 not numeric or a column
            that the data does not have, EQ210 images.
    """
    if path.is_dir():
        images = _read_images(path)
        given = {} if images.labels is None else {LABELS: images.labels}
        return replace(images, columns=_columns(given, columns, subject=str(path)))
    if not path.is_file():
        raise ConverterError("EQ201", str(path), "no such data file", hint=f"give {_KINDS}")
    arrays = _read_arrays(path)
    chosen = _columns(arrays, columns, subject=str(path))
    labels, ids = arrays.pop(LABELS, None), arrays.pop(SEQUENCES, None)
    arrays = {
        name: array
        for name, array in arrays.items()
        if name not in chosen or array_names.names_an_input(name)
    }
    names = _class_names(arrays)
    if not arrays:
        raise ConverterError("EQ205", str(path), expected="an array `x` with the samples", got="labels only")
    texts = [name for name, array in arrays.items() if _is_text(name, array)]
    if len(texts) < len(arrays):
        arrays = {name: array for name, array in arrays.items() if name not in texts}
    else:
        texts = []
    note = f"{path}: {', '.join(f'`{name}`' for name in sorted(texts))} holds texts; not used"
    return RawSamples(
        subject=str(path),
        arrays=checked(arrays, subject=str(path), finite=finite),
        labels=labels,
        class_names=names,
        sequence_ids=ids,
        columns=chosen,
        notes=(note,) if texts else (),
    )


def _class_names(arrays: dict[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    """Remove the names of the classes from the arrays, and return them."""
    listed = arrays.get(CLASS_NAMES)
    if listed is None or listed.dtype.kind != "U" or listed.ndim != 1:
        return ()
    return tuple(arrays.pop(CLASS_NAMES).tolist())


def _is_text(name: str, array: npt.NDArray[Any]) -> bool:
    """Return whether an array holds a text for each sample; `y_NAME` are labels of an output."""
    return array.dtype.kind in "US" and array.ndim == 1 and not name.startswith(f"{LABELS}_")


def _columns(
    arrays: Mapping[str, npt.NDArray[Any]], names: Sequence[str], *, subject: str
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of these names.

    Raises:
        ConverterError: EQ205 there is none of a name.
    """
    for name in names:
        if name not in arrays:
            near = difflib.get_close_matches(name, arrays, n=1)
            raise ConverterError(
                "EQ205",
                subject,
                expected=f"an array `{name}` with one value for each sample, which a slice names",
                got=", ".join(f"`{each}`" for each in sorted(arrays)) or "none",
                hint=f"did you mean `{near[0]}`?"
                if near
                else "add the array to the data, or name one of those that exist",
            )
    return {name: arrays[name] for name in names}


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as stream:  # numpy leaves a file open that it cannot read
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except UNREADABLE as error:
        short = " ".join(str(error).split())[:120]
        if "pickle" in short:
            short = "neither .npz nor .npy, or arrays of Python objects"
        raise ConverterError(
            "EQ201", str(path), f"cannot be read as samples ({short})", expected=_KINDS, got=_kind_of(path)
        ) from error
    # A zip archive of something else, such as a .keras model, has members that are not arrays.
    if other := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ConverterError(
            "EQ201",
            str(path),
            f"cannot be read as samples (`{other[0]}` in it is not an array)",
            expected=_KINDS,
            got=_kind_of(path),
        )
    return arrays


def _kind_of(path: Path) -> str | None:
    """Return what a file is instead of samples, where its start or its ending says it."""
    with path.open("rb") as stream:
        head = stream.read(8)
    if head[4:8] == b"TFL3":
        return "a .tflite model"
    if head[:4] == b"\x89HDF":
        return "an HDF5 file"
    return f"a {path.suffix} file" if path.suffix not in {"", ".npz", ".npy"} else None


def checked(
    arrays: Mapping[str, npt.NDArray[Any]], *, subject: str, finite: bool = True
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays after checking that all are numeric, finite, not empty and of one length.

    Args:
        finite: refuse NaN and infinity.

    Raises:
        ConverterError: EQ202, EQ203, EQ204, EQ205.
    """
    for name, array in arrays.items():
        _check(name, array, subject, finite=finite)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ConverterError(
            "EQ203", subject, "the arrays differ in their number of samples", got=str(lengths)
        )
    return dict(arrays)


def _check(name: str, array: npt.NDArray[Any], subject: str, *, finite: bool) -> None:
    if array.dtype.kind not in "fiub":
        raise ConverterError("EQ205", subject, expected=f"numbers in `{name}`", got=f"dtype {array.dtype}")
    if array.ndim == 0:
        raise ConverterError(
            "EQ203", subject, expected=f"an array of samples in `{name}`", got="a single number"
        )
    if array.size == 0:
        raise ConverterError(
            "EQ202",
            subject,
            f"`{name}` is empty",
            expected="at least one sample",
            got=f"shape {tuple(array.shape)}",
            hint="give a representative dataset: 100 to 500 samples for calibration",
        )
    if finite and array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            usable = np.isfinite(array.astype(np.float32, copy=False))
        if not usable.all():
            first = tuple(int(i) for i in np.unravel_index(int(np.argmin(usable)), array.shape))
            raise ConverterError(
                "EQ204",
                subject,
                expected=f"finite float32 values in `{name}`",
                got=f"{array[first]} at index {list(first)} ({int((~usable).sum())} such values)",
                hint="remove or correct these samples",
            )


def _read_images(folder: Path) -> RawSamples:
    entries = sorted(folder.iterdir())
    classes = [entry for entry in entries if entry.is_dir()]
    files = [
        (file, label)
        for label, entry in enumerate(classes)
        for file in sorted(entry.iterdir())
        if file.suffix.lower() in _IMAGES
    ]
    if not files:
        raise ConverterError(
            "EQ202" if classes else "EQ210",
            str(folder),
            expected="one subfolder of images per class",
            got=f"{len(classes)} subfolders without images"
            if classes
            else f"{sum(entry.suffix.lower() in _IMAGES for entry in entries)} images and no subfolder",
            hint=f"give {_KINDS}",
        )
    return RawSamples(
        subject=str(folder),
        images=tuple(_decode(file) for file, _ in files),
        labels=np.array([label for _, label in files], np.int64),
        class_names=tuple(entry.name for entry in classes),
    )


def _decode(file: Path) -> npt.NDArray[np.uint8]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise missing("Pillow") from error
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ConverterError("EQ210", str(file), "the image cannot be decoded") from error


def missing(library: str, *, extra: str = "convert") -> ConverterError:
    """Return the error for a library that is not installed.

    Args:
        extra: the extra of edgeq that installs it.
    """
    return ConverterError(
        "EQ104", f"edgeq[{extra}]", f"{library} is not installed", hint=f"pip install 'edgeq[{extra}]'"
    )
