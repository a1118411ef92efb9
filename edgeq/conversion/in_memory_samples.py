"""Write calibration samples given in Python (arrays or an iterable) to a file for the worker."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import array_names
from edgeq_converters.errors import ConverterError

Array = npt.NDArray[Any]
Calibration = str | Path | Array | Mapping[str, Array] | Iterable[Any]
"""The forms of calibration data that `convert` accepts.

A path; an array (samples first) for a model with one input; a mapping {input name: array}; or an iterable or
generator that yields for each sample an array, a mapping {input name: array}, or a list of arrays with a
leading batch dimension, as TFLiteConverter's representative_dataset does.
"""
_SUBJECT = "calibration"


def as_file(given: Calibration, workdir: Path) -> Path:
    """Return a given path unchanged, or write the samples to a file in `workdir` and return its path.

    Raises:
        ConverterError: as `write_samples`.
    """
    if isinstance(given, (str, os.PathLike)):
        return Path(given)
    return write_samples(given, workdir / "calibration.npz")


def write_samples(given: Array | Mapping[str, Array] | Iterable[Any], path: Path) -> Path:
    """Write the samples as a .npz and return its path.

    Raises:
        ConverterError: EQ202 the iterable is empty, EQ203 samples differ in shape, EQ205 not numeric arrays.
    """
    if isinstance(given, np.ndarray):
        arrays = {"x": given}
    elif isinstance(given, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in given.items()}
    else:
        arrays = _gather(given)
    np.savez(path, **arrays)  # type: ignore[arg-type] # its stub takes **kwds for allow_pickle too
    return path


def _gather(samples: Iterable[Any]) -> dict[str, Array]:
    columns: dict[str, list[Array]] = {}
    count = 0
    for sample in samples:
        count += 1
        for name, array in _named(sample).items():
            columns.setdefault(name, []).append(array)
    if not count:
        raise ConverterError(
            "EQ202",
            _SUBJECT,
            "the iterable is empty",
            expected="at least one sample",
            hint="a generator can be used only once: pass a new one",
        )
    return {name: _joined(name, parts) for name, parts in columns.items()}


def _named(sample: Any) -> dict[str, Array]:
    if isinstance(sample, Mapping):
        return {str(name): np.asarray(array)[None] for name, array in sample.items()}
    if isinstance(sample, Sequence) and not isinstance(sample, str):
        arrays = [np.asarray(array) for array in sample]
        return {
            "x" if len(arrays) == 1 else array_names.POSITION.format(i): array
            for i, array in enumerate(arrays)
        }
    return {"x": np.asarray(sample)[None]}


def _joined(name: str, parts: list[Array]) -> Array:
    if any(part.dtype.kind not in "fiub" or part.ndim == 0 for part in parts):
        raise ConverterError(
            "EQ205", _SUBJECT, expected=f"arrays of numbers for `{name}`", got=str(parts[0].dtype)
        )
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ConverterError(
            "EQ203", _SUBJECT, f"samples of `{name}` differ in shape", got=", ".join(map(str, sorted(shapes)))
        )
    return np.concatenate(parts)
