"""Robustness: both models on the same corrupted inputs, and the difference with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.evaluation.bootstrap import Ends
from edgeq.evaluation.corruptions import Corruption, Scale, corrupt
from edgeq_converters import intervals
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
SAMPLES = 200
USUAL_SEVERITIES = (1, 3, 5)
Answers = Callable[[Sequence[Array]], tuple[Indices, Indices]]
"""Takes one array an input, samples first, and returns the classes of (float model, variant)."""
BYTES_AT_ONCE = 2**26
"""Size of the inputs up to which several corruptions are run together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptedFigures:
    """Both models on inputs with one corruption at one severity; severity 0 is the sample as it is.

    Attributes:
        corruption: None for severity 0.
        reference, variant: accuracy; None without labels.
        drop: accuracy of the float model minus the variant's.
        drop_ci95: Newcombe's interval for paired samples.
        agreement: share of the float model's answers on the same inputs that the variant gives.
        agreement_ci95: Wilson's interval.
    """

    corruption: Corruption | None
    severity: int
    reference: float | None
    variant: float | None
    drop: float | None
    drop_ci95: Ends | None
    agreement: float
    agreement_ci95: Ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """The figures of all corruptions.

    Attributes:
        samples: how many were corrupted, evenly spaced in the data.
        severities: that were tried, of 1 to 5.
        seed: of noise and places.
        clean: the same samples without a corruption.
        of_each: one entry a corruption and severity.
        mean_drop: mean of the drops of all corruptions and severities; None without labels.
        mean_drop_ci95: the means of the ends of their intervals. It is wider than needed unless all
            corruptions lose the same samples, and never narrower.
        mean_agreement: mean of the agreements.
    """

    samples: int
    severities: tuple[int, ...]
    seed: int
    clean: CorruptedFigures
    of_each: tuple[CorruptedFigures, ...]
    mean_drop: float | None
    mean_drop_ci95: Ends | None
    mean_agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    corruption: Corruption | None
    severity: int
    inputs: list[Array]


def measured_robustness(
    inputs: Sequence[Array],
    tensors: Sequence[TensorInfo],
    labels: Indices | None,
    answers: Answers,
    *,
    samples: int = SAMPLES,
    severities: Sequence[int] = USUAL_SEVERITIES,
    seed: int = 0,
) -> Robustness | None:
    """Return both models' figures on corrupted inputs; None where no input can be corrupted.

    Args:
        inputs: one array an input of the float model, samples first, real values or the input's own integers.
        tensors: the float model's inputs.
        labels: (samples,); None without labels.
        answers: runs both models.
        samples: the largest number of samples to use.
        severities: 1 to 5.
        seed: of noise and places.
    """
    rows = chosen_rows(len(inputs[0]), samples)
    scales = [
        Scale.of(array) if _corruptible(tensor) else None
        for array, tensor in zip(inputs, tensors, strict=True)
    ]
    if all(scale is None for scale in scales):
        return None
    picked = [array[rows] for array in inputs]
    own = None if labels is None else labels[rows]
    figures = []
    for group in _groups(_trials(picked, tensors, scales, severities, seed)):
        joined = [np.concatenate(arrays) for arrays in zip(*(trial.inputs for trial in group), strict=True)]
        reference, variant = answers(joined)
        for number, trial in enumerate(group):
            part = slice(number * len(rows), (number + 1) * len(rows))
            figures.append(figures_of(trial.corruption, trial.severity, reference[part], variant[part], own))
    return summary(figures, samples=len(rows), severities=severities, seed=seed)


def chosen_rows(count: int, samples: int) -> npt.NDArray[np.intp]:
    """Return the indices of at most so many samples, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(samples, count)).round().astype(np.intp))


def figures_of(
    corruption: Corruption | None,
    severity: int,
    reference: Indices,
    variant: Indices,
    labels: Indices | None,
) -> CorruptedFigures:
    """Return the figures of one corruption at one severity. A pure function.

    Args:
        reference, variant: the classes that the models give the same inputs.
        labels: of the samples; None without labels.
    """
    same = reference == variant
    drop = None if labels is None else intervals.drop(reference == labels, variant == labels)
    return CorruptedFigures(
        corruption=corruption,
        severity=severity,
        reference=None if labels is None else float((reference == labels).mean()),
        variant=None if labels is None else float((variant == labels).mean()),
        drop=None if drop is None else drop.share,
        drop_ci95=None if drop is None else drop.ci95,
        agreement=float(same.mean()),
        agreement_ci95=intervals.share_ci95(same),
    )


def summary(
    figures: Sequence[CorruptedFigures], *, samples: int, severities: Sequence[int], seed: int
) -> Robustness:
    """Return the figures with their means; the first entry is that of the samples without a corruption."""
    corrupted = figures[1:]
    drops = [each.drop for each in corrupted if each.drop is not None]
    ends = [each.drop_ci95 for each in corrupted if each.drop_ci95 is not None]
    return Robustness(
        samples=samples,
        severities=tuple(severities),
        seed=seed,
        clean=figures[0],
        of_each=tuple(corrupted),
        mean_drop=float(np.mean(drops)) if drops else None,
        mean_drop_ci95=(
            (float(np.mean([low for low, _ in ends])), float(np.mean([high for _, high in ends])))
            if ends
            else None
        ),
        mean_agreement=float(np.mean([each.agreement for each in corrupted])),
    )


def _corruptible(tensor: TensorInfo) -> bool:
    """Return whether an input holds quantities: real values, or pixels. Other integers are names."""
    return np.dtype(tensor.dtype).kind == "f" or tensor.scale is not None or tensor.dtype == "uint8"


def _trials(
    inputs: Sequence[Array],
    tensors: Sequence[TensorInfo],
    scales: Sequence[Scale | None],
    severities: Sequence[int],
    seed: int,
) -> Iterator[_Trial]:
    """Yield the inputs as they are, then with each corruption that fits one of them, at each severity."""
    yield _Trial(corruption=None, severity=0, inputs=list(inputs))
    fitting = [() if scale is None else scale.corruptions for scale in scales]
    for corruption in Corruption:
        if not any(corruption in each for each in fitting):
            continue
        for severity in severities:
            yield _Trial(
                corruption=corruption,
                severity=severity,
                inputs=[
                    _as_input(corrupt(array, corruption, severity, scale=scale, seed=seed), tensor)
                    if scale is not None and corruption in fits
                    else array
                    for array, tensor, scale, fits in zip(inputs, tensors, scales, fitting, strict=True)
                ],
            )


def _as_input(values: Array, tensor: TensorInfo) -> Array:
    """Return real values for an input: pixels of a type without a scale are whole numbers."""
    if np.dtype(tensor.dtype).kind == "f" or tensor.scale is not None:
        return values
    limits = np.iinfo(np.dtype(tensor.dtype))
    return np.clip(np.rint(values), limits.min, limits.max).astype(tensor.dtype)


def _groups(trials: Iterator[_Trial]) -> Iterator[list[_Trial]]:
    """Yield trials together, up to a number of bytes: a run of the models has a cost of its own."""
    group: list[_Trial] = []
    size = 0
    for trial in trials:
        own = sum(array.nbytes for array in trial.inputs)
        if group and size + own > BYTES_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(trial)
        size += own
    if group:
        yield group
