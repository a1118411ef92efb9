"""The importance of channels, by which pruning chooses those to remove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.pruning.channels import ChannelGraph, Channels, Cut
from edgeq_converters.training.settings import Criterion

Figures = dict[int, float]
"""{root of a channel: a figure}"""


def importance(model: Any, graph: ChannelGraph, criterion: Criterion) -> dict[str, Figures]:
    """Return {what makes channels: importance of each}, normalized to mean one in each.

    `l1` and `l2` take the norm of the weights that make a channel (Li et al., arXiv 1608.08710), times
    |gamma| / sqrt(variance) where batch normalization follows directly (the slimming factor of Liu et al.,
    arXiv 1708.06519). `group` adds the norms of all weights that the channel is coupled with, those that read
    it included (Fang et al., arXiv 2301.12900).
    """
    if criterion is Criterion.GROUP:
        return _of_groups(model, graph)
    power = 1 if criterion is Criterion.L1 else 2
    scales = _batch_norm_scales(keras_graph.calls(model))
    made: dict[str, Figures] = {}
    for cut in graph.cuts:
        if cut.unit is not None:
            norms = _norms(model, cut, power) * scales.get(cut.layer, np.ones(1)) ** power
            _add(made.setdefault(cut.unit, {}), graph, cut.channels, norms)
    return {unit: _to_mean_one(figures, power) for unit, figures in made.items()}


def _of_groups(model: Any, graph: ChannelGraph) -> dict[str, Figures]:
    total: Figures = {}
    for cut in graph.cuts:
        if len(model.get_layer(cut.layer).weights[cut.index].shape) > 1:
            figures: Figures = {}
            _add(figures, graph, cut.channels, _norms(model, cut, 2))
            for root, value in _to_mean_one(figures, 1).items():
                total[root] = total.get(root, 0.0) + value
    return {
        unit: _to_mean_one({int(root): total[int(root)] for root in graph.channels.roots(channels)}, 2)
        for unit, channels in graph.units().items()
    }


def _norms(model: Any, cut: Cut, power: int) -> npt.NDArray[np.float64]:
    weight = np.asarray(model.get_layer(cut.layer).weights[cut.index], np.float64)
    rows = np.moveaxis(weight, cut.axis, 0).reshape(weight.shape[cut.axis], -1)
    return np.asarray((np.abs(rows) ** power).sum(axis=1), np.float64)


def _add(figures: Figures, graph: ChannelGraph, channels: Channels, values: npt.NDArray[np.float64]) -> None:
    for root, value in zip(graph.channels.roots(channels), values, strict=True):
        figures[int(root)] = figures.get(int(root), 0.0) + float(value)


def _to_mean_one(figures: Figures, power: int) -> Figures:
    rooted = {root: value ** (1 / power) for root, value in figures.items()}
    mean = max(sum(rooted.values()) / len(rooted), 1e-30)
    return {root: value / mean for root, value in rooted.items()}


def _batch_norm_scales(calls: Sequence[keras_graph.Call]) -> dict[str, npt.NDArray[np.float64]]:
    """Return {layer: factor of each of its channels} of the layers directly before a batch normalization."""
    makers = {id(symbol): call.name for call in calls for symbol in call.outputs}
    scales = {}
    for call in calls:
        maker = makers.get(id(call.inputs[0])) if call.inputs else None
        if call.kind == "BatchNormalization" and maker is not None:
            layer = call.operation
            deviation = np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
            gamma = np.asarray(layer.gamma, np.float64) if layer.scale else np.ones_like(deviation)
            scales[maker] = np.abs(gamma) / deviation
    return scales
