"""Split samples into calibration and evaluation data: by label, seeded, equal samples on one side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.drafting.dataset import Dataset
from edgeq.errors import DataError
from edgeq_converters.data.files import CLASS_NAMES, LABELS, SEQUENCES
from edgeq_converters.data.samples import digests_of

Array = npt.NDArray[Any]
MOST_CALIBRATION = 300
"""Samples for calibration: ranges hardly change with more of them, and conversions take longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that a draft adds.

    Attributes:
        samples: how many samples it holds.
        content: its bytes, a .npz.
    """

    path: Path
    samples: int
    content: bytes


def chosen_rows(
    groups: Sequence[bytes], labels: Array | None, *, target: int, seed: int
) -> npt.NDArray[np.intp]:
    """Return the rows of a part, in ascending order: at most `target`, with the labels' shares of the whole.

    Groups are put in the order of their labels, at random within a label, and taken at equal distances: a
    systematic sample. A group is on one side as a whole.

    Args:
        groups: for each row, what it belongs to: equal for equal samples, and in one sequence.
        labels: for each row, a number of its class; None for no classes.
    """
    count = len(groups)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    group_of = np.array([numbers[name] for name in groups], np.intp)
    sizes = np.bincount(group_of, minlength=len(numbers))
    kinds = np.zeros(len(numbers), np.int64)
    if labels is not None:
        kinds[group_of[::-1]] = labels[::-1]  # the label of a group is that of its first row
    order = np.lexsort((np.random.default_rng(seed).random(len(numbers)), kinds))
    taken, passed, chosen = 0, 0, np.zeros(len(numbers), np.bool_)
    for group in order:
        passed += int(sizes[group])
        if (taken + int(sizes[group])) * count <= target * passed:
            taken += int(sizes[group])
            chosen[group] = True
    return np.flatnonzero(chosen[group_of])


def split(dataset: Dataset, *, folder: Path, seed: int) -> tuple[NewFile, NewFile]:
    """Return calibration and evaluation data made of one data set.

    Calibration gets at most 300 samples and at most half of all, evaluation the rest.

    Raises:
        DataError: EQ202 there are too few samples, or one sequence, to make two parts.
    """
    whole = _Stored.of(dataset)
    first = whole.part(at_most=whole.rows // 2, seed=seed)
    if not 0 < len(first) < whole.rows:
        raise DataError(
            str(dataset.path),
            "cannot be split into calibration and evaluation data",
            expected="at least two different samples, or two sequences",
            got=f"{len(dataset)} sample{'s' if len(dataset) != 1 else ''} that must stay together",
            hint="give both: --calibration C.npz --evaluation E.npz",
            code="EQ202",
        )
    second = np.setdiff1d(np.arange(whole.rows), first)
    return whole.file(folder / "calibration.npz", first), whole.file(folder / "evaluation.npz", second)


def calibration_part(dataset: Dataset, *, folder: Path, seed: int) -> NewFile:
    """Return calibration data of at most 300 samples, taken from training data."""
    whole = _Stored.of(dataset)
    chosen = whole.part(at_most=whole.rows, seed=seed)
    # One sequence that is longer than that is needed as a whole.
    return whole.file(folder / "calibration.npz", chosen if len(chosen) else np.arange(whole.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A data set as its file stores it, so that a part is read like the whole.

    Attributes:
        rows: the length of the arrays: of samples, or of whole sequences.
        steps: how many samples a row holds.
        groups: for each row, what must stay on one side.
        classes: for each row; None without classes.
    """

    arrays: Mapping[str, Array]
    rows: int
    steps: int
    groups: Sequence[bytes]
    classes: Array | None

    @classmethod
    def of(cls, dataset: Dataset) -> _Stored:
        arrays = _arrays(dataset)
        rows = next(len(array) for name, array in arrays.items() if name not in _BESIDE)
        if SEQUENCES in arrays and len(arrays[SEQUENCES]) == rows:
            groups = [str(name).encode() for name in arrays[SEQUENCES].reshape(rows, -1)[:, 0]]
        elif len(dataset) == rows:
            groups = dataset.fingerprints()
        else:
            groups = digests_of([arrays[name] for name in sorted(arrays) if name not in _BESIDE])
        return cls(
            arrays=arrays,
            rows=rows,
            steps=max(len(dataset) // rows, 1),
            groups=groups,
            classes=_classes(arrays.get(LABELS), rows),
        )

    def part(self, *, at_most: int, seed: int) -> npt.NDArray[np.intp]:
        target = min(max(MOST_CALIBRATION // self.steps, 1), at_most)
        return chosen_rows(self.groups, self.classes, target=target, seed=seed)

    def file(self, path: Path, chosen: npt.NDArray[np.intp]) -> NewFile:
        named = {
            name: array[chosen] if name != CLASS_NAMES and len(array) == self.rows else array
            for name, array in self.arrays.items()
        }
        stream = io.BytesIO()
        np.savez(stream, **named)  # type: ignore[arg-type] # its stub takes allow_pickle there
        return NewFile(path=path, samples=len(chosen) * self.steps, content=stream.getvalue())


_BESIDE = (LABELS, CLASS_NAMES, SEQUENCES)
"""Arrays that do not go into the model."""


def _arrays(dataset: Dataset) -> Mapping[str, Array]:
    if dataset.raw.images:
        if dataset.samples is None:
            raise TypeError("images have one size only once they are matched to a model")
        pixels = dataset.samples.arrays[0]
        named = {CLASS_NAMES: np.array(dataset.raw.class_names)} if dataset.raw.class_names else {}
        # Pixels are whole numbers from 0 to 255; a float input reads integers as real values.
        stored = pixels.astype(np.uint8) if pixels.dtype.kind == "f" else pixels
        return {"x": stored, LABELS: np.asarray(dataset.raw.labels), **named}
    with dataset.path.open("rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}


def _classes(labels: Array | None, rows: int) -> Array | None:
    """Return a class for each row, where labels say one: a whole number, or a row with one 1."""
    if labels is None or len(labels) != rows or labels.dtype.kind not in "iub":
        return None
    table = labels.reshape(rows, -1)
    if table.shape[1] == 1:
        return table[:, 0].astype(np.int64)
    one_hot = bool((table.sum(axis=1) == 1).all() and ((table == 0) | (table == 1)).all())
    return table.argmax(axis=1) if one_hot else None
