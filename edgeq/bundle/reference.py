"""Build the drift reference: histograms of inputs and outputs on known data, to compare the field with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.bundle.drift_reference import DriftReference, Histogram, InputReference, OutputReference
from edgeq.errors import BundleError
from edgeq_converters.metrics import softmax

BINS = 10
# More channels than this are pooled into one, since a window carries a histogram per channel.
MOST_CHANNELS = 16

Array = NDArray[np.float64]


def build_reference(inputs: Mapping[str, NDArray[Any]], output: NDArray[Any]) -> DriftReference:
    """Return the reference of a model.

    The statistic of an input is each sample's mean over all axes but the last (its channels): cheap enough
    for a device, and sensitive to light, noise and gain. Edges are quantiles of the reference, so that all
    bins hold about the same count and the comparison has power everywhere.

    Args:
        inputs: by input name, real values, shape (samples, ...).
        output: real values of the first output, shape (samples, classes); probabilities or logits.

    Raises:
        BundleError: there are too few samples for a reference.
    """
    scores = output.reshape(len(output), -1).astype(np.float64)
    if len(scores) < 2 * BINS:
        raise BundleError(
            "reference data",
            expected=f"at least {2 * BINS} samples",
            got=str(len(scores)),
            hint="use more data",
        )
    kind = "probabilities" if is_probabilities(scores) else "logits"
    confidence = confidence_of(scores, kind)
    classes = scores.shape[1]
    predicted = np.bincount(scores.argmax(axis=1), minlength=classes)
    return DriftReference(
        schema="edgeq.reference/1",
        statistic="per-sample per-channel mean",
        inputs=tuple(
            InputReference(
                name=name, channels=tuple(_histogram(column) for column in channel_means(values).T)
            )
            for name, values in inputs.items()
        ),
        output=OutputReference(
            classes=classes,
            predicted=tuple(int(count) for count in predicted),
            confidence=_histogram(confidence),
            confidence_from=kind,
        ),
    )


def channel_means(values: NDArray[Any]) -> Array:
    """Return each sample's mean per channel, shape (samples, channels); many channels are pooled into one."""
    flat = values.astype(np.float64).reshape(len(values), -1)
    channels = values.shape[-1] if values.ndim > 2 else 1
    if channels > MOST_CHANNELS:
        channels = 1
    means: Array = flat.reshape(len(values), -1, channels).mean(axis=1)
    return means


def is_probabilities(scores: Array) -> bool:
    """Return whether rows are probabilities: not negative, with sums of 1 up to quantization noise."""
    tolerance = 0.05
    return bool((scores >= -1e-6).all() and (np.abs(scores.sum(axis=1) - 1) < tolerance).all())


def confidence_of(scores: Array, kind: str) -> Array:
    """Return each sample's largest class probability."""
    if kind == "logits":
        scores = softmax(scores)
    largest: Array = scores.max(axis=1)
    return largest


def _histogram(values: Array) -> Histogram:
    edges = _edges(values)
    counts, _ = np.histogram(values, bins=np.asarray(edges))
    return Histogram(edges=tuple(edges), counts=tuple(int(count) for count in counts))


def _edges(values: Array) -> list[float]:
    """Return quantile edges with an empty bin on either side, for values outside the reference.

    A bin is [lower, upper). The outer bins are as wide as the whole range and also count values beyond it, so
    that any new value of a constant or two-valued channel is visible.
    """
    least, most = float(values.min()), float(values.max())
    # The largest value belongs inside, so the next larger number is the upper edge.
    inner = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1))[:-1])
    upper = float(np.nextafter(most, np.inf))
    width = max(most - least, abs(most), 1e-6)
    return [least - width, *(float(edge) for edge in inner), upper, upper + width]
