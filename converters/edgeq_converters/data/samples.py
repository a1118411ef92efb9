"""Samples for one model: matched to its inputs by name, checked by shape, converted to its types."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import array_names, files
from edgeq_converters.data.files import LABELS, SEQUENCES, RawSamples
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import Caution, TensorInfo

Array = npt.NDArray[Any]
NOTED_SHARE = 0.01
"""Share of clipped values above which users are warned; percentile ranges clip less than that on purpose."""
_SHORTENED = 4
"""Long sequences in a small subset: so many are shortened rather than fewer taken whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples in the order of a model's inputs.

    Attributes:
        inputs: the model's inputs.
        arrays: one per input, samples first, in the types that they were read in.
        notes: what was changed to make them fit, for the user.
        begins: whether each sample begins a sequence; None where every sample is independent of the others.
        states: positions of the inputs that take an output of the step before.
    """

    inputs: tuple[TensorInfo, ...]
    arrays: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    begins: npt.NDArray[np.bool_] | None = None
    states: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.arrays[0])

    @property
    def whole(self) -> tuple[bool, ...]:
        """Whether a sample fills the whole input, whose first axis is then no batch; for each input."""
        return tuple(
            fills_input(array, tensor) for array, tensor in zip(self.arrays, self.inputs, strict=True)
        )

    @property
    def batch(self) -> int:
        """How many samples the model takes in one run."""
        if not self.inputs or any(self.whole) or not self.inputs[0].shape:
            return 1
        return max(self.inputs[0].shape[0], 1)

    def begins_at(self, batch: int) -> bool:
        """Return whether a batch begins a sequence, so that a model forgets what came before it."""
        return self.begins is None or bool(self.begins[batch * self.batch])

    @property
    def carries(self) -> bool:
        """Whether the model's own states are passed on within sequences, in place of those in the arrays."""
        return bool(self.states) and self.begins is not None

    @property
    def sequences(self) -> int:
        """How many sequences the samples are; independent samples count one each."""
        return len(self) if self.begins is None else int(self.begins.sum())


Kind = TypeVar("Kind", bound=Samples)
"""Samples, or those of one side of a partition."""


def digests(samples: Samples) -> list[bytes]:
    """Return the SHA-256 of each sample's bytes."""
    return digests_of(samples.arrays)


def digests_of(arrays: Sequence[Array]) -> list[bytes]:
    """Return the SHA-256 of the bytes of each row of all arrays."""
    return [
        hashlib.sha256(b"".join(np.ascontiguousarray(array[row]).tobytes() for array in arrays)).digest()
        for row in range(len(arrays[0]))
    ]


def canonical_order(samples: Samples) -> Samples:
    """Return the samples sorted by the digest of their bytes, so that no result depends on their order.

    In another order they are not a sequence: each counts as independent.
    """
    keys = digests(samples)
    order = sorted(range(len(samples)), key=lambda row: keys[row])
    return replace(samples, arrays=tuple(array[order] for array in samples.arrays), begins=None)


def pick(samples: Kind, rows: npt.NDArray[Any]) -> Kind:
    """Return some of the samples, by their indices or a mask; each counts as independent of the others."""
    return replace(samples, arrays=tuple(array[rows] for array in samples.arrays), begins=None)


def pick_sequences(samples: Kind, rows: npt.NDArray[np.intp]) -> Kind:
    """Return some samples of sequences, in their order: the rows hold the first ones of each sequence."""
    begins = None if samples.begins is None else samples.begins[rows]
    return replace(samples, arrays=tuple(array[rows] for array in samples.arrays), begins=begins)


def subset(samples: Kind, count: int) -> Kind:
    """Return at most `count` samples, evenly spaced.

    Where states are carried, they are the starts of some sequences.
    """
    if len(samples) <= count:
        return samples
    if samples.carries and samples.begins is not None:
        starts = np.flatnonzero(samples.begins)
        lengths = np.diff([*starts, len(samples)])
        several = min(len(starts), max(count // int(lengths.max()), min(_SHORTENED, count)))
        chosen = np.linspace(0, len(starts) - 1, several).round().astype(np.intp)
        parts = [starts[n] + np.arange(min(lengths[n], count // several)) for n in chosen]
        return pick_sequences(samples, np.concatenate(parts))
    return pick(samples, np.linspace(0, len(samples) - 1, count).round().astype(np.intp))


def match(raw: RawSamples, inputs: Sequence[TensorInfo]) -> Samples:
    """Return the samples for a model's inputs.

    The array of an input is named after it, or `input_<i>` or `arr_<i>` by position, or `x` if the model has
    one input; `array_names.pair` has the rule. A sample of an input is one row of its batch. Where the first
    axis of an input is not a batch (a state, a waveform of fixed length), a sample fills the whole input.
    Integers for a float input are real values, and become floats: an integer model made of it would take
    those of its input's type for its own.

    Raises:
        ConverterError: EQ203 wrong shape, EQ205 an input without an array, EQ210 images do not fit the input.
    """
    if raw.images:
        return _images(raw, inputs)
    arrays = _with_input_y(raw, inputs)
    names = array_names.pair([tensor.name for tensor in inputs], arrays)
    if names is None:
        named = ", ".join(f"`{array_names.plain(tensor.name)}`" for tensor in inputs)
        raise ConverterError(
            "EQ205",
            raw.subject,
            expected=f"an array {named} or `x`" if len(inputs) == 1 else f"one array for each of {named}",
            got=", ".join(_shown(name) for name in sorted(arrays)),
            hint="name each array after an input of the model, or input_0, input_1, ... in their order"
            + (
                "; convert and evaluate take --state INPUT=OUTPUT for an output of the step before"
                if len(inputs) > 1
                else ""
            ),
        )
    for name, tensor in zip(names, inputs, strict=True):
        _check_shape(raw.subject, name, arrays[name], tensor)
    unused = [_shown(name) for name in sorted(arrays) if name not in names]
    note = f"{raw.subject}: the model has no input for {', '.join(unused)}; not used"
    begins = _begins(raw, inputs)
    samples = Samples(
        inputs=tuple(inputs),
        arrays=tuple(
            _as_real(_without_batch_of_one(arrays[name], tensor), tensor)
            for name, tensor in zip(names, inputs, strict=True)
        ),
        notes=(*raw.notes, *([Caution(note)] if unused else []), *_returning(raw, begins)),
        begins=begins,
    )
    _check_batches(samples, raw.subject)
    return samples


def input_is_called(inputs: Sequence[TensorInfo], name: str) -> bool:
    """Return whether a model has an input of this name."""
    return any(name in (tensor.name, array_names.plain(tensor.name)) for tensor in inputs)


def _with_input_y(raw: RawSamples, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    """Return the arrays; `y` and `sequence_id` are among them where an input has that name."""
    arrays = dict(raw.arrays)
    for name, array in ((LABELS, raw.labels), (SEQUENCES, raw.sequence_ids)):
        if array is not None and input_is_called(inputs, name):
            arrays = files.checked({**arrays, name: array}, subject=raw.subject)
    return arrays


def _begins(raw: RawSamples, inputs: Sequence[TensorInfo]) -> npt.NDArray[np.bool_] | None:
    ids = raw.sequence_ids
    if ids is None or input_is_called(inputs, SEQUENCES):
        return None
    count = len(next(iter(raw.arrays.values())))
    if ids.shape != (count,) or ids.dtype.kind not in "iuU":
        raise ConverterError(
            "EQ203",
            raw.subject,
            expected=f"`{SEQUENCES}` of shape ({count},), integers or texts",
            got=f"{ids.shape} of {ids.dtype}",
            hint="one id for each sample; samples of one sequence follow each other",
        )
    return np.concatenate([[True], ids[1:] != ids[:-1]])


def _returning(raw: RawSamples, begins: npt.NDArray[np.bool_] | None) -> list[str]:
    """Return a caution about ids that come again after those of another sequence."""
    if begins is None or raw.sequence_ids is None:
        return []
    count, different = int(begins.sum()), len(np.unique(raw.sequence_ids))
    if count == different:
        return []
    return [
        Caution(
            f"{raw.subject}: `{SEQUENCES}` has {different} ids, but changes {count - 1} times: that makes"
            f" {count} sequences, because a state is reset wherever the id changes; sort the samples by id"
            " if those of one id belong together"
        )
    ]


def as_one_sequence(samples: Samples) -> Samples:
    """Return samples of which each follows the one before; samples with ids of their own keep them."""
    if samples.begins is not None:
        return samples
    return replace(samples, begins=np.arange(len(samples)) == 0)


def require_single_steps(samples: Samples, *, keeps_state: bool, subject: str) -> None:
    """Check that a model that keeps state takes the samples of a sequence one at a time.

    Raises:
        ConverterError: EQ203, it takes a batch, whose rows do not follow each other.
    """
    if keeps_state and samples.begins is not None and samples.batch > 1:
        raise ConverterError(
            "EQ203",
            subject,
            "the samples are a sequence, but the model takes several at a time",
            expected="a model with a batch of 1",
            got=f"a batch of {samples.batch}",
            hint="convert the model with a batch of 1, or evaluate independent samples",
        )


def _shown(name: str) -> str:
    return f"the array at position {name[1:]}" if name.startswith("#") else f"`{name}`"


def _check_shape(subject: str, name: str, array: Array, tensor: TensorInfo) -> None:
    got = array.shape[1:]
    if fits(got, tensor.shape[1:]) or fills_input(array, tensor):
        return
    whole = bool(tensor.shape) and tensor.shape[0] > 1
    raise ConverterError(
        "EQ203",
        subject,
        expected=f"`{_key(name)}` of shape {_shape(tensor.shape[1:])}"
        + (f" or, where no axis is a batch, {_shape(tensor.shape)}" if whole else ""),
        got=f"({', '.join(map(str, array.shape))})" if array.ndim < 2 else _shape(got),
        hint=_shape_hint(_key(name), array.shape, tensor.shape),
    )


def _without_batch_of_one(array: Array, tensor: TensorInfo) -> Array:
    # Each sample may come with the model's batch of one, as TFLiteConverter's datasets have it.
    return array[:, 0] if fills_input(array, tensor) and tensor.shape and tensor.shape[0] == 1 else array


def _key(name: str) -> str:
    return f"input_{name[1:]}" if name.startswith("#") else name


def _shape_hint(name: str, got: Sequence[int], expected: Sequence[int]) -> str:
    """Return the line of numpy that gives an array the expected shape, where one does."""
    sample = tuple(expected[1:])
    if fits(got, sample):
        return f"one sample needs the axis of samples too: {name} = {name}[None]"
    if sample and fits(got[1:], sample[:-1]) and sample[-1] == 1:
        return f"add the last dimension: {name} = {name}[..., None]"
    if len(got) == len(sample) + 2 and got[1] == 1 and fits(got[2:], sample):
        return f"leave the batch of each sample out: {name} = {name}[:, 0]"
    if len(got) == len(expected) and len(sample) > 1:
        for order in itertools.permutations(range(1, len(got))):
            if fits([got[axis] for axis in order], sample):
                return (
                    f"its axes have another order: {name} = {name}.transpose(0, {', '.join(map(str, order))})"
                )
    if len(got) > 1 and math.prod(got[1:]) == math.prod(sample):
        return f"{name} = {name}.reshape(-1{''.join(f', {size}' for size in sample)})"
    return "the first dimension counts the samples"


def fits(got: Sequence[int], expected: Sequence[int]) -> bool:
    """Return whether a shape is the expected one, in which -1 is any size."""
    return len(got) == len(expected) and all(e in (-1, g) for e, g in zip(expected, got, strict=True))


def fills_input(array: Array, tensor: TensorInfo) -> bool:
    """Return whether each sample of the array fills the whole input, whose first axis is then no batch."""
    if not tensor.shape:
        return array.ndim == 1
    return fits(array.shape[1:], tensor.shape) and not fits(array.shape[1:], tensor.shape[1:])


def _check_batches(samples: Samples, subject: str) -> None:
    sizes = {
        tensor.name: 1 if whole or not tensor.shape else max(tensor.shape[0], 1)
        for tensor, whole in zip(samples.inputs, samples.whole, strict=True)
    }
    if len(set(sizes.values())) > 1:
        named = ", ".join(f"{size} for `{array_names.plain(name)}`" for name, size in sizes.items())
        raise ConverterError(
            "EQ203",
            subject,
            "the inputs take different numbers of samples at a time",
            expected="the same number for every input",
            got=named,
            hint="where the first axis is not a batch, give arrays of shape (samples, *input shape)",
        )


def _shape(sample: Sequence[int]) -> str:
    return f"({', '.join(['n', *('?' if size < 0 else str(size) for size in sample)])})"


def _images(raw: RawSamples, inputs: Sequence[TensorInfo]) -> Samples:
    from PIL import Image

    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[3] not in (1, 3):
        raise ConverterError(
            "EQ210",
            raw.subject,
            "a folder of images needs a model with one image input",
            expected="an input of shape (1, height, width, 1 or 3)",
            got=", ".join(str(tensor.shape) for tensor in inputs),
        )
    height, width, channels = inputs[0].shape[1:]
    resized, out = 0, []
    for pixels in raw.images:
        image = Image.fromarray(pixels)
        if channels == 1:
            image = image.convert("L")
        if image.size != (width, height):
            resized += 1
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        out.append(np.asarray(image, np.uint8).reshape(height, width, channels))
    note = f"{resized} of {len(out)} images were resized to {width}x{height} (bilinear)"
    # Pixels are real values, also for an input of type uint8; no model takes images in int16.
    pixels = np.stack(out).astype(np.int16) if inputs[0].dtype == "uint8" else np.stack(out)
    arrays = (_as_real(pixels, inputs[0]),)
    return Samples(inputs=tuple(inputs), arrays=arrays, notes=(note,) if resized else ())


def _as_real(array: Array, tensor: TensorInfo) -> Array:
    is_float = np.dtype(tensor.dtype).kind == "f"
    return array.astype(np.float32) if is_float and array.dtype.kind in "iu" else array


def is_own(array: Array, tensor: TensorInfo) -> bool:
    """Return whether values are a quantized input's own integers, which `to_model` passes unchanged."""
    return bool(tensor.scale) and array.dtype == np.dtype(tensor.dtype)


def to_model(array: Array, tensor: TensorInfo) -> Array:
    """Return values in the type of a model's input.

    Integers of the input's own type are passed unchanged. Anything else is real values, which are quantized
    with the input's scale and zero point: rounded, and clipped to the type's limits.

    Raises:
        ConverterError: EQ211 an integer input without a scale cannot hold the values.
    """
    dtype = np.dtype(tensor.dtype)
    if array.dtype == dtype or dtype.kind == "f":
        return array.astype(dtype, copy=False)
    if tensor.scale:
        limits = np.iinfo(dtype)
        steps = np.round(array.astype(np.float64) / tensor.scale) + (tensor.zero_point or 0)
        return np.clip(steps, limits.min, limits.max).astype(dtype)
    out = array.astype(dtype)
    if not np.array_equal(out, array):
        raise ConverterError(
            "EQ211", tensor.name, expected=f"values that {dtype} can hold", got=f"{array.dtype} values"
        )
    return out


def to_real(array: Array, tensor: TensorInfo) -> Array:
    """Return a model's output as real values in float64."""
    if tensor.slices is not None and array.dtype.kind != "f":
        shape = [1] * array.ndim
        shape[tensor.slices.axis - len(tensor.shape)] = -1
        scales, zero_points = (
            np.reshape(values, shape) for values in (tensor.slices.scales, tensor.slices.zero_points)
        )
        return np.asarray(scales * (array.astype(np.float64) - zero_points))
    if tensor.scale is None or array.dtype.kind == "f":
        return array.astype(np.float64)
    return tensor.scale * (array.astype(np.float64) - (tensor.zero_point or 0))


def clipped_share(array: Array, tensor: TensorInfo) -> float:
    """Return the share of real values beyond a quantized input's range; 0 if they are passed unchanged."""
    dtype = np.dtype(tensor.dtype)
    if tensor.scale is None or array.dtype == dtype:
        return 0.0
    limits = np.iinfo(dtype)
    steps = np.rint(array.astype(np.float64) / tensor.scale) + (tensor.zero_point or 0)
    return float(np.mean((steps < limits.min) | (steps > limits.max)))


def clipping_caution(share: float, tensor: TensorInfo, *, model: str) -> Caution | None:
    """Return a warning about a share of clipped values; None if it is too small to matter."""
    if share <= NOTED_SHARE or tensor.scale is None:
        return None
    limits, zero_point = np.iinfo(np.dtype(tensor.dtype)), tensor.zero_point or 0
    low, high = (limits.min - zero_point) * tensor.scale, (limits.max - zero_point) * tensor.scale
    return Caution(
        f"{100 * share:.1f} % of the values of input `{tensor.name}` lie outside {low:.4g} to {high:.4g}, "
        f"the range of {model}: it was calibrated on other data"
    )
