"""One operation of a graph, as its translation to TensorFlow sees it, and the fused activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation.

    A value has one axis more than its tensor: the samples, which come first. It has the size one for
    constants. So no operation needs to know which of its axes is the batch.

    Attributes:
        kind: its name in the schema.
        options: the schema's options of the kind; None for some kinds.
        shapes: of the input tensors; an omitted input has the shape ().
        made: shapes of the output tensors.
        constants: values of the inputs that are constants; None for the others.
        dtypes: of the output tensors.
        count: samples in this call, as a TensorFlow scalar.
    """

    kind: str
    options: Any
    shapes: tuple[Shape, ...]
    made: tuple[Shape, ...]
    constants: tuple[npt.NDArray[Any] | None, ...]
    dtypes: tuple[str, ...]
    count: Any

    def static(self, position: int) -> npt.NDArray[Any]:
        """Return the values of an input that must be a constant, such as the axes of a MEAN.

        Raises:
            Untranslatable: it is computed.
        """
        values = self.constants[position] if position < len(self.constants) else None
        if values is None:
            raise Untranslatable(f"{self.kind} with a computed input {position}")
        return values

    def integers(self, position: int) -> list[int]:
        """Return the values of a constant input as a flat list."""
        return [int(each) for each in self.static(position).ravel()]

    def axis(self, axis: int, position: int = 0) -> int:
        """Return an axis of an input tensor as the axis of its value."""
        return axis % max(len(self.shapes[position]), 1) + 1

    def to_shape(self, value: Any, output: int = 0) -> Any:
        """Return a value in the shape of an output."""
        import tensorflow as tf

        return tf.reshape(value, (tf.shape(value)[0], *self.made[output]))

    def every(self, value: Any) -> Any:
        """Return a value with all samples, where it had the axis of a constant."""
        import tensorflow as tf

        if value.shape[0] != 1:
            return value
        return tf.repeat(value, self.count, axis=0)


Operation = Callable[..., Any]
"""(node, one value per input, None for an omitted one) -> the value of the output, or a list of them."""


class Untranslatable(Exception):
    """An operation, or a form of it, that has no translation; the message names it."""


def aligned(values: Sequence[Any]) -> list[Any]:
    """Return values with equal ranks: axes of size one follow the samples, as broadcasting needs them."""
    import tensorflow as tf

    rank = max(len(value.shape) for value in values)
    return [
        tf.reshape(value, (tf.shape(value)[0], *[1] * (rank - len(value.shape)), *value.shape[1:]))
        if len(value.shape) < rank
        else value
        for value in values
    ]


def fused(node: Node, value: Any) -> Any:
    """Return a value after the operation's fused activation.

    Raises:
        Untranslatable: an activation that no kernel of the runtime fuses.
    """
    import tensorflow as tf

    number = getattr(node.options, "fusedActivationFunction", 0) or 0
    kinds = schema.ActivationFunctionType
    if number == kinds.NONE:
        return value
    if number == kinds.RELU:
        return tf.nn.relu(value)
    if number == kinds.RELU6:
        return tf.nn.relu6(value)
    if number == kinds.RELU_N1_TO_1:
        return tf.clip_by_value(value, -1.0, 1.0)
    if number == kinds.TANH:
        return tf.tanh(value)
    raise Untranslatable(f"{node.kind} with the fused activation {number}")


def on_images(value: Any, compute: Callable[[Any], Any]) -> Any:
    """Return what a function of images (count, height, width, channels) makes of a value of five axes."""
    import tensorflow as tf

    if len(value.shape) != 5:
        raise Untranslatable(f"an operation on images with {len(value.shape) - 1} axes")
    flat = compute(tf.reshape(value, (-1, *value.shape[2:])))
    return tf.reshape(flat, (-1, value.shape[1], *flat.shape[1:]))


def padding(node: Node) -> str:
    """Return the padding as TensorFlow names it."""
    return "SAME" if node.options.padding == schema.Padding.SAME else "VALID"


def same_padding(sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[list[int]]:
    """Return (before, after) of the rows and columns for the padding SAME."""
    pads = []
    for size, taps, step in zip(sizes, kernel, stride, strict=True):
        missing = max((-(-size // step) - 1) * step + taps - size, 0)
        pads.append([missing // 2, missing - missing // 2])
    return pads
