"""The state of a trace through a Keras graph: channels, cuts and settings that the layers' rules record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeq_converters.training.common.keras_graph import Call
from edgeq_converters.training.pruning.channels import (
    Channels,
    ChannelSet,
    Cut,
    Labels,
    Resize,
    Setting,
    SliceChange,
)

POINTWISE = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "sigmoid",
    "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink",
    "threshold", "tanh", "softplus", "softsign", "exponential", "mish", "log_sigmoid", "squareplus",
    "sparse_plus",
}  # fmt: skip
"""Activations that treat every value alone."""
_MIXING = {"softmax", "log_softmax", "sparsemax", "glu"}


class Unprunable(Exception):  # an answer of a rule, not an error
    """A layer through which channels cannot be followed; the message says why."""


class Tracer:
    """Records what the rules find.

    Args:
        choices: {name of a reshape: which of its axes carries the channels}, for those with a choice.
    """

    def __init__(self, choices: Mapping[str, int], heads: set[str]) -> None:
        self.channels = ChannelSet()
        self.cuts: dict[tuple[str, int, int], Cut] = {}
        self.resizes: dict[str, dict[str, Resize]] = {}
        self.slices: dict[int, SliceChange] = {}
        self.splits: dict[str, tuple[int, Channels]] = {}
        self.choices, self.heads = choices, heads
        self.rigid: set[str] = set()  # layers whose settings cannot follow

    def read(self, labels: Labels | None, call: Call, number: int = 0, axis: int = -1) -> Channels:
        """Return the channels along an axis of the call's input; those of another axis are fixed."""
        shape = call.inputs[number].shape
        axis %= len(shape)
        if labels is not None and labels.axis == axis:
            return labels.channels
        if labels is not None:
            self.fix(labels, call, "it works along another axis")
        return self.channels.new(sized(shape, axis), fixed=f"{call.name} reads channels that stay")

    def fix(self, labels: Labels | None, call: Call, why: str) -> None:
        """Keep these channels, because the call needs all of them."""
        if labels is not None:
            self.channels.fix(labels.channels, f"its channels reach {call.name} ({call.kind}): {why}")

    def cut(
        self,
        call: Call,
        variable: str,
        axis: int,
        channels: Channels,
        *,
        unit: str | None = None,
        reads: bool = False,
    ) -> None:
        """Let an axis of a weight follow these channels; a second call of a layer ties both."""
        held = [id(weight) for weight in call.layer.weights]
        for weight in call.operation.weights:
            if variable_name(weight, variable) == variable:
                index = held.index(id(weight))
                place = (call.name, index, axis % len(weight.shape))
                if place in self.cuts:
                    self.channels.tie(self.cuts[place].channels, channels)
                else:
                    self.cuts[place] = Cut(
                        layer=call.name,
                        index=index,
                        axis=place[2],
                        channels=channels,
                        unit=unit,
                        reads=reads,
                    )

    def resize(self, call: Call, key: str, value: Setting, *channels: Channels) -> None:
        """Let a setting of the layer follow these channels; a second call of a layer ties both."""
        known = self.resizes.setdefault(call.name, {})
        key = key if call.part is None else call.part.settings + key
        if key not in known:
            known[key] = Resize(key=key, value=value, channels=channels)
            return
        for one, other in zip(known[key].channels, channels, strict=True):
            self.channels.tie(one, other)

    def bar(self, call: Call, inputs: Sequence[Labels | None], why: str) -> list[Labels | None]:
        """Keep all channels around a call that cannot be followed, and return its outputs."""
        for labels in inputs:
            self.fix(labels, call, why)
        text = f"{call.name} ({call.kind}): {why}"
        for cut in self.cuts.values():
            if cut.layer == call.name:
                self.channels.fix(cut.channels, text)
        for resize in self.resizes.get(call.name, {}).values():
            for channels in resize.channels:
                self.channels.fix(channels, text)
        return [None for _ in call.outputs]

    def activated(self, call: Call, channels: Channels, axis: int = -1) -> Labels | None:
        """Return the labels of a layer's output behind its activation."""
        name = activation_of(call.operation)
        if name in POINTWISE:
            return Labels(axis=axis % len(call.outputs[0].shape), channels=channels)
        self.channels.fix(channels, why_mixed(name))
        return None


def why_mixed(activation: str) -> str:
    """Return why no channel in front of this activation can be removed."""
    if activation in _MIXING:
        return f"each value of its activation {activation} depends on several channels"
    return f"its activation {activation} is not known"


def variable_name(weight: Any, like: str) -> str:
    """Return the name of a weight, with that of its sublayer where `like` has one."""
    return "/".join(str(weight.path).split("/")[-1 - like.count("/") :])


def require_weights(call: Call, *names: str) -> None:
    """Check that a layer has no weights but these.

    Raises:
        Unprunable: it has others, as those of a quantized layer or of an adapter.
    """
    others = {
        str(weight.path)
        for weight in call.operation.weights
        if not any(variable_name(weight, name) == name for name in names)
    }
    if others:
        raise Unprunable(f"the weight {sorted(others)[0]} is not known")


def sized(shape: Sequence[int | None], axis: int) -> int:
    """Return the size of an axis.

    Raises:
        Unprunable: it is open.
    """
    size = shape[axis]
    if size is None:
        raise Unprunable("the size of its channel axis is open")
    return int(size)


def activation_of(layer: Any, key: str = "activation") -> str:
    """Return the name of a layer's activation, `linear` without one."""
    function = getattr(layer, key, None)
    return "linear" if function is None else str(getattr(function, "__name__", type(function).__name__))


def channel_axis(call: Call) -> int:
    """Return the axis of the channels of a layer with a `data_format`, counted from 0."""
    first = getattr(call.operation, "data_format", "channels_last") == "channels_first"
    return 1 if first else len(call.inputs[0].shape) - 1


def sizes_of(shape: Sequence[int | None]) -> tuple[int, ...]:
    """Return the sizes without the batch; an open size in front counts as one.

    Raises:
        Unprunable: another size is open.
    """
    sizes = [int(size) if size is not None else -1 for size in shape[1:]]
    if sizes and sizes[0] == -1:
        sizes[0] = 1
    if -1 in sizes:
        raise Unprunable("its shape is open")
    return tuple(sizes)


def expanded(labels: Labels, sizes: Sequence[int]) -> Any:
    """Return the channel of every value of a tensor without its batch."""
    shape = [1] * len(sizes)
    shape[labels.axis - 1] = -1
    return np.broadcast_to(labels.channels.reshape(shape), sizes)
