"""Data files as the agent's `infer` takes them: `x` becomes `input_0`, labels stay here."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples ready to be sent.

    Attributes:
        payload: an .npz with `input_0`, `input_1`, ..., samples first.
        count: how many samples.
        labels: integers, or None.
    """

    payload: bytes = field(repr=False)
    count: int
    labels: Sequence[int] | None

    def accuracy(self, predicted: Sequence[int]) -> float | None:
        """Return the share of predictions that are the label; None without labels or with samples lost."""
        if self.labels is None or len(predicted) != len(self.labels) or not predicted:
            return None
        return sum(a == b for a, b in zip(predicted, self.labels, strict=True)) / len(predicted)


def load_samples(path: Path) -> Samples:
    """Read an .npz of `x` (and `y`), or of `input_0`, ...

    Raises:
        DataError: it is no such file, is empty, has NaN, or its arrays differ in length.
    """
    arrays = _arrays(path)
    labels = arrays.pop("y", None)
    inputs = {"input_0": arrays["x"]} if set(arrays) == {"x"} else arrays
    names = [f"input_{number}" for number in range(len(inputs))]
    if not inputs or set(inputs) != set(names):
        raise DataError(
            str(path), expected="arrays x (and y), or input_0, ...", got=", ".join(arrays) or "none"
        )
    counts = {len(array) if array.ndim else 0 for array in inputs.values()}
    if len(counts) != 1 or counts == {0}:
        raise DataError(
            str(path), expected="as many samples in each array, at least one", got=str(sorted(counts))
        )
    for name, array in inputs.items():
        if array.dtype.kind not in "fiub":
            raise DataError(f"{path}: {name}", expected="numbers", got=str(array.dtype))
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path}: {name}", "has values that are not finite")
    if labels is not None and labels.shape != (counts.copy().pop(),):
        raise DataError(f"{path}: y", expected=f"{counts.pop()} labels", got=f"shape {labels.shape}")
    buffer = io.BytesIO()
    np.savez(buffer, **{name: inputs[name] for name in names})
    return Samples(
        payload=buffer.getvalue(),
        count=counts.pop() if counts else len(inputs["input_0"]),
        labels=None if labels is None else [int(label) for label in labels],
    )


def _arrays(path: Path) -> dict[str, Any]:
    try:
        # Opened here: numpy leaves the file open when it is no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(str(path), expected="an .npz file", got="a single array")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(str(path), "no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy speaks of pickles here, which nobody asked about.
        raise DataError(str(path), expected="an .npz file", got="something else, or a part of one") from error
