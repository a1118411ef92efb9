"""The best states that a training went through: watched epoch by epoch, kept as copies of the variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.training.common import loop
from edgeq_converters.training.qat.scoring import Judge, Score

KEPT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The variables after an epoch (zero: before the first), and their score in fake-quantized outputs."""

    epoch: int
    values: list[npt.NDArray[Any]]
    score: Score


class Watcher:
    """Keeps the best states of a training.

    Args:
        forward: with fake quantization.
        steps: of an epoch.
    """

    def __init__(self, forward: loop.Forward, variables: Sequence[Any], judge: Judge, *, steps: int) -> None:
        self._forward = loop.compiled(forward)
        self._variables, self._judge, self._steps = variables, judge, steps
        self.states: list[State] = []

    def look(self, step: int) -> None:
        """Score what the variables are before a step that starts an epoch."""
        if step % self._steps:
            return
        score = self._judge.score(loop.outputs_of(self._forward, self._judge.data))
        if len(self.states) < KEPT or score.beats(self.states[-1].score):
            values = [np.array(variable) for variable in self._variables]
            state = State(epoch=step // self._steps, values=values, score=score)
            # Later states go before equal ones: their steps were smaller.
            ordered = sorted([state, *self.states], key=lambda s: (-s.score.share, s.score.loss))
            self.states = ordered[:KEPT]

    def restore(self, state: State) -> None:
        """Give the variables the values of a state."""
        for variable, value in zip(self._variables, state.values, strict=True):
            variable.assign(value)
