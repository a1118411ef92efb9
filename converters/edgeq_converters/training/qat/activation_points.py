"""Activation points: the tensors of the float .tflite, matched to tensors of the Keras graph by value."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.common.training_data import LabelledData

_PROBES = 6
_SAME_SCALE = {
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D",
    "AveragePooling3D", "Flatten", "Reshape", "Permute", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
    "Cropping1D", "Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "Concatenate", "Dropout",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "Identity", "RepeatVector",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPoints:
    """The tensors to fake-quantize.

    Attributes:
        key_of: {id of a symbolic Keras tensor: key of its range}; symbols that share a scale share a key.
        names: {key: names of the .tflite tensors with this range}.
    """

    key_of: dict[int, str]
    names: dict[str, tuple[str, ...]]


def find(model: Any, hub: Model, data: LabelledData) -> ActivationPoints:
    """Return the activation points of a model whose float .tflite is `hub`.

    The .tflite decides: a fused operation (a convolution with its ReLU) has one output tensor, and the Keras
    tensors inside it do not exist in the file. A Keras tensor matches a .tflite tensor where their values
    agree on a few samples. Equal Keras tensors share a range.
    """
    probes = data.take(np.arange(min(_PROBES, len(data))))
    tflite_values = _tflite_values(hub, probes)
    groups = _Groups()
    names: dict[int, list[str]] = {}
    symbols, keras_values = _keras_values(model, probes)
    for symbol, values in zip(symbols, keras_values, strict=True):
        matches = [name for name, other in tflite_values.items() if _same(values, other)]
        if matches:
            names[id(symbol)] = matches
            for name in matches:
                groups.join(("k", id(symbol)), ("t", name))
    for call in keras_graph.calls(model):
        if call.kind in _SAME_SCALE:
            shared = [symbol for symbol in (*call.inputs, *call.outputs) if id(symbol) in names]
            for one, other in pairwise(shared):
                groups.join(("k", id(one)), ("k", id(other)))
    key_of: dict[int, str] = {}
    by_key: dict[str, dict[str, None]] = {}
    numbers: dict[Any, str] = {}
    for symbol in symbols:
        if id(symbol) in names:
            key = numbers.setdefault(groups.root(("k", id(symbol))), f"range{len(numbers)}")
            key_of[id(symbol)] = key
            by_key.setdefault(key, {}).update(dict.fromkeys(names[id(symbol)]))
    return ActivationPoints(key_of=key_of, names={key: tuple(tensors) for key, tensors in by_key.items()})


def _same(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    if left.size != right.size:
        return False
    one, other = left.ravel().astype(np.float64), right.ravel().astype(np.float64)
    return bool(np.abs(one - other).max(initial=0.0) <= 2e-4 * np.abs(one).max(initial=0.0) + 1e-6)


def _keras_values(model: Any, probes: LabelledData) -> tuple[list[Any], list[npt.NDArray[Any]]]:
    inputs, _ = keras_graph.symbols(model)
    symbols, values = list(inputs), [np.asarray(array) for array in probes.arrays]

    def call(what: keras_graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = keras_graph.call_in_inference_mode(what, args, kwargs)
        import keras

        for symbol, value in zip(what.outputs, keras.tree.flatten(result), strict=True):
            symbols.append(symbol)
            values.append(np.asarray(value))
        return result

    import tensorflow as tf

    keras_graph.run(model, [tf.constant(array) for array in probes.arrays], call)
    return symbols, values


def _tflite_values(hub: Model, probes: LabelledData) -> dict[str, npt.NDArray[Any]]:
    activations = tflite_file.activations(hub.parsed)
    watched = [(index, tflite_file.tensor_name(tensor)) for index, tensor in activations]
    interpreter = Interpreter(hub, every_tensor=True)
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for _, name in watched}
    for row in range(len(probes)):
        interpreter.run([array[row : row + 1] for array in probes.arrays])
        for index, name in watched:
            parts[name].append(interpreter.tensor(index).ravel())
    return {name: np.stack(rows) for name, rows in parts.items()}


class _Groups:
    """A union-find over hashable items."""

    def __init__(self) -> None:
        self._parent: dict[Any, Any] = {}

    def root(self, item: Any) -> Any:
        self._parent.setdefault(item, item)
        while self._parent[item] != item:
            item = self._parent[item]
        return item

    def join(self, one: Any, other: Any) -> None:
        self._parent[self.root(other)] = self.root(one)
