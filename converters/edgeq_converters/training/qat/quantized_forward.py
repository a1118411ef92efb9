"""The forward pass of a Keras model with fake-quantized weights and activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.quantization import weight_clipping
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.qat import fake_quant
from edgeq_converters.training.qat.activation_points import ActivationPoints
from edgeq_converters.training.qat.fake_quant import LearnedRange, LearnedRatio

# {layer: {weight: axes that share a scale}}: one scale per output channel, as in litert-quantizer.
_OVER: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "Conv1D": {"kernel": (0, 1)},
    "Conv2D": {"kernel": (0, 1, 2)},
    "Conv2DTranspose": {"kernel": (0, 1, 3)},
    "DepthwiseConv1D": {"kernel": (0,)},
    "DepthwiseConv2D": {"kernel": (0, 1)},
    "SeparableConv1D": {"depthwise_kernel": (0,), "pointwise_kernel": (0, 1)},
    "SeparableConv2D": {"depthwise_kernel": (0, 1), "pointwise_kernel": (0, 1, 2)},
    "Dense": {"kernel": (0,)},
}
_INT4 = {"Conv2D", "Dense"}
# The kernels fix the ranges of these outputs, so no range is learned.
_FIXED = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


class QuantizedForward:
    """The forward pass with fake quantization, in inference mode: remaining batch normalization is frozen.

    Args:
        ranges: {key of `points`: its range}.
        weight_bits: 8, or 4 for the weights of convolutions and dense layers. The end of a 4-bit grid is
            learned too; it starts where the rounding error of the weights is smallest.
    """

    def __init__(
        self,
        model: Any,
        points: ActivationPoints,
        ranges: Mapping[str, LearnedRange],
        *,
        weight_bits: int = 8,
    ) -> None:
        self._model, self._points, self._ranges, self._bits = model, points, ranges, weight_bits
        self._outputs = {id(symbol) for symbol in keras_graph.symbols(model)[1]}
        self._inputs = [id(symbol) for symbol in keras_graph.symbols(model)[0]]
        self._ratios = {
            id(variable): LearnedRatio(_least_error(np.asarray(variable), over, bits))
            for layer in model.layers
            for variable in getattr(layer, "weights", ())
            for over, bits in [self.grids(layer).get(id(variable), ((), 8))]
            if bits < 8
        }

    @property
    def variables(self) -> list[Any]:
        """The trainable variables: weights except batch normalization, ends of ranges, and ratios."""
        frozen = {
            id(weight)
            for layer in self._model.layers
            if type(layer).__name__ == "BatchNormalization"
            for weight in layer.weights
        }
        weights = [v for v in self._model.trainable_variables if id(v) not in frozen]
        ends = [v for learned in self._ranges.values() for v in learned.variables]
        return [*weights, *ends, *(ratio.variable for ratio in self._ratios.values())]

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Return the outputs of a batch."""
        fed = [self._quantized(symbol, value) for symbol, value in zip(self._inputs, inputs, strict=True)]
        return keras_graph.run(self._model, fed, self._call)

    def _call(self, what: keras_graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import keras

        layer = what.operation
        grids = self.grids(layer)
        if grids:

            def on_grid(variable: Any) -> Any:
                if id(variable) not in grids:
                    return variable.value
                over, bits = grids[id(variable)]
                return fake_quant.weights(
                    variable.value, over=over, bits=bits, ratio=self._ratio(id(variable))
                )

            values = [on_grid(variable) for variable in layer.trainable_variables]
            fixed = [on_grid(variable) for variable in layer.non_trainable_variables]
            result, _ = layer.stateless_call(values, fixed, *args, **kwargs)
        else:
            result = keras_graph.call_in_inference_mode(what, args, kwargs)
        activation = fixed_activation(what)
        flat = [
            self._quantized(id(symbol), value, activation)
            for symbol, value in zip(what.outputs, keras.tree.flatten(result), strict=True)
        ]
        return keras.tree.pack_sequence_as(result, flat)

    def _quantized(self, symbol: int, value: Any, activation: str = "") -> Any:
        key = self._points.key_of.get(symbol)
        if key is None or (activation and symbol in self._outputs):
            return value  # the loss uses the probabilities before they are rounded to 1/256
        if activation:
            return fake_quant.activations(value, *_FIXED[activation])
        return self._ranges[key](value)

    def grids(self, layer: Any) -> dict[int, tuple[tuple[int, ...], int]]:
        """Return {id of a weight: (axes that share a scale, bits)} of a layer's quantized weights."""
        kind = type(layer).__name__
        over = _OVER.get(kind, {})
        bits = self._bits if kind in _INT4 else 8
        return {id(v): (over[v.name], bits) for v in getattr(layer, "weights", ()) if v.name in over}

    def snap(self) -> None:
        """Round the weights to their grids permanently."""
        for layer in self._model.layers:
            grids = self.grids(layer)
            for variable in layer.weights:
                if id(variable) in grids:
                    over, bits = grids[id(variable)]
                    ratio = np.asarray(self._ratio(id(variable)))
                    variable.assign(
                        fake_quant.snapped(np.asarray(variable), over=over, bits=bits, ratio=ratio)
                    )

    def _ratio(self, weight: int) -> Any:
        return self._ratios[weight].value() if weight in self._ratios else 1.0


def _least_error(
    values: npt.NDArray[np.float32], over: tuple[int, ...], bits: int
) -> npt.NDArray[np.float64]:
    """Return the ratio of each channel with the smallest rounding error of the weights."""
    shape = [1 if axis in over else size for axis, size in enumerate(values.shape)]
    rows = np.moveaxis(values, over, range(-len(over), 0)).reshape(int(np.prod(shape)), -1)
    widest = np.maximum(np.abs(rows).max(axis=1), 1e-9)
    ratios: npt.NDArray[np.float64] = weight_clipping.clip_limits(rows, bits=bits) / widest
    return ratios.reshape(shape)


def fixed_activation(what: keras_graph.Call) -> str:
    """Return the call's activation if the kernels fix its output range, else the empty string."""
    if what.kind in {"Softmax", "Sigmoid", "Tanh"}:
        return what.kind.lower()
    name = getattr(getattr(what.operation, "activation", None), "__name__", "")
    return name if name in _FIXED else ""
