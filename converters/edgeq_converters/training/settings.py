"""The settings of a training job: what to prune, and the data and options that pruning and QAT share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Data and options of a training.

    Attributes:
        training: a .npz with samples `x` and labels `y`. None is refused with EQ220.
        validation: data of the same form to measure accuracy on; None holds out a fifth of the training data.
        epochs: None derives the number from the size of the data.
        distill: train towards the float model's outputs instead of labels.
        seed: of the held-out split, the shuffling and the initialization.
    """

    training: Path | None
    validation: Path | None = None
    epochs: int | None = None
    distill: bool = False
    seed: int = 0


class PruningKind(StrEnum):
    """The kinds of pruning.

    `magnitude` sets single weights to zero: the file compresses better and runs no faster.
    `channels` removes whole channels from the graph: the file is smaller and the model is faster.
    """

    MAGNITUDE = "magnitude"
    CHANNELS = "channels"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRequest:
    """A kind of pruning and its ratio, written `magnitude:0.8` or `channels:0.5`.

    Attributes:
        ratio: the part to remove, above 0 and below 1: of each layer's weights, or of its channels.
    """

    kind: PruningKind
    ratio: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.ratio:g}"

    @classmethod
    def parse(cls, text: str) -> PruningRequest:
        """Return the request written in `text`.

        Raises:
            ValueError: an unknown kind or a ratio out of range; the message says what was expected.
        """
        name, colon, number = text.partition(":")
        kinds = ", ".join(f"{kind}:RATIO" for kind in PruningKind)
        if name not in set(PruningKind) or not colon:
            raise ValueError(f"expected {kinds}, for example channels:0.5")
        try:
            ratio = float(number)
        except ValueError:
            ratio = math.nan
        if not 0.0 < ratio < 1.0:
            raise ValueError("expected a ratio above 0 and below 1, for example channels:0.5")
        return cls(kind=PruningKind(name), ratio=ratio)
