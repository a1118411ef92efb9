"""Training data: read it, check it against the model, and split off held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files, samples
from edgeq_converters.data.files import RawSamples
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import TensorInfo

HELD_OUT = 0.2  # of the training data, where no validation data is given


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """Samples in the types of the model's inputs.

    Attributes:
        arrays: one per input, samples first.
        labels: class indices, shape (samples,); None for training without labels.
    """

    arrays: tuple[npt.NDArray[Any], ...]
    labels: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.arrays[0])

    def take(self, rows: npt.NDArray[np.int64]) -> LabelledData:
        """Return the samples at `rows`."""
        return replace(
            self,
            arrays=tuple(array[rows] for array in self.arrays),
            labels=None if self.labels is None else self.labels[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSplit:
    """Samples to train on, and held-out samples to measure on, which training never sees."""

    training: LabelledData
    held_out: LabelledData
    notes: tuple[str, ...]


def read(training: Path | None, validation: Path | None) -> tuple[RawSamples, RawSamples | None]:
    """Read the files, before the model is loaded.

    Raises:
        ConverterError: EQ220 no training data; EQ2xx as `sample_files.read`.
    """
    if training is None:
        raise ConverterError(
            "EQ220",
            "--training",
            "pruning and tuning need training data",
            expected="samples `x` and labels `y`",
            got="none",
            hint="add --training T.npz",
        )
    return files.read(training), None if validation is None else files.read(validation)


def split(
    raw: tuple[RawSamples, RawSamples | None],
    model: Any,
    *,
    labels_needed: bool,
    classes: int,
    seed: int,
) -> DataSplit:
    """Return the data in the types of the model's inputs.

    Without validation data a fifth of the training data is held out, chosen by the seed.

    Args:
        classes: number of classes of the model; labels are ignored where it is below two.

    Raises:
        ConverterError: EQ203..EQ208 the data does not fit the model, EQ220 labels are required and missing.
    """
    inputs = inputs_of(model)
    training = _fit(raw[0], inputs, classes, labels_needed)
    if raw[1] is not None:
        return DataSplit(training=training, held_out=_fit(raw[1], inputs, classes, labels_needed), notes=())
    if len(training) < 2:
        raise ConverterError(
            "EQ202", raw[0].subject, expected="at least two samples to train on", got=f"{len(training)}"
        )
    kept, held_out = divided(
        training, max(1, int(len(training) * HELD_OUT)), seed=seed, subject=raw[0].subject
    )
    note = (
        f"{len(held_out)} of {len(training)} training samples were held out to measure accuracy; "
        "--validation replaces them"
    )
    return DataSplit(training=kept, held_out=held_out, notes=(note,))


def divided(
    data: LabelledData, count: int, *, seed: int | tuple[int, ...], subject: str
) -> tuple[LabelledData, LabelledData]:
    """Return (the rest, about `count` samples), chosen by the seed; equal samples are in the same part.

    Raises:
        ConverterError: EQ202 all samples are equal.
    """
    keys = np.array([digest.hex() for digest in samples.digests_of(data.arrays)])
    different, first = np.unique(keys, return_index=True)
    if len(different) < 2:
        raise ConverterError(
            "EQ202", subject, expected="at least two different samples to train on", got=f"{len(different)}"
        )
    order = np.random.default_rng(seed).permutation(len(different))
    by_place = different[np.argsort(first)]  # so that the place of a sample decides, not its bytes
    apart = np.isin(keys, by_place[order[: min(count, len(different) - 1)]])
    return data.take(np.flatnonzero(~apart)), data.take(np.flatnonzero(apart))


def inputs_of(model: Any) -> tuple[TensorInfo, ...]:
    """Return a Keras model's inputs with batch one."""
    return tuple(
        TensorInfo(
            name=str(tensor.name),
            shape=(1, *(-1 if size is None else int(size) for size in tensor.shape[1:])),
            dtype=str(tensor.dtype),
        )
        for tensor in model.inputs
    )


def _fit(raw: RawSamples, inputs: Sequence[TensorInfo], classes: int, labels_needed: bool) -> LabelledData:
    matched = samples.match(raw, inputs)
    arrays = tuple(
        samples.to_model(array, tensor) for array, tensor in zip(matched.arrays, inputs, strict=True)
    )
    if raw.labels is None and labels_needed:
        raise ConverterError(
            "EQ220",
            raw.subject,
            expected="labels `y` next to the samples",
            got="samples only",
            hint="add `y`, or --distill, which needs no labels",
        )
    if raw.labels is None or classes < 2:
        return LabelledData(arrays=arrays, labels=None)
    labels = samples.check_labels(raw.labels, samples=len(matched), classes=classes, subject=raw.subject)
    return LabelledData(arrays=arrays, labels=labels)
