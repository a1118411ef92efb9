"""A variant and its float model on the same samples, and on other inputs again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.converters_client import Progress
from edgeq.evaluation.running import ModelRun, dequantized, run_all

Array = npt.NDArray[Any]
Real = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BothModels:
    """Both models on the same samples.

    Attributes:
        float_run, variant_run: with the inputs of the float model, in its order of inputs and outputs.
        expected, outputs: of the float model and the variant, real values, samples first.
    """

    reference: Path
    model: Path
    float_run: ModelRun
    variant_run: ModelRun
    expected: tuple[Real, ...]
    outputs: tuple[Real, ...]
    deadline_s: float
    on_progress: Progress | None

    @classmethod
    def run(
        cls,
        reference: Path,
        model: Path,
        data: Path,
        *,
        columns: Sequence[str],
        sequence: bool,
        states: Sequence[tuple[str, str]],
        deadline_s: float,
        on_progress: Progress | None,
    ) -> BothModels:
        """Run both models on data; arguments and errors as in `run_all`, with labels of any form."""
        float_run, variant_run = run_all(
            [reference, model],
            data,
            sequence=sequence,
            states=states,
            columns=tuple(dict.fromkeys(columns)),
            any_labels=True,
            deadline_s=deadline_s,
            on_progress=on_progress,
        )
        return cls(
            reference=reference,
            model=model,
            float_run=float_run,
            variant_run=variant_run,
            expected=dequantized(float_run.outputs, float_run.info.outputs),
            outputs=dequantized(variant_run.outputs, variant_run.info.outputs),
            deadline_s=deadline_s,
            on_progress=on_progress,
        )

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.expected[0])

    @property
    def classes(self) -> int:
        """How many values the first output has for a sample."""
        return int(self.expected[0][0].size)

    @property
    def independent(self) -> bool:
        """Whether the samples are independent of each other."""
        return self.float_run.sequences in (None, self.samples)

    @property
    def answers(self) -> tuple[Indices, Indices]:
        """The classes that (float model, variant) give, of the first output."""
        return classes_in(self.expected[0]), classes_in(self.outputs[0])

    def outputs_of(
        self, inputs: Sequence[Array], *, finite: bool = True
    ) -> tuple[tuple[Real, ...], tuple[Real, ...]]:
        """Return the real outputs of (float model, variant) on other inputs, each sample on its own.

        Args:
            inputs: one array an input, in the float model's order.
            finite: refuse NaN and infinity.
        """
        names = [[tensor.name for tensor in run.info.inputs] for run in (self.float_run, self.variant_run)]
        data: Sequence[Array] | Mapping[str, Array] = inputs
        if sorted(names[0]) == sorted(names[1]):  # the variant may list them in another order
            data = dict(zip(names[0], inputs, strict=True))
        runs = run_all(
            [self.reference, self.model],
            data,
            finite=finite,
            deadline_s=self.deadline_s,
            on_progress=self.on_progress,
        )
        return (
            dequantized(runs[0].outputs, runs[0].info.outputs),
            dequantized(runs[1].outputs, runs[1].info.outputs),
        )

    def answers_to(self, inputs: Sequence[Array]) -> tuple[Indices, Indices]:
        """Return the classes that (float model, variant) give on other inputs; see `outputs_of`."""
        expected, outputs = self.outputs_of(inputs)
        return classes_in(expected[0]), classes_in(outputs[0])


def classes_in(output: Real) -> Indices:
    """Return each sample's class: the index of the largest value, the first of equal ones."""
    best: Indices = output.reshape(len(output), -1).argmax(axis=1).astype(np.int64)
    return best
