"""The settings of a training job: what to prune, and the data and options that pruning and QAT share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgeq_converters.training.loss_source import LossSource


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Data and options of a training.

    Attributes:
        training: a .npz with samples `x` and labels `y`. None is refused with EQ220.
        validation: data of the same form to measure accuracy on; None holds out a fifth of the training data.
        epochs: None derives the number from the size of the data.
        distill: train towards the float model's outputs instead of labels.
        loss: of the user's; None is the cross-entropy of a classifier.
        seed: of the held-out split, the shuffling and the initialization.
    """

    training: Path | None
    validation: Path | None = None
    epochs: int | None = None
    distill: bool = False
    loss: LossSource | None = None
    seed: int = 0


class PruningKind(StrEnum):
    """The kinds of pruning.

    `magnitude` sets single weights to zero: the file compresses better and runs no faster.
    `channels` removes whole channels from the graph: the file is smaller and the model is faster.
    """

    MAGNITUDE = "magnitude"
    CHANNELS = "channels"


class Criterion(StrEnum):
    """How the importance of a channel is measured: by the weights that make it, or by all coupled with it."""

    L1 = "l1"
    L2 = "l2"
    GROUP = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRequest:
    """A kind of pruning, its ratio and its options, written `magnitude:0.8` or `channels:0.5,heads=0.25`.

    Attributes:
        ratio: the part to remove, above 0 and below 1: of each layer's weights, or of its channels.
        heads: the part of the attention heads to remove, from 0 and below 1; None is the ratio.
        criterion: by which channels are chosen, written `by=group`.
        rounds: of pruning and re-tuning; each removes the same part of what the one before left.
        lasso: weight of the group lasso that each round trains with before it prunes; 0 trains without.
    """

    kind: PruningKind
    ratio: float
    heads: float | None = None
    criterion: Criterion = Criterion.L1
    rounds: int = 1
    lasso: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.kind}:{self.ratio:g}"]
        if self.heads is not None:
            parts.append(f"heads={self.heads:g}")
        if self.criterion is not Criterion.L1:
            parts.append(f"by={self.criterion}")
        if self.rounds != 1:
            parts.append(f"rounds={self.rounds}")
        if self.lasso:
            parts.append(f"lasso={self.lasso:g}")
        return ",".join(parts)

    @property
    def trainings(self) -> int:
        """How often the model is trained: with a lasso twice for each round, before and after its pruning."""
        return self.rounds * (2 if self.lasso else 1)

    @classmethod
    def parse(cls, text: str) -> PruningRequest:
        """Return the request written in `text`.

        Raises:
            ValueError: an unknown kind or option, or a value out of range; the message says what was
                expected.
        """
        first, *options = text.split(",")
        name, colon, number = first.partition(":")
        kinds = ", ".join(f"{kind}:RATIO" for kind in PruningKind)
        if name not in set(PruningKind) or not colon:
            raise ValueError(f"expected {kinds}, for example channels:0.5")
        ratio = _number(number)
        if not 0.0 < ratio < 1.0:
            raise ValueError("expected a ratio above 0 and below 1, for example channels:0.5")
        kind, given = PruningKind(name), dict.fromkeys(_OPTIONS, "")
        for option in options:
            key, _, value = option.partition("=")
            if kind is not PruningKind.CHANNELS or key not in given or not value or given[key]:
                known = ", ".join(f"{each}=" for each in _OPTIONS)
                raise ValueError(f"expected {known} behind channels:0.5, each at most once")
            given[key] = value
        return cls(
            kind=kind,
            ratio=ratio,
            heads=_heads(given["heads"]),
            criterion=_criterion(given["by"]),
            rounds=_rounds(given["rounds"]),
            lasso=_lasso(given["lasso"]),
        )


_OPTIONS = ("heads", "by", "rounds", "lasso")
_MOST_ROUNDS = 100


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _heads(text: str) -> float | None:
    if not text:
        return None
    share = _number(text)
    if not 0.0 <= share < 1.0:
        raise ValueError("heads: expected a ratio from 0 and below 1, for example channels:0.5,heads=0.25")
    return share


def _criterion(text: str) -> Criterion:
    if text and text not in set(Criterion):
        raise ValueError(f"by: expected one of {', '.join(Criterion)}, for example channels:0.5,by=group")
    return Criterion(text or Criterion.L1)


def _rounds(text: str) -> int:
    if not text:
        return 1
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= _MOST_ROUNDS:
        raise ValueError(f"rounds: expected 1 to {_MOST_ROUNDS}, for example channels:0.5,rounds=3")
    return int(text)


def _lasso(text: str) -> float:
    weight = _number(text or "0")
    if not 0.0 <= weight < math.inf:
        raise ValueError("lasso: expected a weight from 0, for example channels:0.5,lasso=0.1")
    return weight
