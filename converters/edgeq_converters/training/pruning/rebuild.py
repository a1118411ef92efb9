"""Rebuild a Keras model with fewer channels, or with channels that are zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common.model_copy import ModelCopy
from edgeq_converters.training.pruning.channels import ChannelGraph, Channels, ChannelSet, Resize, SliceChange


def rebuild(model: Any, graph: ChannelGraph, removed: set[int]) -> Any:
    """Return a smaller model without the channels `removed`; the remaining weights keep their values.

    A removed channel no longer adds its constant (the bias after its activation) to the layers behind it.
    Re-tuning compensates for that.
    """
    channels = graph.channels

    def count(of: Channels) -> int:
        return len(channels.remaining(of, removed))

    settings = {name: _settings(resizes, count) for name, resizes in graph.resizes.items()}
    keys = {node: _sliced(change, count) for node, change in graph.slices.items()}
    return ModelCopy(settings, keys, _weights(model, graph, channels, removed)).of(model)


def _settings(resizes: tuple[Resize, ...], count: Any) -> dict[str, Any]:
    # Settings whose channels all stay keep their value: None or -1 may stand for a size.
    return {
        resize.key: resize.value(count)
        for resize in resizes
        if any(count(channels) != len(channels) for channels in resize.channels)
    }


def _sliced(change: SliceChange, count: Any) -> tuple[Any, ...]:
    start = count(change.before)
    part = slice(start, start + count(change.channels))
    return (*change.key[: change.place], part, *change.key[change.place + 1 :])


def _weights(
    model: Any, graph: ChannelGraph, channels: ChannelSet, removed: set[int]
) -> dict[str, list[npt.NDArray[Any]]]:
    weights = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    for cut in graph.cuts:
        rows = channels.remaining(cut.channels, removed)
        values = weights[cut.layer]
        values[cut.index] = np.take(values[cut.index], rows, axis=cut.axis)
    return weights


def zeroed(model: Any, graph: ChannelGraph, removed: set[int]) -> Any:
    """Return a copy of the model in which the channels are there, but zero: as the pruned model computes."""
    copy = rebuild(model, graph, set())
    weights = {
        layer.name: [np.array(value) for value in layer.get_weights()]
        for layer in copy.layers
        if layer.weights
    }
    for cut in graph.cuts:
        stay = graph.channels.remaining(cut.channels, removed)
        gone = np.setdiff1d(np.arange(len(cut.channels)), stay)
        np.moveaxis(weights[cut.layer][cut.index], cut.axis, 0)[gone] = 0.0
    for name, values in weights.items():
        copy.get_layer(name).set_weights(values)
    return copy
