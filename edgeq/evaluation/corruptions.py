"""Corruptions of inputs at five severities, in the manner of ImageNet-C, for images and for other arrays.

Hendrycks and Dietterich 2019 (arXiv 1903.12261) corrupt images of 224 x 224 pixels with values from 0 to 1.
Here the strength is relative to the data: noise, brightness and clipping to its standard deviation, blur to
the size of the image. Small images and other data get the strengths of CIFAR-10-C by the same authors.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float32]
SEVERITIES = (1, 2, 3, 4, 5)
_SMALLEST_SIDE = 8
_CHANNELS = (1, 3, 4)
_APART = 4.0
"""How much more than the upper quartile of all columns one may vary in a picture."""
_SMALL_IMAGE = 64
"""Side up to which the strengths of CIFAR-10-C (32 x 32 pixels) hold for images."""

# Strengths by severity of (large images: ImageNet-C, all else: CIFAR-10-C). Their noise and brightness are
# shares of the range; the values of a photograph have a standard deviation of about a quarter of it.
_NOISE = ((0.32, 0.48, 0.72, 1.04, 1.52), (0.16, 0.24, 0.32, 0.36, 0.4))
_BRIGHTNESS = ((0.4, 0.8, 1.2, 1.6, 2.0), (0.2, 0.4, 0.6, 0.8, 1.2))
# The share of the distance to the mean that is left.
_CONTRAST = ((0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15))
# JPEG quality.
_QUALITY = ((25, 18, 15, 10, 7), (80, 65, 58, 50, 40))
# Pixels or steps: at a side of 224, in proportion, and the least.
_BLUR_224 = (1.0, 2.0, 3.0, 4.0, 6.0)
_BLUR_LEAST = (0.4, 0.6, 0.7, 0.8, 1.0)
# The side of the covered square, or the length of the covered part, as a share of the whole.
_OCCLUSION = (0.2, 0.3, 0.4, 0.5, 0.6)
# The share of the channels or columns that give their mean.
_DROPPED = (0.05, 0.1, 0.2, 0.3, 0.5)
# Values further from the mean than so many standard deviations are cut off.
_CLIPPING = (1.5, 1.25, 1.0, 0.75, 0.5)


class Corruption(StrEnum):
    """A way in which inputs get worse."""

    NOISE = "noise"
    BLUR = "blur"
    CONTRAST = "contrast"
    BRIGHTNESS = "brightness"
    OCCLUSION = "occlusion"
    COMPRESSION = "compression"
    DROPPED_SENSOR = "dropped-sensor"
    CLIPPING = "clipping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which axes of samples mean what; the samples are axis 0.

    Attributes:
        image: height, width and channels of one unit.
        steps: the axis along which the values of one channel follow each other; None without such.
        channels: the axis of quantities with units of their own; None where all values have one unit.
    """

    image: bool
    steps: int | None
    channels: int | None

    @classmethod
    def of(cls, samples: npt.NDArray[Any]) -> Layout:
        """Return the layout of samples.

        An image has the shape (height, width, 1, 3 or 4) with sides of 8 or more. With one channel it may be
        a table of features instead, such as MFCCs: then some rows or columns vary far more than the others.
        In one row, each value is a quantity. Else the last axis holds the channels.
        """
        sample = samples.shape[1:]
        if not sample:
            return cls(image=False, steps=None, channels=None)
        if len(sample) == 3 and min(sample[:2]) >= _SMALLEST_SIDE and sample[2] in _CHANNELS:
            features = _features(samples) if sample[2] == 1 else None
            if features is None:
                return cls(image=True, steps=None, channels=None)
            return cls(image=False, steps=3 - features, channels=features)
        if len(sample) == 1:
            return cls(image=False, steps=1, channels=1)
        longest = max(range(len(sample) - 1), key=lambda axis: sample[axis])
        return cls(image=False, steps=1 + longest, channels=len(sample))


def _features(samples: npt.NDArray[Any]) -> int | None:
    """Return the axis of height and width along which the spread differs as no picture's does."""
    for axis in (2, 1):
        spread = np.std(samples, axis=tuple(each for each in range(4) if each != axis), dtype=np.float64)
        if spread.max() > _APART * np.quantile(spread, 0.75):
            return axis
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Range, mean and standard deviation of data: of all values, or of each channel.

    Attributes:
        shape: of the samples, samples first.
        low, high, mean, std: of a shape that fits the samples.
    """

    shape: tuple[int, ...]
    layout: Layout
    low: Real
    high: Real
    mean: Real
    std: Real

    @classmethod
    def of(cls, samples: npt.NDArray[Any]) -> Scale:
        """Return the scale of samples."""
        layout = Layout.of(samples)
        axes = tuple(axis for axis in range(samples.ndim) if axis != layout.channels)
        return cls(
            shape=samples.shape,
            layout=layout,
            low=np.asarray(samples.min(axis=axes, keepdims=True), np.float32),
            high=np.asarray(samples.max(axis=axes, keepdims=True), np.float32),
            mean=np.asarray(samples.mean(axis=axes, dtype=np.float64, keepdims=True), np.float32),
            std=np.asarray(samples.std(axis=axes, dtype=np.float64, keepdims=True), np.float32),
        )

    @property
    def small(self) -> bool:
        """Whether the strengths of CIFAR-10-C hold: for all but images with sides of more than 64 pixels."""
        return not self.layout.image or min(self.shape[1:3]) <= _SMALL_IMAGE

    @property
    def corruptions(self) -> tuple[Corruption, ...]:
        """Those that fit the samples: all for images.

        Blur needs steps of channels, and a sensor that drops out needs others beside it.
        """
        layout = self.layout
        if layout.image:
            return tuple(Corruption)
        steps = 1 if layout.steps is None else self.shape[layout.steps]
        channels = 1 if layout.channels is None else self.shape[layout.channels]
        missing = {Corruption.COMPRESSION}
        if layout.steps == layout.channels or steps < _SMALLEST_SIDE:
            missing.add(Corruption.BLUR)
        if channels < 2:
            missing.add(Corruption.DROPPED_SENSOR)
        if steps < 2:
            missing.add(Corruption.OCCLUSION)
        return tuple(each for each in Corruption if each not in missing)


def corrupt(
    samples: npt.NDArray[Any], corruption: Corruption, severity: int, *, scale: Scale, seed: int
) -> Real:
    """Return corrupted samples. The same seed gives the same values, and the same noise at every severity.

    Args:
        samples: real values, samples first.
        corruption: one of the scale's.
        severity: 1 to 5.
        scale: of the data that the samples are from.
        seed: of noise and places.
    """
    values = samples.astype(np.float32)
    rng = np.random.default_rng([seed, list(Corruption).index(corruption)])
    level, small = severity - 1, scale.small
    match corruption:
        case Corruption.NOISE:
            noise = rng.standard_normal(values.shape, np.float32)
            return _in_range(values + _NOISE[small][level] * scale.std * noise, scale)
        case Corruption.BLUR:
            return _blurred(values, level, scale.layout)
        case Corruption.CONTRAST:
            mean = _own_mean(values, scale)
            return mean + np.float32(_CONTRAST[small][level]) * (values - mean)
        case Corruption.BRIGHTNESS:
            return _in_range(values + _BRIGHTNESS[small][level] * scale.std, scale)
        case Corruption.OCCLUSION:
            return _occluded(values, _OCCLUSION[level], scale, rng)
        case Corruption.COMPRESSION:
            return _compressed(values, level, scale)
        case Corruption.DROPPED_SENSOR:
            return _dropped(values, _DROPPED[level], scale, rng)
        case Corruption.CLIPPING:
            reach = _CLIPPING[level] * scale.std
            return np.clip(values, scale.mean - reach, scale.mean + reach)


def _in_range(values: npt.NDArray[Any], scale: Scale) -> Real:
    # A pixel cannot leave the range of its format; the range of another sensor is not known from the data.
    within = np.clip(values, scale.low, scale.high) if scale.layout.image else values
    return within.astype(np.float32)


def _own_mean(values: Real, scale: Scale) -> Real:
    """Return the mean that contrast is lost to: of each sample's channels, or of the data for one row."""
    layout = scale.layout
    if layout.image:
        return np.asarray(values.mean(axis=(1, 2), keepdims=True), np.float32)
    if layout.steps == layout.channels:
        return scale.mean
    axes = tuple(axis for axis in range(1, values.ndim) if axis != layout.channels)
    return np.asarray(values.mean(axis=axes, keepdims=True), np.float32)


def _places(layout: Layout) -> tuple[int, ...]:
    """Return the axes along which neighbours belong together."""
    return (1, 2) if layout.image else () if layout.steps is None else (layout.steps,)


def _blurred(values: Real, level: int, layout: Layout) -> Real:
    from scipy.ndimage import gaussian_filter1d

    axes = _places(layout)
    side = min(values.shape[axis] for axis in axes)
    sigma = max(_BLUR_LEAST[level], _BLUR_224[level] * side / 224)
    for axis in axes:
        values = gaussian_filter1d(values, sigma, axis=axis, mode="nearest")
    return values


def _occluded(values: Real, share: float, scale: Scale, rng: np.random.Generator) -> Real:
    """Cover a square of each image, or some steps of each other sample, by the mean."""
    axes = _places(scale.layout)
    covered = values.copy()
    sizes = [max(1, round(share * values.shape[axis])) for axis in axes]
    # Places are shares of the free space, so that a larger square covers about the same part.
    places = rng.random((len(values), len(axes)))
    mean = np.broadcast_to(scale.mean, (1, *values.shape[1:]))[0]
    for row, own in enumerate(places):
        where: list[slice] = [slice(None)] * (values.ndim - 1)
        for axis, size, place in zip(axes, sizes, own, strict=True):
            start = int(place * (values.shape[axis] - size + 1))
            where[axis - 1] = slice(start, start + size)
        place_of_row: tuple[int | slice, ...] = (int(row), *where)
        covered[place_of_row] = mean[tuple(where)]
    return covered


def _dropped(values: Real, share: float, scale: Scale, rng: np.random.Generator) -> Real:
    """Set neighbouring columns of each image, or channels of each sample, to the mean."""
    axis = 2 if scale.layout.channels is None else scale.layout.channels
    count = max(1, round(share * values.shape[axis]))
    first = (rng.random(len(values)) * values.shape[axis]).astype(np.intp)
    distance = (np.arange(values.shape[axis]) - first[:, None]) % values.shape[axis]
    shape = [len(values)] + [1] * (values.ndim - 1)
    shape[axis] = values.shape[axis]
    return np.where((distance < count).reshape(shape), scale.mean, values).astype(np.float32)


def _compressed(values: Real, level: int, scale: Scale) -> Real:
    """Return images after JPEG; four channels are compressed one by one."""
    from PIL import Image

    quality = _QUALITY[scale.small][level]
    span = float((scale.high - scale.low).item())
    pixels = np.clip(np.rint((values - scale.low) / (span or 1.0) * 255), 0, 255).astype(np.uint8)

    def jpeg(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=quality)
        with Image.open(stream) as image:
            return np.asarray(image, np.uint8)

    if values.shape[3] == 3:
        decoded = np.stack([jpeg(picture) for picture in pixels])
    else:
        decoded = np.stack(
            [
                np.stack([jpeg(picture[..., channel]) for channel in range(values.shape[3])], axis=-1)
                for picture in pixels
            ]
        )
    return (decoded.astype(np.float32) / 255 * span + scale.low).astype(np.float32)
