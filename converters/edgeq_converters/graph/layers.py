"""Weighted operations as linear maps: where their weights are, and which inputs each output reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file

Array = npt.NDArray[Any]
Rows = tuple[npt.NDArray[np.intp], ...]

KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
CHUNK_VALUES = 1 << 23  # values gathered at a time: 32 MiB of float32
KEPT_VALUES = 1 << 24  # values that are kept between two passes: 64 MiB of float32
_FEWEST = 2048
_PER_INPUT = 4
"""Fewest rows per weight: with fewer, least squares would fit the noise of the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weighted operation: `groups` independent linear maps from `fan_in` inputs to `width` outputs.

    A convolution or a fully connected layer is one group; a depthwise convolution has one group per channel.

    Attributes:
        kind: the operation's name in the schema.
        source, weights, bias, target: tensor indices; `bias` is -1 without one.
        axis: the dimension of the weights that holds the output channels.
        before: rows and columns of zero padding above and to the left.
        low, high: bounds of the fused activation.
    """

    kind: str
    source: int
    weights: int
    bias: int
    target: int
    axis: int
    groups: int
    width: int
    fan_in: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    low: float
    high: float

    def to_matrix(self, weights: Array) -> Array:
        """Return weights, given in the tensor's layout, as (groups, width, fan_in)."""
        if self.kind == "DEPTHWISE_CONV_2D":
            taps = weights.reshape(-1, self.groups, self.width)
            return np.ascontiguousarray(taps.transpose(1, 2, 0))
        return weights.reshape(self.groups, self.width, self.fan_in)

    def to_tensor(self, matrix: Array) -> Array:
        """Return weights, given as (groups, width, fan_in), in the tensor's layout."""
        if self.kind == "DEPTHWISE_CONV_2D":
            return matrix.transpose(2, 0, 1).reshape(1, *self.kernel, self.groups * self.width)
        if self.kind == "CONV_2D":
            return matrix.reshape(self.groups * self.width, *self.kernel, -1)
        return matrix.reshape(self.groups * self.width, self.fan_in)

    def choose_rows(self, shape: tuple[int, ...], random: np.random.Generator, *, most: int) -> Rows:
        """Return the positions of outputs to fit the layer on, as indices for each dimension of `shape`.

        Args:
            shape: the target's, batches first, without the channels; (rows,) of a fully connected layer.
            most: how many, unless the layer has so many weights per output that it needs more.
        """
        count = int(np.prod(shape))
        fitting = min(most, KEPT_VALUES // (self.fan_in * self.groups))
        chosen = max(fitting, _FEWEST, _PER_INPUT * self.fan_in)
        if count <= chosen:
            flat = np.arange(count)
        else:  # one at random of every stretch, so that all samples and positions are equally represented
            edges = np.linspace(0, count, chosen + 1)
            flat = np.minimum(
                (edges[:-1] + random.random(chosen) * np.diff(edges)).astype(np.intp), count - 1
            )
        return np.unravel_index(flat, shape)

    def gather(
        self, values: Array, rows: Rows, *, scale: float = 1.0, zero_point: int = 0
    ) -> Iterable[tuple[slice, Array]]:
        """Return (slice of the rows, their inputs) in parts, as real values of shape (groups, rows, fan_in).

        The result can be iterated more than once; a large layer's parts are then gathered again each time.

        Args:
            values: the source tensor's values, (batches, *tensor shape); padding has the real value 0.
        """
        gathered = _Gathered(self, values, rows, scale, zero_point)
        return list(gathered) if len(rows[0]) * self.fan_in * self.groups <= KEPT_VALUES else gathered

    def outputs(self, values: Array, rows: Rows) -> Array:
        """Return the layer's outputs at these rows as (groups, rows, width).

        Args:
            values: the target's values, (batches, *tensor shape).
        """
        if self.kind == "FULLY_CONNECTED":
            return values.reshape(-1, self.width)[rows[0]][None]
        outputs: Array = values[rows].reshape(len(rows[0]), self.groups, self.width)
        return np.ascontiguousarray(outputs.transpose(1, 0, 2))

    def patches(self, values: Array, rows: Rows, scale: float, zero_point: int) -> Array:
        """Return the inputs of all rows at once, as real values of shape (groups, rows, fan_in)."""

        def real(stored: Array) -> Array:
            return (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)

        if self.kind == "FULLY_CONNECTED":
            return real(values.reshape(-1, self.fan_in)[rows[0]])[None]
        batch, inner, down, across = rows
        height, width = values.shape[2], values.shape[3]
        tap_y = np.arange(self.kernel[0]) * self.dilation[0] - self.before[0]
        tap_x = np.arange(self.kernel[1]) * self.dilation[1] - self.before[1]
        y = down[:, None] * self.stride[0] + tap_y
        x = across[:, None] * self.stride[1] + tap_x
        patches = real(
            values[
                batch[:, None, None],
                inner[:, None, None],
                np.clip(y, 0, height - 1)[:, :, None],
                np.clip(x, 0, width - 1)[:, None, :],
            ]
        )
        outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
        patches[outside] = 0
        if self.kind == "CONV_2D":
            return patches.reshape(1, len(batch), self.fan_in)
        return patches.reshape(len(batch), -1, self.groups).transpose(2, 0, 1)


class _Gathered:
    """The inputs of some rows, gathered in parts on each iteration."""

    def __init__(self, layer: Layer, values: Array, rows: Rows, scale: float, zero_point: int) -> None:
        self._layer, self._values, self._rows = layer, values, rows
        self._real = scale, zero_point
        self._step = max(CHUNK_VALUES // (layer.fan_in * layer.groups), 1)

    def __iter__(self) -> Iterator[tuple[slice, Array]]:
        count = len(self._rows[0])
        for start in range(0, count, self._step):
            part = slice(start, min(start + self._step, count))
            yield part, self._layer.patches(self._values, tuple(i[part] for i in self._rows), *self._real)


def read_layer(parsed: Any, operator: Any) -> Layer | None:
    """Return an operation of the main graph as a layer; None if it is not one or its weights vary."""
    graph = parsed.subgraphs[0]
    kind = tflite_file.op_name(parsed, operator)
    if kind not in KINDS or len(operator.inputs) < 2:
        return None
    source, weights = int(operator.inputs[0]), int(operator.inputs[1])
    bias = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
    if not tflite_file.is_constant(parsed, graph.tensors[weights]):
        return None
    if bias >= 0 and not tflite_file.is_constant(parsed, graph.tensors[bias]):
        return None
    options = operator.builtinOptions
    limits = _ACTIVATIONS.get(options.fusedActivationFunction)
    shape = tuple(int(size) for size in graph.tensors[weights].shape)
    into = tuple(int(size) for size in graph.tensors[source].shape)
    if limits is None or any(size <= 0 for size in into):
        return None
    common: dict[str, Any] = {
        "kind": kind,
        "source": source,
        "weights": weights,
        "bias": bias,
        "low": limits[0],
    }
    common |= {"target": int(operator.outputs[0]), "high": limits[1]}
    if kind == "FULLY_CONNECTED":
        if len(shape) != 2:
            return None
        none = (0, 0)
        return Layer(
            **common, axis=0, groups=1, width=shape[0], fan_in=shape[1],
            kernel=(1, 1), stride=(1, 1), dilation=(1, 1), before=none,
        )  # fmt: skip
    deep = kind == "DEPTHWISE_CONV_2D"
    channels = into[3]
    if len(into) != 4 or (not deep and shape[3] != channels) or (deep and shape[3] % channels):
        return None  # a grouped convolution, which the integer kernels do not support
    kernel, stride = shape[1:3], (int(options.strideH), int(options.strideW))
    dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
    same = options.padding == schema.Padding.SAME
    before = tuple(
        _padding(size, k, s, d) if same else 0
        for size, k, s, d in zip(into[1:3], kernel, stride, dilation, strict=True)
    )
    return Layer(
        **common,
        axis=3 if deep else 0,
        groups=channels if deep else 1,
        width=shape[3] // channels if deep else shape[0],
        fan_in=kernel[0] * kernel[1] * (1 if deep else channels),
        kernel=(kernel[0], kernel[1]),
        stride=stride,
        dilation=dilation,
        before=(before[0], before[1]),
    )


def _padding(size: int, kernel: int, stride: int, dilation: int) -> int:
    out = -(-size // stride)
    return max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0) // 2


_ACTIVATIONS = {
    schema.ActivationFunctionType.NONE: (-np.inf, np.inf),
    schema.ActivationFunctionType.RELU: (0.0, np.inf),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
}
