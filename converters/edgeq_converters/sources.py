"""What kind of model a path holds, told by its content and not by its name alone."""

from __future__ import annotations

import os
import zipfile
from enum import StrEnum
from pathlib import Path

from edgeq_converters.errors import ConverterError

_KINDS = "a .keras, .h5 or .tflite file or a SavedModel folder"


class SourceKind(StrEnum):
    """The kinds of models that can be converted."""

    KERAS = "keras"
    LEGACY_KERAS = "h5"
    SAVED_MODEL = "saved_model"
    TFLITE = "tflite"


def detect(source: Path) -> SourceKind:
    """Return what `source` is.

    Raises:
        ConverterError: EQ301 nothing is there, EQ302 it is no model that can be converted.
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
            hint=f"name {_KINDS}",
        )
    if not source.is_file():
        raise ConverterError("EQ301", str(source), "no such model file", hint=f"name {_KINDS}")
    return _by_content(source)


def _by_content(source: Path) -> SourceKind:
    if not os.access(source, os.R_OK):
        raise ConverterError("EQ301", str(source), "the file is not readable", hint=f"chmod u+r {source}")
    with source.open("rb") as stream:
        head = stream.read(8)
    if head[4:8] == b"TFL3":
        return SourceKind.TFLITE
    if head == b"\x89HDF\r\n\x1a\n":
        return SourceKind.LEGACY_KERAS
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if "config.json" in archive.namelist():
                return SourceKind.KERAS
    if source.suffix == ".keras" and head[:2] == b"PK":
        raise ConverterError(
            "EQ305", str(source), "truncated or damaged .keras file", hint="save the model again"
        )
    got = "an empty file" if not head else f"a file that starts with {head!r}"
    raise ConverterError("EQ302", str(source), "not a model", expected=_KINDS, got=got, hint=f"name {_KINDS}")


def require_tflite(path: Path) -> None:
    """Check that `path` is a .tflite by its identifier.

    Raises:
        ConverterError: EQ301, EQ302.
    """
    kind = detect(path)
    if kind is not SourceKind.TFLITE:
        raise ConverterError(
            "EQ302",
            str(path),
            expected="a .tflite file",
            got=f"a {kind} model",
            hint=f"edgeq convert {path} -o model.tflite --scheme float32",
        )
