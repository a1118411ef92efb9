"""Samples that fit one model: matched to its inputs by name, checked by shape, fed in its own types."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.sample_files import RawSamples
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples in the order of a model's inputs.

    Attributes:
        inputs: the model's inputs.
        arrays: one an input, samples first, still in the types that they were read in.
        notes: what was done to make them fit, to be said to the user.
    """

    inputs: tuple[TensorInfo, ...]
    arrays: tuple[Array, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrays[0])


def in_one_order(samples: Samples) -> Samples:
    """Return the samples sorted by the digest of their bytes: what is split or summed no longer depends on
    the order in which they came."""
    keys = [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(array[row]).tobytes() for array in samples.arrays)
        ).digest()
        for row in range(len(samples))
    ]
    order = sorted(range(len(samples)), key=lambda row: keys[row])
    return replace(samples, arrays=tuple(array[order] for array in samples.arrays))


def match(raw: RawSamples, inputs: Sequence[TensorInfo]) -> Samples:
    """Return the samples for a model's inputs.

    An array is found by the input's name, by `input_<i>`, or as `x` where the model has one input.

    Raises:
        ConverterError: EQ203 wrong shape, EQ205 an input without an array.
    """
    if raw.images:
        return _images(raw, inputs)
    names = [_key(raw, tensor, i, len(inputs)) for i, tensor in enumerate(inputs)]
    for name, tensor in zip(names, inputs, strict=True):
        _check_shape(raw.subject, name, raw.arrays[name], tensor)
    return Samples(inputs=tuple(inputs), arrays=tuple(raw.arrays[name] for name in names))


def _key(raw: RawSamples, tensor: TensorInfo, index: int, count: int) -> str:
    plain = tensor.name.removeprefix("serving_default_").split(":")[0]
    for name in (tensor.name, plain, f"input_{index}"):
        if name in raw.arrays:
            return name
    if count == 1 and "x" in raw.arrays:
        return "x"
    if count == 1 and len(raw.arrays) == 1:
        return next(iter(raw.arrays))
    raise ConverterError(
        "EQ205",
        raw.subject,
        expected=f"an array `{plain}`" + (" or `x`" if count == 1 else ""),
        got=", ".join(sorted(raw.arrays)),
        hint="name one array after each input of the model",
    )


def _check_shape(subject: str, name: str, array: Array, tensor: TensorInfo) -> None:
    wanted, found = tensor.shape[1:], array.shape[1:]
    if len(wanted) == len(found) and all(w in (-1, f) for w, f in zip(wanted, found, strict=True)):
        return
    hint = "one sample a row, samples first"
    if tuple(found) == tuple(wanted)[:-1] and wanted[-1] == 1:
        hint = f"add the last dimension: {name} = {name}[..., None]"
    raise ConverterError(
        "EQ203",
        subject,
        expected=f"`{name}` of shape {_shape(wanted)}",
        got=_shape(found),
        hint=hint,
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
    return Samples(inputs=tuple(inputs), arrays=(np.stack(out),), notes=(note,) if resized else ())


def to_model(array: Array, tensor: TensorInfo) -> Array:
    """Return values in the type of a model's input.

    Float arrays and arrays of another integer type are real values, which a quantized input gets by its
    scale and zero point (rounded, clipped); integers of the input's own type go in as they are.

    Raises:
        ConverterError: EQ211 where an integer input that is not quantized cannot hold the values.
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
    """Return a model's output as real values, float64."""
    if tensor.scale is None or array.dtype.kind == "f":
        return array.astype(np.float64)
    return tensor.scale * (array.astype(np.float64) - (tensor.zero_point or 0))


def check_labels(labels: Array, *, samples: int, classes: int, subject: str) -> npt.NDArray[np.int64]:
    """Return the labels as int64 if they fit the samples and the model's classes.

    Raises:
        ConverterError: EQ206 count, EQ207 type, EQ208 range, EQ313 a model without classes.
    """
    if labels.shape != (samples,):
        raise ConverterError("EQ206", subject, expected=f"`y` of shape ({samples},)", got=str(labels.shape))
    if labels.dtype.kind not in "iu":
        raise ConverterError(
            "EQ207",
            subject,
            expected="integer labels in `y`",
            got=f"dtype {labels.dtype}",
            hint="y.astype(int)",
        )
    if classes < 2:
        raise ConverterError(
            "EQ313",
            subject,
            "accuracy needs an output with at least two classes",
            got=f"{classes} value a sample",
            hint="leave `y` out of the data to compare outputs only",
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        first = int(outside[0])
        raise ConverterError(
            "EQ208",
            subject,
            expected=f"labels from 0 to {classes - 1}",
            got=f"{labels[first]} at index {first} ({outside.size} such labels)",
        )
    return labels.astype(np.int64)
