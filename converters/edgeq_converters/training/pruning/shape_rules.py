"""Rules for layers without weights: pointwise functions, sums of tensors, and moves of axes and values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeq_converters.training.common.keras_graph import Call
from edgeq_converters.training.pruning.channels import Channels, Labels, SliceChange
from edgeq_converters.training.pruning.tracer import (
    POINTWISE,
    Tracer,
    Unprunable,
    activation_of,
    expanded,
    sized,
    sizes_of,
    why_mixed,
)
from edgeq_converters.training.pruning.weight_rules import Flow, Rule

_SCALED = (
    "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization", "Identity",
    "Rescaling",
)  # fmt: skip
_FUNCTIONS = (
    "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu",
    "HardSwish", "HardTanh", "HardShrink", "SoftShrink", "TanhShrink", "Threshold", "Tanh", "Softplus",
    "Softsign", "LogSigmoid", "Mish", "Squareplus", "SparsePlus", "Absolute", "Abs", "Negative", "Sqrt",
    "Rsqrt", "Square", "Exp", "Log", "Log1p", "Expm1", "Clip", "Cast", "Erf", "Sin", "Cos", "Sign", "Floor",
    "Ceil", "Round", "Reciprocal", "StopGradient",
)  # fmt: skip
_MERGES = (
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Divide", "TrueDivide", "Power",
    "SquaredDifference", "Mod", "DivideNoNan",
)  # fmt: skip


def pointwise(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a function of every value alone."""
    layer, labels = call.operation, inputs[0]
    if labels is None:
        return [None]
    if call.kind == "Activation" and (name := activation_of(layer)) not in POINTWISE:
        if name != "softmax":
            raise Unprunable(why_mixed(name))
        return softmax(trace, call, inputs)
    if call.kind in {"Dropout", "AlphaDropout"} and getattr(layer, "noise_shape", None) is not None:
        raise Unprunable("the shape of its noise is fixed")
    limits = {"Rescaling": ("scale", "offset"), "Clip": ("x_min", "x_max")}.get(call.kind, ())
    if any(np.ndim(getattr(layer, name)) for name in limits):
        raise Unprunable("it has a constant for each channel")
    if len(call.outputs[0].shape) != len(call.inputs[0].shape) or len(inputs) != 1:
        raise Unprunable("it has more than one tensor")
    return [labels]


def softmax(_trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a softmax: each output depends on the values along its axes."""
    labels = inputs[0]
    axes = np.atleast_1d(getattr(call.operation, "axis", -1)).astype(int)
    if labels is not None and labels.axis in {int(axis) % len(call.inputs[0].shape) for axis in axes}:
        raise Unprunable("each of its outputs depends on all channels")
    return [labels]


def merge(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a function of several tensors that are broadcast to one shape: their channels are tied."""
    rank = len(call.outputs[0].shape)
    labelled = [labels for labels in inputs if labels is not None]
    if not labelled:
        return [None]
    # Of two axes one is followed: that of the tensor with the most channels.
    first = max(labelled, key=lambda labels: len(labels.channels))
    place = first.axis - _rank_of(call, inputs, first)
    _require_constants_broadcast(call, place)
    size = len(first.channels)
    if call.outputs[0].shape[place] != size:
        raise Unprunable("its channels are broadcast")
    for number, labels in enumerate(inputs):
        shape = call.inputs[number].shape
        wide = -place <= len(shape) and shape[place] == size
        if labels is not None and labels.axis - len(shape) == place and wide:
            trace.channels.tie(first.channels, labels.channels)
        else:
            trace.fix(labels, call, "its channels are broadcast")
            if wide and size > 1:
                trace.fix(first, call, "it merges them with channels that stay")
    return [Labels(axis=rank + place, channels=first.channels)]


def _rank_of(call: Call, inputs: Flow, labels: Labels) -> int:
    return next(len(symbol.shape) for symbol, each in zip(call.inputs, inputs, strict=True) if each is labels)


def _require_constants_broadcast(call: Call, place: int) -> None:
    import keras

    arguments = call.node.arguments
    known = {id(symbol) for symbol in call.inputs}
    for value in (*arguments.args, *arguments.kwargs.values()):
        if any(id(each) in known for each in keras.tree.flatten(value)):
            continue
        shape = np.shape(value)
        if -place <= len(shape) and shape[place] != 1:
            raise Unprunable("it has a constant for each channel")


def flatten(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a Flatten, after which each channel has several positions."""
    labels, shape = inputs[0], call.inputs[0].shape
    if labels is None:
        return [None]
    if getattr(call.operation, "data_format", "channels_last") == "channels_first" and len(shape) > 2:
        raise Unprunable("it moves the channels to the end first")
    if None in shape[1:]:
        raise Unprunable("its shape is open")
    return [Labels(axis=1, channels=expanded(labels, sizes_of(shape)).ravel())]


def reshape(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a reshape. Where it splits the channels in two axes, one of these carries them."""
    labels, before, after = inputs[0], call.inputs[0].shape, call.outputs[0].shape
    if labels is None or call.name in trace.rigid:
        trace.rigid.add(call.name)
        return trace.bar(call, inputs, "its shape stays the same")
    if np.prod(sizes_of(before)) != np.prod(sizes_of(after)):
        raise Unprunable("its shape is open")
    grid = expanded(labels, sizes_of(before)).reshape(sizes_of(after))
    axis, channels = _exact(grid) or _tied(trace, call, grid)
    _resize_target(trace, call, axis, channels)
    return [Labels(axis=axis + 1, channels=channels)]


def _exact(grid: Any) -> tuple[int, Channels] | None:
    """Return the only axis along which the channels differ."""
    for axis, size in enumerate(grid.shape):
        rows = np.moveaxis(grid, axis, 0).reshape(size, -1)
        if (rows == rows[:, :1]).all():
            return axis, rows[:, 0]
    return None


def _tied(trace: Tracer, call: Call, grid: Any) -> tuple[int, Channels]:
    axes = [axis for axis, size in enumerate(grid.shape) if size > 1 and _varies(grid, axis)]
    # Heads are an axis in front of the values of each; other splits keep the most channels.
    order = list(reversed(axes)) if call.name not in trace.heads else list(reversed(axes))[1:] + axes[-1:]
    axis = order[trace.choices.get(call.name, 0) % len(order)]
    rows = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
    channels = rows[:, 0].copy()
    for row in rows:
        different = np.unique(row)
        trace.channels.tie(np.full(len(different), row[0]), different)
    trace.splits[call.name] = (len(order), channels)
    return axis, channels


def _varies(grid: Any, axis: int) -> bool:
    rows = np.moveaxis(grid, axis, 0)
    return bool((rows != rows[:1]).any())


def _resize_target(trace: Tracer, call: Call, axis: int, channels: Channels) -> None:
    sizes = tuple(-1 if size is None else int(size) for size in call.outputs[0].shape[1:])
    front: tuple[int, ...] = ()
    if call.kind == "Reshape" and hasattr(call.operation, "newshape"):  # an operation; the other is a layer
        key = "newshape"
        if -1 in sizes:  # the batch is inferred already
            raise Unprunable("its shape is open")
        front = (-1,)
    else:
        key = "target_shape"
    trace.resize(
        call,
        key,
        lambda count: front + tuple(count(channels) if i == axis else size for i, size in enumerate(sizes)),
        channels,
    )


def permute(_trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a Permute."""
    dims = (0, *(int(axis) for axis in call.operation.dims))
    return [_moved(inputs[0], dims)]


def transpose(_trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a transpose."""
    rank = len(call.inputs[0].shape)
    axes = call.operation.axes
    order = tuple(range(rank))[::-1] if axes is None else tuple(int(axis) % rank for axis in axes)
    return [_moved(inputs[0], order)]


def swapaxes(_trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a swap of two axes."""
    order = list(range(len(call.inputs[0].shape)))
    one, other = int(call.operation.axis1), int(call.operation.axis2)
    order[one], order[other] = order[other], order[one]
    return [_moved(inputs[0], order)]


def _moved(labels: Labels | None, order: Iterable[int]) -> Labels | None:
    if labels is None:
        return None
    order = list(order)
    if order[0] != 0:
        raise Unprunable("it moves the batch")
    return Labels(axis=order.index(labels.axis), channels=labels.channels)


def repeat_vector(_trace: Tracer, _call: Call, inputs: Flow) -> Flow:
    """Follow a RepeatVector, which puts an axis in front of the channels."""
    return [None if inputs[0] is None else Labels(axis=2, channels=inputs[0].channels)]


def expand_dims(_trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow new axes of size one."""
    labels, rank = inputs[0], len(call.outputs[0].shape)
    if labels is None:
        return [None]
    new = {int(axis) % rank for axis in np.atleast_1d(call.operation.axis)}
    old = [axis for axis in range(rank) if axis not in new]
    if 0 in new:
        raise Unprunable("it moves the batch")
    return [Labels(axis=old[labels.axis], channels=labels.channels)]


def reduce(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a mean, sum or extreme over axes, or a squeeze of axes of size one."""
    labels, rank = inputs[0], len(call.inputs[0].shape)
    if labels is None:
        return [None]
    axis = call.operation.axis
    if axis is None and call.kind == "Squeeze":
        gone = {i for i, size in enumerate(call.inputs[0].shape) if size == 1}
    elif axis is None:
        gone = set(range(rank))
    else:
        gone = {int(each) % rank for each in np.atleast_1d(axis)}
    if labels.axis in gone:
        raise Unprunable("it reduces the channels to one value")
    if 0 in gone:
        raise Unprunable("it reduces the batch")
    if getattr(call.operation, "keepdims", False):
        return [labels]
    return [Labels(axis=labels.axis - sum(each < labels.axis for each in gone), channels=labels.channels)]


def concatenate(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a concatenation along the channels, or along another axis, which ties them."""
    rank = len(call.outputs[0].shape)
    axis = int(call.operation.axis) % rank
    if not any(labels is not None for labels in inputs):
        return [None]
    if any(labels is not None and labels.axis != axis for labels in inputs):
        return _side_by_side(trace, call, inputs)
    parts = [trace.read(labels, call, number, axis) for number, labels in enumerate(inputs)]
    if sum(map(len, parts)) != sized(call.outputs[0].shape, axis):
        raise Unprunable("it also joins a constant")
    return [Labels(axis=axis, channels=np.concatenate(parts))]


def _side_by_side(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    first = next(labels for labels in inputs if labels is not None and _joins(call, labels))
    for number, labels in enumerate(inputs):
        if labels is not None and labels.axis != first.axis:
            trace.fix(labels, call, "it joins tensors along another axis")
        same = labels if labels is not None and labels.axis == first.axis else None
        trace.channels.tie(first.channels, trace.read(same, call, number, first.axis))
    return [first]


def _joins(call: Call, labels: Labels) -> bool:
    return labels.axis != int(call.operation.axis) % len(call.outputs[0].shape)


def stack(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a stack of tensors along a new axis: their channels are tied."""
    first = next((labels for labels in inputs if labels is not None), None)
    if first is None:
        return [None]
    axis = int(call.operation.axis) % len(call.outputs[0].shape)
    if axis == 0:
        raise Unprunable("it moves the batch")
    if len(inputs) != call.outputs[0].shape[axis]:
        raise Unprunable("it also joins a constant")
    for number, labels in enumerate(inputs):
        trace.channels.tie(first.channels, trace.read(labels, call, number, first.axis))
    return [Labels(axis=first.axis + (axis <= first.axis), channels=first.channels)]


def split(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a split along the channels, or along another axis."""
    labels, layer = inputs[0], call.operation
    if labels is None or labels.axis != int(layer.axis) % len(call.inputs[0].shape):
        return [labels for _ in call.outputs]
    sizes = [sized(symbol.shape, labels.axis) for symbol in call.outputs]
    ends = np.cumsum(sizes)[:-1]
    parts = np.split(labels.channels, ends)
    before = [labels.channels[:end] for end in ends]
    trace.resize(
        call, "indices_or_sections", lambda count: [count(part) for part in before], labels.channels, *parts
    )
    return [Labels(axis=labels.axis, channels=part) for part in parts]


def get_item(trace: Tracer, call: Call, inputs: Flow) -> Flow:
    """Follow a slice of a tensor."""
    labels, rank = inputs[0], len(call.inputs[0].shape)
    if labels is None:
        return [None]
    if len(inputs) != 1:
        raise Unprunable("its indices are a tensor")
    arguments = call.node.arguments
    given = arguments.args[1] if len(arguments.args) > 1 else arguments.kwargs["key"]
    key = _full_key(given, rank)
    if not isinstance(key[0], slice):
        raise Unprunable("it moves the batch")
    place, axis, after = 0, 0, 0
    for number, part in enumerate(key):
        if part is None:
            after += 1
            continue
        if axis == labels.axis:
            place = number
            break
        axis += 1
        after += isinstance(part, slice)
    part = key[place]
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise Unprunable("it takes single channels")
    start, stop, _ = part.indices(len(labels.channels))
    chosen = labels.channels[start:stop]
    if len(chosen) != len(labels.channels):
        trace.slices[id(call.node)] = SliceChange(
            place=place, key=key, before=labels.channels[:start], channels=chosen
        )
    return [Labels(axis=after, channels=chosen)]


def _full_key(given: Any, rank: int) -> tuple[Any, ...]:
    key = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if not all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in key):
        raise Unprunable("its indices are an array")
    taken = sum(part is not None and part is not Ellipsis for part in key)
    rest = (slice(None),) * (rank - taken)
    if Ellipsis not in key:
        return (*key, *rest)
    at = key.index(Ellipsis)
    return (*key[:at], *rest, *key[at + 1 :])


RULES: dict[str, Rule] = {
    **dict.fromkeys((*_SCALED, *_FUNCTIONS), pointwise),
    **dict.fromkeys(_MERGES, merge),
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Flatten": flatten,
    "Reshape": reshape,
    "Permute": permute,
    "Transpose": transpose,
    "Swapaxes": swapaxes,
    "SwapAxes": swapaxes,
    "RepeatVector": repeat_vector,
    "ExpandDims": expand_dims,
    **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Var", "Std", "Squeeze"), reduce),
    "Concatenate": concatenate,
    "Stack": stack,
    "Split": split,
    "GetItem": get_item,
}
"""{class of Keras: its rule}"""
