"""Detect the kind of a source by its content."""

from __future__ import annotations

import os
import shlex
import zipfile
from enum import StrEnum
from pathlib import Path

from edgeq_converters.data import files
from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import onnx_file, torch_file

_KINDS = "a .keras, .h5, .tflite, .onnx or .pt2 file or a SavedModel folder"
_GIVE = f"give {_KINDS}"
# For a command that takes the result of a conversion.
_GIVE_TFLITE = "give a .tflite file; `edgeq convert SOURCE -o MODEL --scheme float32` makes one"


class SourceKind(StrEnum):
    """The kinds of models that can be converted."""

    KERAS = "keras"
    LEGACY_KERAS = "h5"
    SAVED_MODEL = "saved_model"
    TFLITE = "tflite"
    ONNX = "onnx"
    TORCH = "pt2"


def detect(source: Path, *, hint: str = _GIVE) -> SourceKind:
    """Return the kind of a source.

    Args:
        hint: of the error for a source that is not a model.

    Raises:
        ConverterError: EQ301 missing or not readable, EQ302 not a model that can be converted, EQ305 damaged.
    """
    if source.is_dir():
        if (source / "saved_model.pb").is_file():
            return SourceKind.SAVED_MODEL
        raise ConverterError(
            "EQ302",
            str(source),
            "not a model",
            expected="saved_model.pb in the folder",
            got=f"{sum(1 for _ in source.iterdir())} entries without it",
            hint=hint,
        )
    if not source.is_file():
        raise ConverterError("EQ301", str(source), "no such model file", hint=hint)
    return _by_content(source, hint)


def _by_content(source: Path, hint: str) -> SourceKind:
    if not os.access(source, os.R_OK):
        raise ConverterError("EQ301", str(source), "the file is not readable", hint=f"chmod u+r {source}")
    with source.open("rb") as stream:
        head = stream.read(32)
    if head[4:8] == b"TFL3":
        return SourceKind.TFLITE
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return SourceKind.LEGACY_KERAS
    if zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as archive:
                names = archive.namelist()
        except files.UNREADABLE as error:
            raise _damaged(source) from error
        if "config.json" in names:
            return SourceKind.KERAS
        # torch.export: format 2 keeps its files in a folder named after the archive, format 1 at the top.
        if (
            any(name.split("/")[-1] == "archive_format" for name in names)
            or "serialized_exported_program.json" in names
        ):
            return SourceKind.TORCH
        _no_program(source, names)
    elif head[:4] == b"PK\3\4":
        raise _damaged(source)
    if head.startswith(b"version https://git-lfs"):
        raise ConverterError(
            "EQ302", str(source), "a pointer of Git LFS, not the model itself", hint="git lfs pull"
        )
    torch_file.require_not_pickle(source, head)
    if source.suffix == ".onnx" and head:
        onnx_file.require_onnx(source)  # a bare protobuf has no marker: its fields say what it is
        return SourceKind.ONNX
    head = head[:8]
    got = "an empty file" if not head else f"a file that starts with {head!r}"
    raise ConverterError("EQ302", str(source), "not a model", expected=_KINDS, got=got, hint=hint)


def _no_program(source: Path, names: list[str]) -> None:
    """Say what else a PyTorch archive holds; nothing for an archive of something else."""
    try:
        torch_file.require_program(source, names)
    except files.UNREADABLE as error:
        raise _damaged(source) from error


def _damaged(source: Path) -> ConverterError:
    what = source.suffix or "archive"
    return ConverterError(
        "EQ305", str(source), f"truncated or damaged {what} file", hint="save the model again"
    )


def require_tflite(path: Path) -> None:
    """Check that `path` is a .tflite, by its identifier.

    Raises:
        ConverterError: EQ301, EQ302, EQ305 it is something else.
    """
    kind = detect(path, hint=_GIVE_TFLITE)
    if kind is not SourceKind.TFLITE:
        raise ConverterError(
            "EQ302",
            str(path),
            expected="a .tflite file",
            got=f"a {kind} model",
            hint=f"`edgeq convert {shlex.quote(str(path))} -o model.tflite --scheme float32` makes one",
        )
