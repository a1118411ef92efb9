"""Blocks: a device's windows of both arms, folded until each arm has something to say.

In a split by calls both arms run on the same device at the same time, and chance alone decides which call
gets which. So the difference inside a block is that of the releases: heat, load and the hour of the day are
in both sides of it. Calls inside a block may depend on each other as they like: a block is one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeq.experiment.arm_counts import Part, Seen, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Both arms of one device over the same stretch of time."""

    device: str
    a: Part
    b: Part


def blocks(seen: Iterable[Seen], counted: Callable[[Part], int]) -> list[Block]:
    """Return the blocks in the order in which they became complete.

    Args:
        counted: how much a part has to say; a block ends as soon as both arms have something.
    """
    waiting: dict[str, dict[str, list[Part]]] = {}
    found = []
    for one in seen:
        sides = waiting.setdefault(one.device, {"a": [], "b": []})
        sides[one.arm].append(one.part)
        if all(any(counted(part) for part in parts) for parts in sides.values()):
            found.append(Block(device=one.device, a=total(sides["a"]), b=total(sides["b"])))
            del waiting[one.device]
    return found
