"""Translations of the operations with weights: convolutions, dense layers, products and lookups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq_converters.training.tflite.node import (
    Node,
    Operation,
    Untranslatable,
    aligned,
    fused,
    on_images,
    padding,
    same_padding,
)


def _biased(node: Node, value: Any, bias: Any) -> Any:
    return fused(node, value if bias is None else value + bias[0])


def _conv(node: Node, source: Any, weights: Any, bias: Any = None) -> Any:
    import tensorflow as tf

    kernel = tf.transpose(weights[0], (1, 2, 3, 0))
    groups = node.shapes[0][3] // node.shapes[1][3]

    def of_group(images: Any, own: Any) -> Any:
        return _strided(node, images, lambda x, how, **to: tf.nn.convolution(x, own, padding=how, **to))

    def compute(images: Any) -> Any:
        if groups == 1:
            return of_group(images, kernel)
        parts = zip(tf.split(images, groups, axis=3), tf.split(kernel, groups, axis=3), strict=True)
        return tf.concat([of_group(part, own) for part, own in parts], axis=3)

    return _biased(node, on_images(source, compute), bias)


def _depthwise(node: Node, source: Any, weights: Any, bias: Any = None) -> Any:
    import tensorflow as tf

    _, height, width, out = node.shapes[1]
    channels = node.shapes[0][3]
    kernel = tf.reshape(weights[0], (height, width, channels, out // channels))

    def convolve(images: Any, how: str, *, strides: Any = (1, 1), dilations: Any = (1, 1)) -> Any:
        return tf.nn.depthwise_conv2d(images, kernel, (1, *strides, 1), how, dilations=dilations)

    return _biased(node, on_images(source, lambda images: _strided(node, images, convolve)), bias)


def _strided(node: Node, images: Any, convolve: Any) -> Any:
    """Return a convolution with the node's strides, dilations and padding.

    TensorFlow has no kernels for strides together with dilations, nor for unequal strides of depthwise
    convolutions: there every output is computed, and some are kept.
    """
    import tensorflow as tf

    options = node.options
    strides = (int(options.strideH), int(options.strideW))
    dilations = (max(int(options.dilationHFactor), 1), max(int(options.dilationWFactor), 1))
    plain = strides == (1, 1) or (dilations == (1, 1) and strides[0] == strides[1])
    if plain and dilations == (1, 1):
        return convolve(images, padding(node), strides=strides)
    if plain:
        return convolve(images, padding(node), dilations=dilations)
    if padding(node) == "SAME":
        kernel = node.shapes[1][1:3]
        taps = [(size - 1) * apart + 1 for size, apart in zip(kernel, dilations, strict=True)]
        pads = same_padding(images.shape[1:3], taps, strides)
        images = tf.pad(images, [[0, 0], *pads, [0, 0]])
    return convolve(images, "VALID", dilations=dilations)[:, :: strides[0], :: strides[1]]


def _transpose_conv(node: Node, _shape: Any, weights: Any, source: Any, bias: Any = None) -> Any:
    import tensorflow as tf

    kernel = tf.transpose(weights[0], (1, 2, 0, 3))
    strides = (int(node.options.strideH), int(node.options.strideW))

    def compute(images: Any) -> Any:
        shape = (tf.shape(images)[0], *node.made[0][1:])
        return tf.nn.conv2d_transpose(images, kernel, shape, strides, padding(node))

    return _biased(node, on_images(source, compute), bias)


def _dense(node: Node, source: Any, weights: Any, bias: Any = None) -> Any:
    import tensorflow as tf

    if node.options.weightsFormat:
        raise Untranslatable("FULLY_CONNECTED with shuffled weights")
    if weights.shape[0] != 1:
        raise Untranslatable("FULLY_CONNECTED with computed weights")
    rows = tf.reshape(source, (-1, node.shapes[1][1]))
    made = tf.matmul(rows, weights[0], transpose_b=True)
    return _biased(node, tf.reshape(made, (tf.shape(source)[0], *node.made[0])), bias)


def _matmul(node: Node, left: Any, right: Any) -> Any:
    import tensorflow as tf

    left, right = aligned([left, right])
    return tf.matmul(left, right, transpose_a=bool(node.options.adjX), transpose_b=bool(node.options.adjY))


def _embedding(node: Node, ids: Any, table: Any) -> Any:
    import tensorflow as tf

    return tf.gather(table[0], ids)


WEIGHTED: Mapping[str, Operation] = {
    "BATCH_MATMUL": _matmul,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "EMBEDDING_LOOKUP": _embedding,
    "FULLY_CONNECTED": _dense,
    "TRANSPOSE_CONV": _transpose_conv,
}
