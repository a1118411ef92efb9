"""Score outputs on samples that training does not see."""

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
_STEP = 1 / 512  # half a step of an int8 probability; smaller values round to zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The quality of outputs.

    Attributes:
        share: of the samples with the right class, 0..1; without labels the float model's class counts as
            right; 0 for a model without classes.
        loss: cross-entropy against the label, or the distance to the float model's outputs.
    """

    share: float
    loss: float

    def __str__(self) -> str:
        return f"{self.share:.4f} right, loss {self.loss:.4f}"

    def beats(self, other: Score) -> bool:
        """Return whether this score is better: more right classes, or as many with a lower loss."""
        return (self.share, -self.loss) > (other.share, -other.loss)

    def is_worse(self, other: Score) -> bool:
        """Return whether fewer classes are right; for a model without classes, whether the loss is higher."""
        if self.share == other.share == 0:
            return self.loss > other.loss
        return self.share < other.share


def no_gain(
    seen: tuple[Score, Score], unseen: tuple[Score, Score], selection: int, held_out: int
) -> tuple[str, ...]:
    """Return why the file before tuning is kept; empty where the tuned one is better.

    Args:
        seen: (before, after) on the samples reserved for the selection of the epoch.
        unseen: (before, after) on the held-out samples.
    """
    if not seen[1].beats(seen[0]):
        (before, after), what = seen, f"{selection} training samples reserved for this comparison"
    elif unseen[1].is_worse(unseen[0]):
        (before, after), what = unseen, f"{held_out} held-out samples"
    else:
        return ()
    return (
        f"tuning did not help on the {what} (integer file after tuning: {after}; before: {before}): the "
        "model is unchanged, and the recipe is that of a plain conversion",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores outputs on a fixed set of samples.

    Attributes:
        reference: the float model's outputs.
        by_labels: whether the labels define the right class; otherwise the float model's class does.
    """

    data: LabelledData
    reference: Sequence[Array]
    head: Head
    by_labels: bool

    def score(self, outputs: Sequence[Array]) -> Score:
        """Return the score of real-valued outputs."""
        if self.head is Head.VALUES:
            return Score(share=0.0, loss=_distance(outputs, self.reference))
        probabilities = self._probabilities(outputs[0])
        if self.by_labels and self.data.labels is not None:
            right, target = self.data.labels, np.eye(probabilities.shape[1])[self.data.labels]
        else:
            target = self._probabilities(self.reference[0])
            right = target.argmax(axis=-1)
        loss = -(target * np.log(probabilities)).sum(axis=-1).mean()
        return Score(share=float(np.mean(probabilities.argmax(axis=-1) == right)), loss=float(loss))

    def _probabilities(self, scores: Array) -> Array:
        values = np.asarray(scores, np.float64)
        if self.head is Head.LOGITS:
            values = softmax(values)
        return np.clip(values, _STEP, 1.0)


def _distance(outputs: Sequence[Array], reference: Sequence[Array]) -> float:
    parts = [
        np.square(out - ref).mean() / (np.square(ref).mean() + 1e-6)
        for out, ref in zip(outputs, reference, strict=True)
    ]
    return float(np.sum(parts))


def split_for_selection(data: LabelledData, *, seed: int) -> tuple[LabelledData, LabelledData]:
    """Return (samples to train on, samples to select the epoch on), by the seed.

    A small data set serves as both.
    """
    count = min(int(len(data) * _SHARE), _MOST)
    if count < _FEWEST:
        return data, data
    order = np.random.default_rng((seed, 1)).permutation(len(data))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))
