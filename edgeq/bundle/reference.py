"""The drift reference: histograms of what the model saw and said on known data, to compare the field with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import BundleError
from edgeq_agent import wire
from edgeq_converters.metrics import softmax

BINS = 10
# More channels than this are pooled into one: a window carries a histogram for each.
MOST_CHANNELS = 16

Array = NDArray[np.float64]


def build_reference(inputs: Mapping[str, NDArray[Any]], output: NDArray[Any]) -> dict[str, Any]:
    """Return the reference document `edgeq.reference/1`.

    The statistic of an input is each sample's mean over all axes but the last (its channels): cheap enough
    for a device, and what shifts with light, noise or gain. Edges are the quantiles of the reference, so that
    every bin holds about the same count and the comparison has power everywhere.

    Args:
        inputs: by input name, real values, shape (samples, ...).
        output: real values of the first output, shape (samples, classes); probabilities or logits.

    Raises:
        BundleError: too few samples to say what normal is.
    """
    scores = output.reshape(len(output), -1).astype(np.float64)
    if len(scores) < 2 * BINS:
        raise BundleError(
            "reference data",
            expected=f"at least {2 * BINS} samples",
            got=str(len(scores)),
            hint="give more data",
        )
    kind = "probabilities" if is_probabilities(scores) else "logits"
    confidence = confidence_of(scores, kind)
    classes = scores.shape[1]
    predicted = np.bincount(scores.argmax(axis=1), minlength=classes)
    return {
        "schema": wire.REFERENCE_SCHEMA,
        "statistic": "per-sample per-channel mean",
        "inputs": [
            {"name": name, "channels": [_histogram(column) for column in channel_means(values).T]}
            for name, values in inputs.items()
        ],
        "output": {
            "classes": classes,
            "predicted": [int(count) for count in predicted],
            "confidence": _histogram(confidence),
            "confidence_from": kind,
        },
    }


def channel_means(values: NDArray[Any]) -> Array:
    """Return each sample's mean per channel, shape (samples, channels); many channels are pooled."""
    flat = values.astype(np.float64).reshape(len(values), -1)
    channels = values.shape[-1] if values.ndim > 2 else 1
    if channels > MOST_CHANNELS:
        channels = 1
    means: Array = flat.reshape(len(values), -1, channels).mean(axis=1)
    return means


def is_probabilities(scores: Array) -> bool:
    """Whether rows are probabilities: not negative and adding up to one, quantization noise allowed for."""
    tolerance = 0.05
    return bool((scores >= -1e-6).all() and (np.abs(scores.sum(axis=1) - 1) < tolerance).all())


def confidence_of(scores: Array, kind: str) -> Array:
    """Return each sample's largest class probability."""
    if kind == "logits":
        scores = softmax(scores)
    largest: Array = scores.max(axis=1)
    return largest


def _histogram(values: Array) -> dict[str, list[float] | list[int]]:
    edges = _edges(values)
    counts, _ = np.histogram(values, bins=np.asarray(edges))
    return {"edges": edges, "counts": [int(count) for count in counts]}


def _edges(values: Array) -> list[float]:
    """Return quantile edges with an empty bin on either side, for what the reference never saw.

    A bin holds [lower, upper). The outer bins are as wide as the whole range, and what lies further out is
    counted in them, so that a constant or two-valued channel still shows any other value.
    """
    least, most = float(values.min()), float(values.max())
    # The largest value belongs inside, hence the next number after it as the upper edge.
    inner = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1))[:-1])
    upper = float(np.nextafter(most, np.inf))
    width = max(most - least, abs(most), 1e-6)
    return [least - width, *(float(edge) for edge in inner), upper, upper + width]
