"""Checkpoints: the best states of a training, scored every epoch and kept as copies of the variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common import loop
from edgeq_converters.training.qat.scoring import Score, Scorer

KEPT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The variables after an epoch (0 is before training), and the score of the fake-quantized outputs."""

    epoch: int
    values: list[npt.NDArray[Any]]
    score: Score


class Checkpoints:
    """Keeps the best checkpoints of a training.

    Args:
        forward: the forward pass with fake quantization.
        steps: number of steps in an epoch.
        batch: samples to score at a time.
    """

    def __init__(
        self,
        forward: loop.Forward,
        variables: Sequence[Any],
        scorer: Scorer,
        *,
        steps: int,
        batch: int = 256,
    ) -> None:
        self._forward = loop.compiled(forward)
        self._variables, self._scorer, self._steps, self._batch = variables, scorer, steps, batch
        self.best: list[Checkpoint] = []

    def before_step(self, step: int) -> None:
        """Score the variables before a step that starts an epoch; keep them if they are among the best."""
        if step % self._steps:
            return
        score = self._scorer.score(loop.outputs_of(self._forward, self._scorer.data, self._batch))
        if len(self.best) < KEPT or score.beats(self.best[-1].score):
            values = [np.array(variable) for variable in self._variables]
            checkpoint = Checkpoint(epoch=step // self._steps, values=values, score=score)
            # Of equal checkpoints the later one goes first: its steps were smaller.
            ordered = sorted([checkpoint, *self.best], key=lambda c: (-c.score.share, c.score.loss))
            self.best = ordered[:KEPT]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Assign the values of a checkpoint to the variables."""
        for variable, value in zip(self._variables, checkpoint.values, strict=True):
            variable.assign(value)
