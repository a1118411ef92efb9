"""Apply the equalization of a float .tflite to the Keras model that it was converted from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit
from edgeq_converters.graph.layers import Layer, read_layer
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import ignore
from edgeq_converters.quantization import equalization

Array = npt.NDArray[Any]


def _of_convolution(kernel: Array) -> Array:
    return np.moveaxis(kernel, -1, 0)


def _of_depthwise(kernel: Array) -> Array:
    return kernel.reshape(1, *kernel.shape[:-2], -1)


# {layer: (kernel -> its layout in the .tflite, and the inverse)}
_LAYOUTS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, tuple[int, ...]], Array]]] = {
    "Conv2D": (_of_convolution, lambda stored, _shape: np.moveaxis(stored, 0, -1)),
    "Dense": (_of_convolution, lambda stored, _shape: np.moveaxis(stored, 0, -1)),
    "DepthwiseConv2D": (_of_depthwise, lambda stored, shape: stored.reshape(shape)),
}


def equalize(model: Any, hub: Model, samples: Samples) -> Model | None:
    """Equalize a Keras model in place and return its float .tflite with the same tensor names.

    Args:
        model: with batch normalization folded where possible, as in `hub`.
        hub: its float .tflite.

    Returns:
        None where there is nothing to equalize, or where a changed layer does not match exactly one Keras
        layer; the model is then unchanged.
    """
    equalized = equalization.equalize(hub, samples, advance=ignore)
    if not equalized.groups:
        return None
    old, new = hub, equalized.model
    changes: list[tuple[Any, Array]] = []
    for operator in old.graph.operators:
        layer = read_layer(old.parsed, operator)
        if layer is None or not _differs(old, new, layer):
            continue
        matches = [each for each in model.layers if _matches(each, _constant(old, layer.weights))]
        if len(matches) != 1 or (
            layer.bias >= 0 and not matches[0].use_bias and _constant(old, layer.bias).any()
        ):
            return None
        kernel = matches[0].kernel
        _, to_keras = _LAYOUTS[type(matches[0]).__name__]
        changes.append((kernel, to_keras(_constant(new, layer.weights), tuple(kernel.shape))))
        if matches[0].use_bias and layer.bias >= 0:
            bias = matches[0].bias
            changes.append((bias, _constant(new, layer.bias).reshape(bias.shape)))
    for variable, values in changes:
        variable.assign(values)
    return new


def _differs(old: Model, new: Model, layer: Layer) -> bool:
    return any(
        index >= 0 and not np.array_equal(_constant(old, index), _constant(new, index))
        for index in (layer.weights, layer.bias)
    )


def _constant(model: Model, index: int) -> Array:
    return edit.constant(model.parsed, model.graph.tensors[index])


def _matches(layer: Any, stored: Array) -> bool:
    layout = _LAYOUTS.get(type(layer).__name__)
    if layout is None or getattr(layer, "data_format", "channels_last") != "channels_last":
        return False
    kernel = layout[0](np.asarray(layer.kernel))
    return kernel.shape == stored.shape and bool(np.array_equal(kernel, stored))
