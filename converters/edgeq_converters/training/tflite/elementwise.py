"""Translations of the operations that compute values: arithmetic, activations, sums and pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeq_converters.training.tflite.node import Node, Operation, aligned, fused, on_images, padding


def _unary(compute: Callable[[Any, Any], Any]) -> Operation:
    def translated(_node: Node, value: Any) -> Any:
        import tensorflow as tf

        return compute(tf, value)

    return translated


def _binary(compute: Callable[[Any, Any, Any], Any]) -> Operation:
    def translated(node: Node, left: Any, right: Any) -> Any:
        import tensorflow as tf

        return fused(node, compute(tf, *aligned([left, right])))

    return translated


def _reduction(name: str) -> Operation:
    def translated(node: Node, value: Any, _axes: Any) -> Any:
        import tensorflow as tf

        axes = [node.axis(axis) for axis in node.integers(1)]
        return getattr(tf, name)(value, axis=axes, keepdims=bool(node.options.keepDims))

    return translated


def _pool(name: str) -> Operation:
    def translated(node: Node, value: Any) -> Any:
        import tensorflow as tf

        options = node.options
        size = (int(options.filterHeight), int(options.filterWidth))
        stride = (int(options.strideH), int(options.strideW))
        pool = getattr(tf.nn, name)
        return fused(node, on_images(value, lambda images: pool(images, size, stride, padding(node))))

    return translated


def _softmax(node: Node, value: Any) -> Any:
    import tensorflow as tf

    return tf.nn.softmax(value * float(node.options.beta))


def _prelu(_node: Node, value: Any, slopes: Any) -> Any:
    import tensorflow as tf

    value, slopes = aligned([value, slopes])
    return tf.nn.relu(value) - slopes * tf.nn.relu(-value)


def _leaky(node: Node, value: Any) -> Any:
    import tensorflow as tf

    return tf.where(value >= 0, value, value * float(node.options.alpha))


def _gelu(node: Node, value: Any) -> Any:
    import tensorflow as tf

    return tf.nn.gelu(value, approximate=bool(node.options.approximate))


def _normalized(node: Node, value: Any) -> Any:
    import tensorflow as tf

    size = tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(value), axis=-1, keepdims=True), 1e-12))
    return fused(node, value / size)


def _response(node: Node, value: Any) -> Any:
    import tensorflow as tf

    options = node.options
    return on_images(
        value,
        lambda images: tf.nn.local_response_normalization(
            images, int(options.radius), float(options.bias), float(options.alpha), float(options.beta)
        ),
    )


def _select(_node: Node, condition: Any, left: Any, right: Any) -> Any:
    import tensorflow as tf

    if len(condition.shape) == 2 and len(left.shape) > 2 and condition.shape[1] == left.shape[1]:
        condition = tf.reshape(condition, (*condition.shape[:2], *[1] * (len(left.shape) - 2)))
    return tf.where(*aligned([condition, left, right]))


def _sum_of_many(_node: Node, *values: Any) -> Any:
    import tensorflow as tf

    return tf.add_n(aligned(values))


def _cumulated(node: Node, value: Any, _axis: Any) -> Any:
    import tensorflow as tf

    axis = node.axis(node.integers(1)[0])
    return tf.cumsum(value, axis, bool(node.options.exclusive), bool(node.options.reverse))


def _largest(name: str) -> Operation:
    def translated(node: Node, value: Any, _axis: Any) -> Any:
        import tensorflow as tf

        axis = node.axis(node.integers(1)[0])
        return node.to_shape(getattr(tf, name)(value, axis=axis, output_type=node.dtypes[0]))

    return translated


def _cast(node: Node, value: Any) -> Any:
    import tensorflow as tf

    return tf.cast(value, node.dtypes[0])


ELEMENTWISE: Mapping[str, Operation] = {
    "ABS": _unary(lambda tf, x: tf.abs(x)),
    "ADD": _binary(lambda tf, x, y: tf.add(x, y)),
    "ADD_N": _sum_of_many,
    "ARG_MAX": _largest("argmax"),
    "ARG_MIN": _largest("argmin"),
    "AVERAGE_POOL_2D": _pool("avg_pool2d"),
    "CAST": _cast,
    "CEIL": _unary(lambda tf, x: tf.math.ceil(x)),
    "COS": _unary(lambda tf, x: tf.cos(x)),
    "CUMSUM": _cumulated,
    "DIV": _binary(lambda tf, x, y: tf.divide(x, y)),
    "ELU": _unary(lambda tf, x: tf.nn.elu(x)),
    "EQUAL": _binary(lambda tf, x, y: tf.equal(x, y)),
    "EXP": _unary(lambda tf, x: tf.exp(x)),
    "FLOOR": _unary(lambda tf, x: tf.floor(x)),
    "GELU": _gelu,
    "GREATER": _binary(lambda tf, x, y: tf.greater(x, y)),
    "GREATER_EQUAL": _binary(lambda tf, x, y: tf.greater_equal(x, y)),
    "HARD_SWISH": _unary(lambda tf, x: x * tf.nn.relu6(x + 3.0) / 6.0),
    "L2_NORMALIZATION": _normalized,
    "LEAKY_RELU": _leaky,
    "LESS": _binary(lambda tf, x, y: tf.less(x, y)),
    "LESS_EQUAL": _binary(lambda tf, x, y: tf.less_equal(x, y)),
    "LOCAL_RESPONSE_NORMALIZATION": _response,
    "LOG": _unary(lambda tf, x: tf.math.log(x)),
    "LOGICAL_AND": _binary(lambda tf, x, y: tf.logical_and(x, y)),
    "LOGICAL_NOT": _unary(lambda tf, x: tf.logical_not(x)),
    "LOGICAL_OR": _binary(lambda tf, x, y: tf.logical_or(x, y)),
    "LOGISTIC": _unary(lambda tf, x: tf.sigmoid(x)),
    "LOG_SOFTMAX": _unary(lambda tf, x: tf.nn.log_softmax(x)),
    "MAXIMUM": _binary(lambda tf, x, y: tf.maximum(x, y)),
    "MAX_POOL_2D": _pool("max_pool2d"),
    "MEAN": _reduction("reduce_mean"),
    "MINIMUM": _binary(lambda tf, x, y: tf.minimum(x, y)),
    "MUL": _binary(lambda tf, x, y: tf.multiply(x, y)),
    "NEG": _unary(lambda tf, x: -x),
    "NOT_EQUAL": _binary(lambda tf, x, y: tf.not_equal(x, y)),
    "POW": _binary(lambda tf, x, y: tf.pow(x, y)),
    "PRELU": _prelu,
    "REDUCE_MAX": _reduction("reduce_max"),
    "REDUCE_MIN": _reduction("reduce_min"),
    "REDUCE_PROD": _reduction("reduce_prod"),
    "RELU": _unary(lambda tf, x: tf.nn.relu(x)),
    "RELU6": _unary(lambda tf, x: tf.nn.relu6(x)),
    "RELU_0_TO_1": _unary(lambda tf, x: tf.clip_by_value(x, 0.0, 1.0)),
    "RELU_N1_TO_1": _unary(lambda tf, x: tf.clip_by_value(x, -1.0, 1.0)),
    "ROUND": _unary(lambda tf, x: tf.round(x)),
    "RSQRT": _unary(lambda tf, x: tf.math.rsqrt(x)),
    "SELECT": _select,
    "SELECT_V2": _select,
    "SIGN": _unary(lambda tf, x: tf.sign(x)),
    "SIN": _unary(lambda tf, x: tf.sin(x)),
    "SOFTMAX": _softmax,
    "SQRT": _unary(lambda tf, x: tf.sqrt(x)),
    "SQUARE": _unary(lambda tf, x: tf.square(x)),
    "SQUARED_DIFFERENCE": _binary(lambda tf, x, y: tf.math.squared_difference(x, y)),
    "SUB": _binary(lambda tf, x, y: tf.subtract(x, y)),
    "SUM": _reduction("reduce_sum"),
    "TANH": _unary(lambda tf, x: tf.tanh(x)),
}
