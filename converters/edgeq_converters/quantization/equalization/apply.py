"""Equalization of a float model: channels stretched where they are written, shrunk where they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.executor import Walk
from edgeq_converters.progress import Advance
from edgeq_converters.quantization.equalization.groups import Group, find
from edgeq_converters.quantization.equalization.scaling import Channels, factors

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalized:
    """An equalized model.

    Attributes:
        groups: how many groups of channels were scaled.
    """

    data: bytes
    groups: int


def equalize(data: bytes, samples: Samples, *, subject: str, advance: Advance) -> Equalized:
    """Return the same float function with channels of more equal ranges.

    Args:
        data: a float .tflite.
        samples: show each channel's range; with ReLU6 the function is the same as far as they reach.
        advance: called with how many operations are done.

    Raises:
        ConverterError: EQ303 when an operation does not run alone.
    """
    model = tflite_file.parse(data, subject=subject)
    groups = find(model)
    seen = observe(
        Walk(model, samples, subject=subject), {i for g in groups for i in g.tensors}, groups, advance
    )
    changed = 0
    for group in groups:
        matrices = {layer.weights: _matrix(model, layer) for layer in group.consumers}
        found = factors(group, seen, matrices)
        if not np.allclose(found, 1.0):
            scale(model, group, found)
            changed += 1
    return Equalized(data=edit.pack(model) if changed else data, groups=changed)


def observe(walk: Walk, wanted: set[int], groups: tuple[Group, ...], advance: Advance) -> dict[int, Channels]:
    """Return what each wanted tensor's channels hold."""
    channels = {index: group.channels for group in groups for index in group.tensors}
    seen: dict[int, Channels] = {}
    for operator in walk.model.subgraphs[0].operators:
        walk.step()
        for index in (int(i) for i in operator.outputs):
            if index in wanted and index in walk.values:
                values = walk.values[index].reshape(-1, channels[index])
                seen[index] = Channels(
                    largest=np.maximum(values.max(0), -values.min(0)).astype(np.float64),
                    power=np.einsum("nc,nc->c", values, values, dtype=np.float64) / len(values),
                )
        advance(1)
    return seen


def scale(model: Any, group: Group, found: Array) -> None:
    """Write a group's factors into its producers' and consumers' constants."""
    for layer in group.producers:
        rows = found.reshape(layer.groups, layer.width)
        _store(model, layer, _matrix(model, layer) * rows[:, :, None])
        if layer.bias >= 0:
            tensor = model.subgraphs[0].tensors[layer.bias]
            bias = edit.constant(model, tensor)
            edit.set_constant(model, tensor, (bias.astype(np.float64) * found.reshape(bias.shape)))
    for layer in group.consumers:
        matrix = _matrix(model, layer)
        if layer.groups == 1:
            divided = matrix / np.tile(found, layer.fan_in // group.channels)
        else:
            divided = matrix / found[:, None, None]
        _store(model, layer, divided)


def _matrix(model: Any, layer: Any) -> Array:
    tensor = model.subgraphs[0].tensors[layer.weights]
    matrix: Array = layer.to_matrix(edit.constant(model, tensor)).astype(np.float64)
    return matrix


def _store(model: Any, layer: Any, matrix: Array) -> None:
    tensor = model.subgraphs[0].tensors[layer.weights]
    edit.set_constant(model, tensor, layer.to_tensor(matrix))
