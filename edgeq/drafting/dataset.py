"""Read data and match it to the inputs and outputs of a source, as a conversion does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blueprint import Task
from edgeq.converters_client import ConverterError, edgeq_errors
from edgeq.drafting.interface import SourceInterface
from edgeq.evaluation import LabelForm, TaskGuess, guess_task
from edgeq_converters.data import files
from edgeq_converters.data.files import LABELS, RawSamples
from edgeq_converters.data.labels import check_labels, check_numbers
from edgeq_converters.data.samples import Samples, digests_of, input_is_called
from edgeq_converters.data.sequences import in_steps, match_sequences
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One file or folder of samples.

    Attributes:
        raw: as it was read.
        samples: matched to the model's inputs; None where these are not known.
        labels: `y`, samples first, unchecked; None without labels.
        channels_first: whether images have their channels before rows and columns, as their ONNX source does.
    """

    path: Path
    raw: RawSamples
    samples: Samples | None
    labels: Array | None
    channels_first: bool = False

    def __len__(self) -> int:
        if self.samples is not None:
            return len(self.samples)
        return len(self.raw.images) or len(next(iter(self.raw.arrays.values())))

    @property
    def form(self) -> LabelForm | None:
        """The form of the labels; None without labels, or where they are not numbers."""
        if self.labels is None or self.labels.dtype.kind not in "fiub" or not self.labels.size:
            return None
        return LabelForm.of(self.labels)

    def fingerprints(self) -> list[bytes]:
        """Return a digest of each sample, equal for equal values."""
        if self.samples is not None:
            arrays = [_as_input(array) for array in self.samples.arrays]
            if self.channels_first:
                arrays = [each.transpose(0, 2, 3, 1) if each.ndim == 4 else each for each in arrays]
            return digests_of(arrays)
        if self.raw.images:
            return [
                hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
                for image in self.raw.images
            ]
        return digests_of([_as_input(self.raw.arrays[name]) for name in sorted(self.raw.arrays)])


def read_dataset(path: Path, interface: SourceInterface | None, *, columns: Sequence[str] = ()) -> Dataset:
    """Return the samples of a file or folder, matched to a model.

    Args:
        interface: None to leave the shapes unchecked.
        columns: arrays that slices name.

    Raises:
        MissingExtra: EQ104 a folder of images needs Pillow.
        DataError: EQ201 to EQ205, EQ210: the errors of a conversion.
    """
    with edgeq_errors():
        raw = files.read(path, columns=columns)
        if raw.labels is not None and raw.labels.ndim == 0:
            raise ConverterError(
                "EQ206", str(path), expected="`y` with one label for each sample", got="a single number"
            )
        if interface is None:
            return Dataset(path=path, raw=raw, samples=None, labels=raw.labels)
        states = _states(interface)
        inputs = _in_layout_of(raw, interface, states)
        raw = raw if raw.images else in_steps(raw, inputs, states)
        samples = match_sequences(raw, inputs, states=states)
        labels = None if input_is_called(inputs, LABELS) else raw.labels
        return Dataset(
            path=path,
            raw=raw,
            samples=samples,
            labels=labels,
            channels_first=interface.channels_first
            and any(
                _is_image(tensor) and array.shape[1:] != _channels_last(tensor).shape[1:]
                for tensor, array in zip(interface.inputs, samples.arrays, strict=True)
            ),
        )


def layout_text(dataset: Dataset) -> str:
    """Return the warning about evaluation data with its channels first."""
    return (
        f"{dataset.path} has the channels first; a converted model most often takes them last, and its"
        " evaluation needs x.transpose(0, 2, 3, 1) then"
    )


def _is_image(tensor: TensorInfo) -> bool:
    """Return whether an input of a source with channels first is an image."""
    return len(tensor.shape) == 4 and tensor.shape[1] in (1, 3, 4)


def guessed_task(dataset: Dataset, interface: SourceInterface) -> TaskGuess:
    """Return the task that fits the outputs of a model and the labels of its data."""
    return guess_task(
        [interface.sample_of(tensor) for tensor in interface.outputs],
        dataset.form,
        inputs=[interface.sample_of(tensor) for tensor in interface.inputs],
    )


def require_labels(dataset: Dataset, interface: SourceInterface | None, task: Task | None) -> None:
    """Check that labels belong to the samples, and classes to the outputs.

    Args:
        interface: None where the outputs are not known.

    Raises:
        DataError: EQ206 another number of labels than of samples; for classes EQ207 not integers, EQ208
            outside of the classes, EQ313 fewer than two; for other tasks EQ202, EQ204 and EQ205.
    """
    if dataset.labels is None:
        return
    classes = None if interface is None else interface.classes
    if task in (None, Task.CLASSIFICATION) and classes is not None:
        with edgeq_errors():
            check_labels(dataset.labels, samples=len(dataset), classes=classes, subject=str(dataset.path))
    else:
        with edgeq_errors():
            check_numbers(dataset.labels, samples=len(dataset), subject=str(dataset.path))


def shared_samples(first: Dataset, second: Dataset) -> int:
    """Return how many samples of the second data set are in the first one, value for value."""
    known = set(first.fingerprints())
    return sum(digest in known for digest in second.fingerprints())


def _states(interface: SourceInterface) -> tuple[int, ...]:
    """Return the positions of the inputs that may take an output of the step before."""
    if len(interface.inputs) < 2:
        return ()
    try:
        from edgeq_converters.graph import carried_states
    except ImportError as error:
        raise files.missing("LiteRT", extra="quantize") from error
    return carried_states.possible(interface.inputs, subject=str(interface.source))


def _in_layout_of(
    raw: RawSamples, interface: SourceInterface, states: Sequence[int]
) -> tuple[TensorInfo, ...]:
    """Return the inputs in the layout that the data has: the model's, or with the channels last.

    Raises:
        ConverterError: EQ2xx the data has neither.
    """
    if not interface.channels_first:
        return interface.inputs
    last = tuple(_channels_last(tensor) for tensor in interface.inputs)
    if raw.images:
        return last
    try:
        match_sequences(in_steps(raw, interface.inputs, states), interface.inputs, states=states)
    except ConverterError as refused:
        try:
            match_sequences(in_steps(raw, last, states), last, states=states)
        except ConverterError:
            raise refused from None  # it names the shape that the model's author knows
        return last
    return interface.inputs


def _channels_last(tensor: TensorInfo) -> TensorInfo:
    if len(tensor.shape) < 3:
        return tensor
    batch, channels, *places = tensor.shape
    return replace(tensor, shape=(batch, *places, channels))


def _as_input(array: Array) -> Array:
    # The same values may be stored in several types; a float model reads all of them as float32.
    return array.astype(np.float32) if array.dtype.kind in "fiub" else array
