"""Channels: numbers for the positions of tensors' axes, tied in groups that stay or go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Channels = npt.NDArray[np.int64]
"""For each position of an axis, the number of the channel at that position."""
Rows = npt.NDArray[np.int64]


class ChannelSet:
    """A union-find over channels; fixed channels can never be removed."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: dict[int, str] = {}

    def new(self, count: int, *, fixed: str | None = None) -> Channels:
        """Return `count` new channels, fixed where a reason is given."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        channels = np.arange(first, first + count, dtype=np.int64)
        if fixed is not None:
            self.fix(channels, fixed)
        return channels

    def root(self, channel: int) -> int:
        """Return the number that represents all channels tied to this one."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def roots(self, channels: Channels) -> Channels:
        """Return the root of each channel."""
        return np.array([self.root(int(channel)) for channel in channels], np.int64)

    def tie(self, one: Channels, other: Channels) -> None:
        """Tie the channels of two axes position by position: each pair stays or goes together."""
        for left, right in zip(one, other, strict=True):
            a, b = sorted((self.root(int(left)), self.root(int(right))))
            self._parent[b] = a
            if b in self._fixed and a != b:
                reason = self._fixed.pop(b)
                self._fixed.setdefault(a, reason)

    def fix(self, channels: Channels, reason: str) -> None:
        """Exclude these channels from pruning; the first reason is kept."""
        for root in self.roots(channels):
            self._fixed.setdefault(int(root), reason)

    def is_fixed(self, root: int) -> bool:
        """Return whether the channel must stay."""
        return root in self._fixed

    def reason(self, root: int) -> str | None:
        """Return why the channel must stay; None where it may go."""
        return self._fixed.get(root)

    def remaining(self, channels: Channels, removed: set[int]) -> Rows:
        """Return the positions whose channel stays, given the roots that are removed."""
        return np.flatnonzero([int(root) not in removed for root in self.roots(channels)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """The channels along one axis of a tensor.

    Attributes:
        axis: counted from 0, which is the batch.
        channels: one for each position of the axis.
    """

    axis: int
    channels: Channels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """An axis of a weight that shrinks with its channels.

    Attributes:
        layer: the layer's name.
        index: of the variable in the layer's `weights`.
        axis: of the variable, counted from 0.
        channels: one for each position of the axis.
        unit: what makes these channels, `conv1` or `attention heads`; None where the weight does not make
            them.
        reads: whether the axis is summed over, so that zeros there take the channel's influence away.
    """

    layer: str
    index: int
    axis: int
    channels: Channels
    unit: str | None = None
    reads: bool = False


Count = Callable[[Channels], int]
"""Channels -> how many of them stay."""
Setting = Callable[[Count], Any]
"""How many channels stay -> the new value of a setting in a layer's configuration."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resize:
    """A setting of a layer that follows the number of its channels.

    Attributes:
        key: in the layer's configuration; `layer/config/units` is a setting of an inner layer.
        channels: what the value depends on; two calls of one layer tie them.
    """

    key: str
    value: Setting
    channels: tuple[Channels, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceChange:
    """A slice of a tensor along its channels.

    Attributes:
        place: of the slice in the key.
        key: as the model has it, without an ellipsis.
        before: the channels in front of the slice.
        channels: those that the slice takes.
    """

    place: int
    key: tuple[Any, ...]
    before: Channels
    channels: Channels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelGraph:
    """The coupled channels of a model (the dependency graph of Fang et al., arXiv 2301.12900).

    Attributes:
        cuts: every axis of a weight that shrinks with channels.
        resizes: {layer: its settings that follow}.
        slices: {id of Keras' record of a call: the slice}.
        unpruned: {layer: why pruning does not reach its weights}, in graph order.
    """

    channels: ChannelSet
    cuts: tuple[Cut, ...]
    resizes: dict[str, tuple[Resize, ...]]
    slices: dict[int, SliceChange]
    unpruned: dict[str, str]

    def units(self) -> dict[str, Channels]:
        """Return {what makes channels: the channels}, in graph order."""
        made: dict[str, Channels] = {}
        for cut in self.cuts:
            # The gates of a recurrent layer repeat its units.
            if cut.unit is not None and len(cut.channels) <= len(made.get(cut.unit, cut.channels)):
                made[cut.unit] = cut.channels
        return made

    def never_empty(self) -> list[Channels]:
        """Return the axes that need at least one channel each."""
        sliced = [change.channels for change in self.slices.values()]
        resized = [
            channels for each in self.resizes.values() for resize in each for channels in resize.channels
        ]
        return [*(cut.channels for cut in self.cuts), *sliced, *resized]
