"""Training data: read it, check it against the model, and split off held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import files, partition, samples
from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.labels import check_labels
from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common import training_targets
from edgeq_converters.values import Caution, TensorInfo

HELD_OUT = 0.2  # of the training data, where no validation data is given


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """Samples in the types of the model's inputs.

    Attributes:
        arrays: one per input, samples first.
        labels: class indices, shape (samples,); None for training without labels.
        targets: {name: array, samples first}, of a loss of the user's.
    """

    arrays: tuple[npt.NDArray[Any], ...]
    labels: npt.NDArray[np.int64] | None
    targets: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def take(self, rows: npt.NDArray[np.int64]) -> LabelledData:
        """Return the samples at `rows`."""
        return replace(
            self,
            arrays=tuple(array[rows] for array in self.arrays),
            labels=None if self.labels is None else self.labels[rows],
            targets={name: array[rows] for name, array in self.targets.items()},
        )


FitData = NewType("FitData", LabelledData)
"""Samples to train on; what is chosen or calibrated may see them too."""
HeldOutData = NewType("HeldOutData", LabelledData)
"""Samples that only measure; nothing is trained or calibrated on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSplit:
    """Samples to train on, and held-out samples to measure on, which training never sees.

    Attributes:
        calibration: the samples of the conversion, without those that are held out; None without any.
    """

    training: FitData
    held_out: HeldOutData
    notes: tuple[str, ...]
    calibration: FitData | None = None


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
    inputs: Sequence[TensorInfo],
    *,
    labels_needed: bool,
    classes: int,
    seed: int,
    outputs: Sequence[str] = (),
    calibration: RawSamples | None = None,
) -> DataSplit:
    """Return the data in the types of the model's inputs.

    Without validation data a fifth of the training data is held out, chosen by the seed. Validation samples
    that are training samples too are left out; if all of them are, the same fifth is held out. Calibration
    samples and held-out samples are set apart (`partition.apart`).

    Args:
        classes: number of classes of the model; labels are ignored where it is below two.
        outputs: names of the outputs where a loss of the user's is trained, whose targets are any arrays `y`
            and `y_NAME`; empty without one.
        calibration: samples that the conversion is calibrated on, if any.

    Raises:
        ConverterError: EQ203..EQ208 the data does not fit the model, EQ220 labels are required and missing.
    """
    training = _fit(raw[0], inputs, classes, labels_needed, outputs)
    validation = None if raw[1] is None else _fit(raw[1], inputs, classes, labels_needed, outputs)
    held_out, notes = _unseen(validation, training)
    if held_out is None:
        if len(training) < 2:
            raise ConverterError(
                "EQ202", raw[0].subject, expected="at least two samples to train on", got=f"{len(training)}"
            )
        count = max(1, int(len(training) * HELD_OUT))
        kept, held_out = divided(training, count, seed=seed, subject=raw[0].subject)
        notes += (
            f"{len(held_out)} of {len(training)} training samples were held out to measure accuracy; "
            "--validation replaces them",
        )
        training = kept
    measured = HeldOutData(held_out)
    if calibration is None:
        return DataSplit(training=FitData(training), held_out=measured, notes=notes)
    fit, measured, about = _apart(_fit(calibration, inputs, 0, False, []), measured, seed=seed)
    if not len(measured):
        raise ConverterError(
            "EQ202",
            calibration.subject,
            expected="samples besides the one that measures the accuracy",
            got="the same sample only",
        )
    return DataSplit(training=FitData(training), held_out=measured, notes=(*notes, *about), calibration=fit)


def _unseen(
    validation: LabelledData | None, training: LabelledData
) -> tuple[LabelledData | None, tuple[str, ...]]:
    """Return the validation samples that are not trained on, None without any, and a warning about others."""
    if validation is None:
        return None, ()
    trained = set(samples.digests_of(training.arrays))
    new = np.array([digest not in trained for digest in samples.digests_of(validation.arrays)])
    if new.all():
        return validation, ()
    if not new.any():
        text = f"all {len(new)} validation samples are training samples, so they cannot measure accuracy"
        return None, (Caution(text),)
    text = f"{int((~new).sum())} of {len(new)} validation samples are training samples; they were left out"
    return validation.take(np.flatnonzero(new)), (Caution(text),)


def _apart(
    calibration: LabelledData, held_out: HeldOutData, *, seed: int
) -> tuple[FitData, HeldOutData, tuple[str, ...]]:
    """Return both without common samples, and a note on what was left out."""
    digests = samples.digests_of(calibration.arrays), samples.digests_of(held_out.arrays)
    fits, measures = partition.apart(*digests, seed=seed)
    notes = [
        f"{int((~mask).sum())} of {len(mask)} {what} samples were left out, because they also {why}"
        for mask, what, why in (
            (fits, "calibration", "measure the accuracy"),
            (measures, "held-out", "calibrate the file"),
        )
        if not mask.all()
    ]
    fit = FitData(calibration.take(np.flatnonzero(fits)))
    return fit, HeldOutData(held_out.take(np.flatnonzero(measures))), tuple(notes)


def divided(
    data: LabelledData, count: int, *, seed: int | tuple[int, ...], subject: str
) -> tuple[LabelledData, LabelledData]:
    """Return (the rest, about `count` samples), chosen by the seed; equal samples are in the same part.

    Where many samples are equal, it is the same share of the different ones.

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
    share = max(1, round(count * len(different) / len(data)))
    apart = np.isin(keys, by_place[order[: min(share, len(different) - 1)]])
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


def _fit(
    raw: RawSamples,
    inputs: Sequence[TensorInfo],
    classes: int,
    labels_needed: bool,
    outputs: Sequence[str],
) -> LabelledData:
    named = training_targets.of(raw, inputs, outputs)
    raw = replace(raw, arrays={name: array for name, array in raw.arrays.items() if name not in named.arrays})
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
    if outputs:
        targets = named.checked(len(matched), outputs)
        labels = raw.labels if training_targets.are_classes(raw.labels, classes) else None
        return LabelledData(arrays=arrays, labels=labels, targets=targets)
    if raw.labels is None or classes < 2:
        return LabelledData(arrays=arrays, labels=None)
    labels = check_labels(raw.labels, samples=len(matched), classes=classes, subject=raw.subject)
    return LabelledData(arrays=arrays, labels=labels)
