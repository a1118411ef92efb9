"""Score outputs on samples that training does not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.agreement import Agreement, compare
from edgeq_converters.metrics import slices_axis, softmax
from edgeq_converters.training.common.custom_loss import CustomLoss
from edgeq_converters.training.common.heads import Head
from edgeq_converters.training.common.training_data import LabelledData, divided

Array = npt.NDArray[Any]
_SHARE, _MOST, _FEWEST = 0.15, 1000, 16
_DOUBT = 1.645
_DEAD = 1e-12  # power of a slice, as a share of the output's, below which it holds only rounding errors
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
        right = f"{self.share:.4f} right, " if self.share else ""
        return f"{right}loss {self.loss:.4g}"

    def beats(self, other: Score) -> bool:
        """Return whether this score is better: more right classes, or as many with a lower loss."""
        return (self.share, -self.loss) > (other.share, -other.loss)

    def is_worse(self, other: Score) -> bool:
        """Return whether fewer classes are right; for a model without classes, whether the loss is higher."""
        if self.share == other.share == 0:
            return self.loss > other.loss
        return self.share < other.share


def no_gain(
    seen: tuple[Score, Score],
    unseen: tuple[Score, Score],
    selection: int,
    held_out: int,
    *,
    doubtful: bool = False,
) -> tuple[str, ...]:
    """Return why the file before tuning is kept; empty where the tuned one is better.

    Args:
        seen: (before, after) on the samples reserved for the selection of the epoch.
        unseen: (before, after) on the held-out samples.
        doubtful: whether the gain on the reserved samples may be chance.
    """
    if doubtful or not seen[1].beats(seen[0]):
        (before, after), what = seen, f"{selection} training samples reserved for this comparison"
    elif unseen[1].is_worse(unseen[0]):
        (before, after), what = unseen, f"{held_out} held-out samples"
    else:
        return ()
    return (
        f"tuning did not help on the {what} (integer file after tuning: {after}; before: {before}): the "
        "model is unchanged, and the recipe is that of a plain conversion",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleScores:
    """The quality of outputs sample by sample, to compare two models on the same samples.

    Attributes:
        right: whether each sample has the right class, as 0 or 1; all 0 for a model without classes.
        loss: of each sample.
    """

    right: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]

    def score(self) -> Score:
        """Return the means."""
        return Score(share=float(self.right.mean()), loss=float(self.loss.mean()))

    def surely_beats(self, other: SampleScores) -> bool:
        """Return whether this is better beyond doubt: 1.645 standard errors of the paired differences.

        That is a one-sided test at 5 %. More right classes decide; with as many or more of them, the loss.
        """
        share, loss = self.right - other.right, other.loss - self.loss
        return _is_positive(share) or (float(share.mean()) >= 0 and _is_positive(loss))


def _is_positive(differences: npt.NDArray[np.float64]) -> bool:
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5 if len(differences) > 1 else np.inf
    return float(differences.mean()) > _DOUBT * error


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores outputs on a fixed set of samples.

    Attributes:
        reference: the float model's outputs.
        by_labels: whether the labels define the right class; otherwise the float model's class does.
        custom: a loss of the user's, which then is the only figure; its targets are in the data.
    """

    data: LabelledData
    reference: Sequence[Array]
    head: Head
    by_labels: bool
    custom: CustomLoss | None = None

    def score(self, outputs: Sequence[Array]) -> Score:
        """Return the score of real-valued outputs."""
        return self.by_sample(outputs).score()

    def by_sample(self, outputs: Sequence[Array]) -> SampleScores:
        """Return the scores of real-valued outputs, sample by sample."""
        if self.custom is not None:
            loss = self.custom.of_each(outputs, [self.data.targets[name] for name in self.custom.targets])
            return SampleScores(right=np.zeros(len(loss)), loss=loss)
        if self.head is Head.VALUES:
            distance = _distances(outputs, self.reference)
            return SampleScores(right=np.zeros(len(distance)), loss=distance)
        probabilities = self._probabilities(outputs[0])
        if self.by_labels and self.data.labels is not None:
            right, target = self.data.labels, np.eye(probabilities.shape[1])[self.data.labels]
        else:
            target = self._probabilities(self.reference[0])
            right = target.argmax(axis=-1)
        loss = -(target * np.log(probabilities)).sum(axis=-1)
        hits = (probabilities.argmax(axis=-1) == right).astype(np.float64)
        return SampleScores(right=hits.ravel(), loss=np.asarray(loss, np.float64).ravel())

    def agreement(self, outputs: Sequence[Array]) -> Agreement | None:
        """Return how far outputs give the float model's answers; None where those hold none."""
        real, reference = ([np.asarray(each, np.float64) for each in of] for of in (outputs, self.reference))
        return compare(real, reference, labelled=self.data.labels is not None)

    def _probabilities(self, scores: Array) -> Array:
        values = np.asarray(scores, np.float64)
        if self.head is Head.LOGITS:
            values = softmax(values)
        return np.clip(values, _STEP, 1.0)


def _distances(outputs: Sequence[Array], reference: Sequence[Array]) -> npt.NDArray[np.float64]:
    """Return each sample's squared error, as a share of the power of each output or of each of its slices."""
    parts = [
        (np.square(np.asarray(out, np.float64) - ref) * inverse_powers(np.asarray(ref)))
        .reshape(len(ref), -1)
        .mean(axis=1)
        for out, ref in zip(outputs, reference, strict=True)
    ]
    return np.asarray(np.sum(parts, axis=0), np.float64)


def inverse_powers(reference: Array) -> npt.NDArray[np.float64]:
    """Return one over the mean square of an output, or of each of its slices, to multiply its errors by.

    The result broadcasts over the output. A slice that is always zero counts like the output as a whole.

    Args:
        reference: the float model's values, samples first.
    """
    squares = np.square(reference, dtype=np.float64)
    whole = float(squares.mean()) + 1e-6
    axis = slices_axis(reference)
    if axis is None:
        return np.full((1,) * reference.ndim, 1 / whole)
    powers = squares.mean(axis=tuple(each for each in range(reference.ndim) if each != axis), keepdims=True)
    return np.asarray(1 / np.where(powers > _DEAD * whole, powers, whole), np.float64)


def split_for_selection(data: LabelledData, *, seed: int, subject: str) -> tuple[LabelledData, LabelledData]:
    """Return (samples to train on, samples to select the epoch on), by the seed; no sample is in both.

    Fifteen percent select, of few samples 16, of very few a quarter.

    Raises:
        ConverterError: EQ202 all samples are equal.
    """
    count = min(max(int(len(data) * _SHARE), min(_FEWEST, len(data) // 4), 1), _MOST)
    return divided(data, count, seed=(seed, 1), subject=subject)
