"""Judging what training gave: on samples that it does not see, in the outputs of the integer file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.metrics import softmax
from edgeq_converters.training.common.heads import Head
from edgeq_converters.training.common.training_data import LabelledData

Array = npt.NDArray[Any]
_SHARE, _MOST, _FEWEST = 0.15, 1000, 16
_STEP = 1 / 512  # half a step of an int8 probability: what is below is not told apart from zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good outputs are.

    Attributes:
        share: of the samples whose class is right; without labels, the float model's; zero without classes.
        loss: cross-entropy towards the label, or the distance to the float model's outputs.
    """

    share: float
    loss: float

    def __str__(self) -> str:
        return f"{self.share:.4f} right, loss {self.loss:.4f}"

    def beats(self, other: Score) -> bool:
        """Return whether this is better: more classes are right, or as many with a lower loss."""
        return (self.share, -self.loss) > (other.share, -other.loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Scores outputs on its samples.

    Attributes:
        wanted: the float model's outputs.
        by_labels: whether the labels say what is right; else the float model does.
    """

    data: LabelledData
    wanted: Sequence[Array]
    head: Head
    by_labels: bool

    def score(self, outputs: Sequence[Array]) -> Score:
        """Return the score of outputs, which are real values."""
        if self.head is Head.VALUES:
            return Score(share=0.0, loss=_distance(outputs, self.wanted))
        probable = self._probable(outputs[0])
        if self.by_labels and self.data.labels is not None:
            right, target = self.data.labels, np.eye(probable.shape[1])[self.data.labels]
        else:
            target = self._probable(self.wanted[0])
            right = target.argmax(axis=-1)
        loss = -(target * np.log(probable)).sum(axis=-1).mean()
        return Score(share=float(np.mean(probable.argmax(axis=-1) == right)), loss=float(loss))

    def _probable(self, scores: Array) -> Array:
        values = np.asarray(scores, np.float64)
        if self.head is Head.LOGITS:
            values = softmax(values)
        return np.clip(values, _STEP, 1.0)


def _distance(outputs: Sequence[Array], wanted: Sequence[Array]) -> float:
    parts = [
        np.square(out - want).mean() / (np.square(want).mean() + 1e-6)
        for out, want in zip(outputs, wanted, strict=True)
    ]
    return float(np.sum(parts))


def spared(data: LabelledData, *, seed: int) -> tuple[LabelledData, LabelledData]:
    """Return (samples to train on, samples to choose by), by the seed; few samples serve as both."""
    count = min(int(len(data) * _SHARE), _MOST)
    if count < _FEWEST:
        return data, data
    order = np.random.default_rng((seed, 1)).permutation(len(data))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))
