"""Translations of the operations that move values: shapes, joints, parts, pads and lookups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq_converters.training.tflite.node import Node, Operation, fused, on_images


def _reshape(node: Node, value: Any, *_shape: Any) -> Any:
    return node.to_shape(value)


def _transpose(node: Node, value: Any, _order: Any) -> Any:
    import tensorflow as tf

    return tf.transpose(value, (0, *(axis % len(node.shapes[0]) + 1 for axis in node.integers(1))))


def _concatenate(node: Node, *values: Any) -> Any:
    import tensorflow as tf

    axis = node.axis(int(node.options.axis))
    return fused(node, tf.concat([node.every(value) for value in values], axis=axis))


def _pack(node: Node, *values: Any) -> Any:
    import tensorflow as tf

    axis = int(node.options.axis) % len(node.made[0]) + 1
    return tf.stack([node.every(value) for value in values], axis=axis)


def _unpack(node: Node, value: Any) -> Any:
    import tensorflow as tf

    return tf.unstack(value, axis=node.axis(int(node.options.axis)))


def _split(node: Node, _axis: Any, value: Any) -> Any:
    import tensorflow as tf

    return tf.split(value, len(node.made), axis=node.axis(node.integers(0)[0], 1))


def _split_by_size(node: Node, value: Any, _sizes: Any, _axis: Any) -> Any:
    import tensorflow as tf

    axis = node.axis(node.integers(2)[0])
    return tf.split(value, [shape[axis - 1] for shape in node.made], axis=axis)


def _slice(node: Node, value: Any, _begin: Any, _size: Any) -> Any:
    import tensorflow as tf

    return tf.slice(value, (0, *node.integers(1)), (-1, *node.made[0]))


def _strided_slice(node: Node, value: Any, *_where: Any) -> Any:
    import tensorflow as tf

    options = node.options
    return tf.strided_slice(
        value,
        (0, *node.integers(1)),
        (0, *node.integers(2)),
        (1, *node.integers(3)),
        begin_mask=int(options.beginMask) << 1 | 1,
        end_mask=int(options.endMask) << 1 | 1,
        ellipsis_mask=int(options.ellipsisMask) << 1,
        new_axis_mask=int(options.newAxisMask) << 1,
        shrink_axis_mask=int(options.shrinkAxisMask) << 1,
    )


def _pad(node: Node, value: Any, _pads: Any, filler: Any = None) -> Any:
    import tensorflow as tf

    number = 0 if filler is None else tf.reshape(filler[0], ())
    return tf.pad(value, [[0, 0], *node.static(1).tolist()], constant_values=number)


def _mirror(node: Node, value: Any, _pads: Any) -> Any:
    import tensorflow as tf

    return tf.pad(value, [[0, 0], *node.static(1).tolist()], "SYMMETRIC" if node.options.mode else "REFLECT")


def _gather(node: Node, values: Any, indices: Any) -> Any:
    import tensorflow as tf

    options = node.options
    axis, batches = int(options.axis) % len(node.shapes[0]), int(getattr(options, "batchDims", 0) or 0)
    if indices.shape[0] == 1 and not batches:  # the same places of every sample
        return tf.gather(values, indices[0], axis=axis + 1)
    if values.shape[0] == 1 and axis == 0:  # a table of constants
        return tf.gather(values[0], indices)
    return tf.gather(node.every(values), node.every(indices), axis=axis + 1, batch_dims=batches + 1)


def _gather_nd(node: Node, values: Any, indices: Any) -> Any:
    import tensorflow as tf

    return tf.gather_nd(node.every(values), node.every(indices), batch_dims=1)


def _one_hot(node: Node, indices: Any, _depth: Any, _on: Any, _off: Any) -> Any:
    import tensorflow as tf

    axis = int(node.options.axis)
    on, off = (node.static(position).ravel()[0] for position in (2, 3))
    return tf.one_hot(indices, node.integers(1)[0], on, off, axis=axis if axis < 0 else axis + 1)


def _tile(node: Node, value: Any, _times: Any) -> Any:
    import tensorflow as tf

    return tf.tile(value, (1, *node.integers(1)))


def _broadcast(node: Node, value: Any, _shape: Any) -> Any:
    import tensorflow as tf

    missing = len(node.made[0]) + 1 - len(value.shape)
    value = tf.reshape(value, (tf.shape(value)[0], *[1] * missing, *value.shape[1:]))
    return tf.broadcast_to(value, (tf.shape(value)[0], *node.made[0]))


def _reverse(node: Node, value: Any, _axes: Any) -> Any:
    import tensorflow as tf

    return tf.reverse(value, [node.axis(axis) for axis in node.integers(1)])


def _depths(name: str) -> Operation:
    def translated(node: Node, value: Any) -> Any:
        import tensorflow as tf

        block = int(node.options.blockSize)
        return on_images(value, lambda images: getattr(tf.nn, name)(images, block))

    return translated


def _resize(name: str) -> Operation:
    def translated(node: Node, value: Any, _size: Any) -> Any:
        import tensorflow as tf

        options = node.options
        resize = getattr(tf.raw_ops, name)
        return on_images(
            value,
            lambda images: resize(
                images=images,
                size=node.made[0][1:3],
                align_corners=bool(options.alignCorners),
                half_pixel_centers=bool(options.halfPixelCenters),
            ),
        )

    return translated


MOVING: Mapping[str, Operation] = {
    "BROADCAST_TO": _broadcast,
    "CONCATENATION": _concatenate,
    "DEPTH_TO_SPACE": _depths("depth_to_space"),
    "EXPAND_DIMS": _reshape,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "MIRROR_PAD": _mirror,
    "ONE_HOT": _one_hot,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("ResizeBilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("ResizeNearestNeighbor"),
    "REVERSE_V2": _reverse,
    "SLICE": _slice,
    "SPACE_TO_DEPTH": _depths("space_to_depth"),
    "SPLIT": _split,
    "SPLIT_V": _split_by_size,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
