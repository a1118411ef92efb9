"""Which channels go: the least important part of each set of channels that the same layers make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.pruning.channel_flow import ChannelFlow
from edgeq_converters.training.pruning.channel_sets import Atoms


def groups(flow: ChannelFlow, makers: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Return {(layers): [tied channels that these layers make together and that may go]}.

    Two layers that are added share their channels; of a concatenation of two layers that is added to a third,
    each half is shared by another pair. Why a layer is in no group is added to `flow.left`.
    """
    by_root: dict[int, list[str]] = {}
    for name in makers:
        for root in dict.fromkeys(map(int, flow.atoms.roots(flow.gives[name]))):
            by_root.setdefault(root, []).append(name)
    found: dict[tuple[str, ...], list[int]] = {}
    for root, names in sorted(by_root.items()):
        if not flow.atoms.is_fixed(root):
            found.setdefault(tuple(names), []).append(root)
    found = {names: roots for names, roots in found.items() if len(roots) > 1}
    grouped = {name for names in found for name in names}
    for name in makers:
        if name not in grouped:
            flow.left.setdefault(name, "its channels are the model's output or feed what cannot be cut")
    return found


def choose(
    flow: ChannelFlow,
    makers: Sequence[str],
    importance: Mapping[str, npt.NDArray[np.float64]],
    ratio: float,
) -> set[int]:
    """Return the roots of the channels that go: `ratio` of each group, and never all of one.

    Args:
        makers: the layers that make channels, in the order of the graph.
        importance: {layer: one figure a channel}, comparable among layers.
    """
    gone: set[int] = set()
    for names, roots in groups(flow, makers).items():
        worth = dict.fromkeys(roots, 0.0)
        for name in names:
            for root, value in zip(flow.atoms.roots(flow.gives[name]), importance[name], strict=True):
                if int(root) in worth:
                    worth[int(root)] += float(value)
        # The number breaks ties, so that equal channels give the same choice on every machine.
        ranked = sorted(roots, key=lambda root: (worth[root], root))
        gone.update(ranked[: min(round(len(roots) * ratio), len(roots) - 1)])
    return gone


def kept(flow: ChannelFlow, atoms: Atoms, gone: set[int]) -> npt.NDArray[np.int64]:
    """Return the positions of `atoms` that stay."""
    return np.flatnonzero([int(root) not in gone for root in flow.atoms.roots(atoms)])
