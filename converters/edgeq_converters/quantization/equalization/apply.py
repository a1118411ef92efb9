"""Apply cross-layer equalization: scale channels up where they are written, and down where they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.executor import Executor
from edgeq_converters.graph.layers import Layer
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance
from edgeq_converters.quantization.equalization.groups import Group, find_groups
from edgeq_converters.quantization.equalization.scaling import Channels, factors

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalized:
    """An equalized model.

    Attributes:
        model: the model that was given, if no group was scaled.
        groups: number of groups of channels that were scaled.
    """

    model: Model
    groups: int


def equalize(model: Model, samples: Samples, *, advance: Advance) -> Equalized:
    """Return the same float function with channels of more equal ranges.

    Args:
        model: a float model.
        samples: to observe each channel's range on. With ReLU6 the function is the same only within these
            ranges.
        advance: called after each operation.

    Raises:
        ConverterError: EQ303 LiteRT does not run an operation on its own.
    """
    groups = find_groups(model)
    channels = observe_channels(Executor(model, samples), groups, advance)
    editor = Editor(model)
    count = 0
    for group in groups:
        matrices = {layer.weights: _matrix(editor.parsed, layer) for layer in group.consumers}
        scales = factors(group, channels, matrices)
        if not np.allclose(scales, 1.0):
            scale_group(editor.parsed, group, scales)
            count += 1
    return Equalized(model=editor.pack() if count else model, groups=count)


def observe_channels(executor: Executor, groups: tuple[Group, ...], advance: Advance) -> dict[int, Channels]:
    """Run the model and return the channels' statistics of each tensor of the groups, by tensor index."""
    sizes = {index: len(own) for group in groups for index, own in group.classes.items()}
    observed: dict[int, Channels] = {}
    for operator in executor.parsed.subgraphs[0].operators:
        executor.step()
        for index in (int(i) for i in operator.outputs):
            if index in sizes and index in executor.values:
                observed[index] = Channels.of(executor.values[index].reshape(-1, sizes[index]))
        advance(1)
    return observed


def scale_group(parsed: Any, group: Group, scales: Array) -> None:
    """Write a group's factors into the constants of its producers and consumers.

    Args:
        parsed: an editor's graph.
        scales: one factor per class of channels.
    """
    for layer in group.producers:
        own = scales[group.classes[layer.target]]
        own = np.tile(own, layer.groups * layer.width // len(own))
        rows = own.reshape(layer.groups, layer.width)
        _store(parsed, layer, _matrix(parsed, layer) * rows[:, :, None])
        if layer.bias >= 0:
            tensor = parsed.subgraphs[0].tensors[layer.bias]
            bias = edit.constant(parsed, tensor)
            edit.set_constant(parsed, tensor, (bias.astype(np.float64) * own.reshape(bias.shape)))
    for index, added_to in group.offsets:
        tensor = parsed.subgraphs[0].tensors[index]
        offset, own = edit.constant(parsed, tensor), scales[group.classes[added_to]]
        own = np.tile(own, offset.size // len(own)).reshape(offset.shape)
        edit.set_constant(parsed, tensor, offset.astype(np.float64) * own)
    for layer in group.consumers:
        matrix, own = _matrix(parsed, layer), scales[group.classes[layer.source]]
        if layer.groups == 1:
            divided = matrix / np.tile(own, layer.fan_in // len(own))
        else:
            divided = matrix / own[:, None, None]
        _store(parsed, layer, divided)


def _matrix(parsed: Any, layer: Layer) -> Array:
    tensor = parsed.subgraphs[0].tensors[layer.weights]
    matrix: Array = layer.to_matrix(edit.constant(parsed, tensor)).astype(np.float64)
    return matrix


def _store(parsed: Any, layer: Layer, matrix: Array) -> None:
    tensor = parsed.subgraphs[0].tensors[layer.weights]
    edit.set_constant(parsed, tensor, layer.to_tensor(matrix).reshape(tensor.shape))
