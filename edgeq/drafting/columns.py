"""Find the columns of an .npz: arrays with one value for each sample that a slice can name."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from edgeq_converters.data.array_names import plain
from edgeq_converters.data.files import CLASS_NAMES, LABELS, SEQUENCES, UNREADABLE
from edgeq_converters.values import TensorInfo

_BESIDE = {LABELS, CLASS_NAMES, SEQUENCES}
# Arrays that feed inputs by position, and targets of single outputs.
_TAKEN = re.compile(r"x|(input|arr)_\d+|y_.*")


def column_names(path: Path, inputs: Sequence[TensorInfo]) -> tuple[str, ...]:
    """Return the columns of an .npz, by the headers of its arrays; none of a file of another kind.

    Args:
        inputs: of the model. Their arrays are not columns.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return ()
    try:
        with zipfile.ZipFile(path) as archive:
            axes = {name.removesuffix(".npy"): _axes(archive, name) for name in archive.namelist()}
    except UNREADABLE:
        return ()  # reading the data names the fault
    taken = _BESIDE | {name for tensor in inputs for name in (tensor.name, plain(tensor.name))}
    columns = [
        name
        for name, count in axes.items()
        if count == 1 and name not in taken and name.isidentifier() and not _TAKEN.fullmatch(name)
    ]
    # A single input takes the only array, whatever its name.
    return () if len(columns) == len(set(axes) - _BESIDE) else tuple(sorted(columns))


def conditions(columns: Mapping[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    """Return an example of a condition on each column: a mask, the lower half, or the commonest text."""
    examples = (_condition(name, column) for name, column in sorted(columns.items()) if column.size)
    return tuple(example for example in examples if example is not None)


def _condition(name: str, column: npt.NDArray[Any]) -> str | None:
    if column.dtype.kind == "b":
        return name
    if column.dtype.kind in "iuf":
        return f"{name} < {float(np.median(column)):.4g}"
    values, counts = np.unique(column, return_counts=True)
    text = str(values[counts.argmax()])
    return f"{name} == '{text}'" if column.dtype.kind == "U" and "'" not in text else None


def _axes(archive: zipfile.ZipFile, name: str) -> int:
    """Return how many axes an array has, without its values; 0 where the header has another version."""
    with archive.open(name) as stream:
        version = npy.read_magic(stream)
        if version == (1, 0):
            return len(npy.read_array_header_1_0(stream)[0])
        return len(npy.read_array_header_2_0(stream)[0]) if version == (2, 0) else 0
