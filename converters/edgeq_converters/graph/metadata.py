"""Carry what a .tflite says about itself into a model made of it: metadata, associated files, description."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.data import files
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model

_OF_CONVERTERS = ("min_runtime_version", "CONVERSION_METADATA", "reduced_precision_support")
"""Entries that describe how the file was made; those of the source are not true of its result."""
_DESCRIPTIONS = (b"MLIR Converted.", b"MLIR Quantized.", b"TOCO Converted.")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def carried(source: Model, result: Model) -> Model:
    """Return the result with the metadata, the associated files and the description of its source.

    The result itself is returned where it already has all that its source has. A tool that adds metadata
    appends the files (labels, a vocabulary) to the .tflite as a zip archive, which every rewrite of the graph
    drops.
    """
    missing = _missing_entries(source.parsed, result.parsed)
    described = source.parsed.description or b""
    describes = bool(described) and described not in _DESCRIPTIONS
    if missing or (describes and described != (result.parsed.description or b"")):
        editor = Editor(result)
        for name, content in missing:
            buffer = schema.BufferT()
            buffer.data = content
            editor.parsed.buffers.append(buffer)
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, len(editor.parsed.buffers) - 1
            editor.parsed.metadata = [*(editor.parsed.metadata or []), entry]
        if describes:
            editor.parsed.description = described
        result = editor.pack()
    files = associated_files(source.data)
    if files and associated_files(result.data) != files:
        result = result.with_data(result.data + _archive(files))
    return result


def associated_files(data: bytes) -> dict[str, bytes]:
    """Return {name: content} of the files at the end of a .tflite; empty where there are none."""
    stream = io.BytesIO(data)
    if not zipfile.is_zipfile(stream):
        return {}
    try:
        with zipfile.ZipFile(stream) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    except files.UNREADABLE:
        return {}  # constants that look like an archive


def _missing_entries(source: Any, result: Any) -> list[tuple[bytes, Any]]:
    present = {entry.name for entry in result.metadata or []}
    return [
        (entry.name, source.buffers[entry.buffer].data)
        for entry in source.metadata or []
        if entry.name not in present
        and (entry.name or b"").decode(errors="replace") not in _OF_CONVERTERS
        and source.buffers[entry.buffer].data is not None
    ]


def _archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=_ZIP_DATE), content)
    return stream.getvalue()
