"""Read data files into the payload of the agent's verb `infer`; labels stay on the host."""

from __future__ import annotations

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import DataError

# What numpy and zipfile raise for a file that is not a sound .npz, depending on where it is wrong.
_DAMAGE = (
    OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, OverflowError, MemoryError,
    SyntaxError, tokenize.TokenError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples as the agent takes them.

    Attributes:
        payload: an .npz with `input_0`, `input_1`, ..., each of shape (samples, ...), and `sequence_id` if
            the file has it.
        count: the number of samples.
        labels: class numbers, one a sample, or None.
        has_sequences: whether the samples have the ids of sequences.
    """

    payload: bytes = field(repr=False)
    count: int
    labels: Sequence[int] | None
    has_sequences: bool

    def accuracy(self, predicted: Sequence[int]) -> float | None:
        """Return the share of correct predictions; None without labels or with predictions missing."""
        if self.labels is None or len(predicted) != len(self.labels) or not predicted:
            return None
        return sum(a == b for a, b in zip(predicted, self.labels, strict=True)) / len(predicted)


def load_samples(path: Path) -> Samples:
    """Read an .npz with `x`, or with `input_0`, `input_1`, ...; `y` and `sequence_id` are optional.

    Raises:
        DataError: the file cannot be read or holds no samples, NaN, or arrays of different lengths.
    """
    arrays = _arrays(path)
    labels, ids = arrays.pop("y", None), arrays.pop("sequence_id", None)
    inputs = {"input_0": arrays["x"]} if set(arrays) == {"x"} else arrays
    names = [f"input_{number}" for number in range(len(inputs))]
    if not inputs or set(inputs) != set(names):
        raise DataError(
            str(path), expected="arrays x (and y), or input_0, ...", got=", ".join(arrays) or "none"
        )
    counts = {len(array) if array.ndim else 0 for array in inputs.values()}
    if len(counts) != 1 or counts == {0}:
        raise DataError(
            str(path), expected="arrays with the same number of samples, at least 1", got=str(sorted(counts))
        )
    for name, array in inputs.items():
        if array.dtype.kind not in "fiub":
            raise DataError(f"{path}: {name}", expected="numbers", got=str(array.dtype))
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path}: {name}", "contains values that are not finite")
    if labels is not None and labels.shape != (counts.copy().pop(),):
        raise DataError(f"{path}: y", expected=f"{counts.pop()} labels", got=f"shape {labels.shape}")
    if ids is not None and (ids.shape != (len(inputs["input_0"]),) or ids.dtype.kind not in "iuU"):
        raise DataError(
            f"{path}: sequence_id",
            expected=f"{len(inputs['input_0'])} integers or texts, one a sample",
            got=f"shape {ids.shape} of {ids.dtype}",
        )
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **{name: inputs[name] for name in names},
        **({} if ids is None else {"sequence_id": ids}),
    )
    return Samples(
        payload=buffer.getvalue(),
        count=counts.pop() if counts else len(inputs["input_0"]),
        labels=None if labels is None else [int(label) for label in labels],
        has_sequences=ids is not None,
    )


def _arrays(path: Path) -> dict[str, Any]:
    try:
        # Opened here: numpy leaves the file open when it is not an archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(str(path), expected="an .npz file", got="a single array")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(str(path), "not found") from error
    except _DAMAGE as error:
        # numpy's own message is about pickles, which would mislead.
        raise DataError(str(path), expected="an .npz file", got="another or a damaged file") from error
