"""Judge integer models on held-out samples: the powers of signal and noise, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.partition import HeldOutSamples
from edgeq_converters.data.samples import to_real
from edgeq_converters.graph import logits
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import ignore
from edgeq_converters.quantization.columns import NO_SIZES, ColumnSizes

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Powers:
    """Sums of squares, one row per held-out sample: of a float model's values, or of the noise on them.

    Attributes:
        logits: (samples, outputs), at the logits of each output.
        outputs: (samples,), over all outputs, as `edgeq evaluate` sums them.
    """

    logits: Array
    outputs: Array

    def __len__(self) -> int:
        return len(self.outputs)


def joined(parts: list[Powers]) -> Powers:
    """Return the rows of all parts."""
    return Powers(
        logits=np.concatenate([part.logits for part in parts]),
        outputs=np.concatenate([part.outputs for part in parts]),
    )


class Judge:
    """Compares quantized models with the float model on samples that they were not fitted on.

    Args:
        sizes: that were divided out of the outputs. The powers of the outputs are in the units before that;
            at the logits all columns keep one size, so that each counts.
    """

    def __init__(self, floating: Model, held_out: HeldOutSamples, sizes: ColumnSizes = NO_SIZES) -> None:
        self._samples, self._sizes = held_out, sizes
        self._logits, self._outputs = self._run(floating)
        self.signal = Powers(
            logits=self._squares(self._logits),
            outputs=self._squares(self._outputs).sum(axis=1),
        )

    def noise(self, model: Model) -> Powers:
        """Return what a quantized model adds to the float model's values.

        Raises:
            ConverterError: EQ303 the model does not run.
        """
        at_logits, outputs = self._run(model)
        return Powers(
            logits=self._squares(_differences(at_logits, self._logits)),
            outputs=self._squares(_differences(outputs, self._outputs)).sum(axis=1),
        )

    def _run(self, model: Model) -> tuple[list[Array], list[Array]]:
        """Return the real values at the logits, and those of the outputs."""
        shown, added = logits.exposed(model)
        arrays = run_samples(shown, self._samples, advance=ignore)
        values = [to_real(array, info) for array, info in zip(arrays, shown.outputs, strict=True)]
        outputs = values[: len(values) - added]
        return (values[-added:] if added else outputs), self._sizes.restored(outputs)

    def _squares(self, values: list[Array]) -> Array:
        """Return the sum of squares of each output and sample; of a batch where they are not apart."""
        sums = [np.square(each.reshape(len(each), -1)).sum(axis=1) for each in values]
        if any(len(each) != len(self._samples) for each in sums):
            starts = np.arange(0, len(self._samples), self._samples.batch)
            sums = [
                np.add.reduceat(each, starts) if len(each) == len(self._samples) else each for each in sums
            ]
        return np.stack(sums, axis=1)


def _differences(values: list[Array], references: list[Array]) -> list[Array]:
    return [value - reference for value, reference in zip(values, references, strict=True)]
