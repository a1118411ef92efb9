"""Archives that are damaged, or packed as no reader expects, are an error of one line in every reader."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq_converters.calibration import histogram_io
from edgeq_converters.data import files
from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import detect

EMPTY = b'{"schema":"%s","tensors":[],"model_sha256":"a","source_sha256":"b","inputs":[],"data":[]}'
MEMBERS: dict[str, dict[str, npt.NDArray[Any]]] = {
    "samples": {"x": np.arange(40, dtype=np.float32).reshape(10, 4), "y": np.zeros(10, np.int64)},
    "histograms": {
        "document": np.frombuffer(EMPTY % histogram_io.SCHEMA.encode(), np.uint8),
        **{name: np.zeros(0, np.int64) for name in ("sizes", "keys", "counts")},
    },
}
READERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "samples": ("samples", "npz", files.read),
    "histograms": ("histograms", "npz", histogram_io.read),
    "keras": ("samples", "keras", detect.detect),
    "torch": ("samples", "pt2", detect.detect),
    "onnx": ("samples", "onnx", detect.detect),
    "tflite": ("samples", "tflite", detect.detect),
}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def packed(what: str, method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, array in MEMBERS[what].items():
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(f"{name}.npy", member.getvalue())
    return stream.getvalue()


@pytest.mark.first_is_quick
@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(METHODS),
    # Most of what can go wrong in a zip is in its directory, at the end.
    changes=st.lists(
        st.tuples(st.integers(1, 300), st.sampled_from([0, 1, 127, 128, 255, ord("/")])), max_size=6
    ),
    cut=st.integers(0, 40),
)
def test_a_damaged_archive_is_an_error_of_one_line(
    reader: str, method: int, changes: list[tuple[int, int]], cut: int, tmp_path: Path
) -> None:
    what, suffix, read = READERS[reader]
    content = bytearray(packed(what, method))
    for place, value in changes:
        content[-min(place, len(content))] = value
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content[: len(content) - cut] if cut > 20 else content)
    try:
        read(path)
    except ConverterError as error:
        assert error.code in {"EQ201", "EQ202", "EQ204", "EQ205", "EQ207", "EQ212", "EQ302", "EQ305"}  # noqa: PT017
        assert str(path) in str(error)  # noqa: PT017
