"""What is to be pruned, as one writes it: `magnitude:0.8` or `channels:0.5`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class PruningKind(StrEnum):
    """The kinds of pruning.

    `magnitude` sets single weights to zero: the file compresses better on its way, and runs no faster.
    `channels` removes whole channels from the graph: the file is smaller and the model is faster.
    """

    MAGNITUDE = "magnitude"
    CHANNELS = "channels"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRequest:
    """One pruning.

    Attributes:
        ratio: the part that goes, above 0 and below 1: of each layer's weights, or of its channels.
    """

    kind: PruningKind
    ratio: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.ratio:g}"

    @classmethod
    def parse(cls, text: str) -> PruningRequest:
        """Return the request that `text` writes.

        Raises:
            ValueError: an unknown kind or a ratio out of range; says what was expected.
        """
        name, colon, number = text.partition(":")
        kinds = ", ".join(f"{kind}:RATIO" for kind in PruningKind)
        if name not in set(PruningKind) or not colon:
            raise ValueError(f"expected {kinds}, as channels:0.5")
        try:
            ratio = float(number)
        except ValueError:
            ratio = math.nan
        if not 0.0 < ratio < 1.0:
            raise ValueError("expected a ratio above 0 and below 1, as channels:0.5")
        return cls(kind=PruningKind(name), ratio=ratio)
