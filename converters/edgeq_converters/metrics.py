"""Figures that compare models: signal-to-quantization-noise ratio, softmax, and whether one is useless."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edgeq_converters.values import OutputSqnr

Array = npt.NDArray[Any]
USELESS_BELOW_DB = 10.0
"""SQNR of what varies in an output: at 10 dB the error has a third of the size of the differences."""
_FEWEST_FOR_CHANCE = 20
"""Samples below which a share of right classes cannot be separated from chance."""
MOST_SLICES = 256
"""Places along an axis up to which each is a slice and is judged; more are positions, not quantities."""
_STEPS = 64.0
_APART = 4.0
"""How much more the slices along another axis must differ in size than those along the last one."""
T = TypeVar("T")


# A smaller difference in SQNR counts as equal.
SAME_DB = 0.1
# Medians of one model in one session differ by about this share.
SAME_LATENCY = 0.03
# On the same samples, a difference of up to 3 is never significant (McNemar's test, 5 %).
_SAME_SAMPLES = 3
# However few samples there are, a model that is worse by more than this is not as good.
_SAME_SHARE = 0.005
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion(Generic[T]):
    """One figure by which candidates are compared.

    Attributes:
        value: of a candidate; larger is better, and -infinity stands for a figure that is missing.
        same: whether two values count as equal.
    """

    value: Callable[[T], float]
    same: Callable[[float, float], bool]


def equal(one: float, other: float) -> bool:
    """Compare figures without noise, such as sizes."""
    return one == other


def same_db(one: float, other: float) -> bool:
    """Return whether two SQNRs count as equal."""
    return one == other or abs(one - other) <= SAME_DB + _ROUNDING


def same_latency(one: float, other: float) -> bool:
    """Return whether two latencies of one session, or their negatives, count as equal."""
    return one == other or abs(one - other) <= SAME_LATENCY * min(abs(one), abs(other))


def same_share(one: float, other: float, *, samples: int) -> bool:
    """Return whether two shares of right answers on the same samples count as equal."""
    limit = min(_SAME_SAMPLES / max(samples, 1), _SAME_SHARE)
    return one == other or abs(one - other) <= limit + _ROUNDING


def in_order(
    candidates: Iterable[T], criteria: Sequence[Criterion[T]], *, size: Callable[[T], tuple[float, str]]
) -> list[T]:
    """Return candidates, best first.

    The first criterion decides; among the candidates that are as good as the best in it, the next one does.

    Args:
        size: (bytes, name) of a candidate: what is equal in every criterion goes by size, then by name.
    """
    left, ordered = sorted(candidates, key=size), list[T]()
    while left:
        tied = left
        for criterion in criteria:
            values = [criterion.value(each) for each in tied]
            best = max(values)
            tied = [each for each, value in zip(tied, values, strict=True) if criterion.same(best, value)]
        ordered.append(tied[0])
        left.remove(tied[0])
    return ordered


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two powers; infinity without noise, -infinity without signal.

    Noise that is infinite or so large that the ratio is zero gives -infinity too.
    """
    if noise == 0:
        return math.inf
    ratio = signal / noise
    return 10 * math.log10(ratio) if ratio else -math.inf


def sqnr_db(outputs: Sequence[Array], references: Sequence[Array]) -> float:
    """Return the signal-to-quantization-noise ratio over all outputs, in dB; infinity when equal.

    10 log10(sum reference^2 / sum (reference - output)^2), summed in float64.

    Args:
        outputs: real values of the model that is judged, one array per output.
        references: the float model's values, in the same order and shapes.
    """
    exact = [np.asarray(reference, np.float64) for reference in references]
    signal = sum(float(np.sum(np.square(reference))) for reference in exact)
    noise = sum(
        float(np.sum(np.square(reference - np.asarray(output, np.float64))))
        for output, reference in zip(outputs, exact, strict=True)
    )
    return decibels(signal, noise)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputPowers:
    """Sums of squares of one output: of a float model's values, and of the noise on them.

    Attributes:
        whole: (signal, noise) of all values.
        axis: along which the slices lie, from 0, the samples; None where the output counts as a whole.
        signal, noise: of each slice; empty where the output counts as a whole.
    """

    whole: tuple[float, float]
    axis: int | None
    signal: Array
    noise: Array

    @property
    def ratios_db(self) -> tuple[float, ...]:
        """The ratio of each slice, in dB; infinity for one without a signal."""
        return tuple(
            decibels(float(power), float(error)) if power > 0 else math.inf
            for power, error in zip(self.signal, self.noise, strict=True)
        )

    @property
    def worst_db(self) -> float:
        """The ratio of the worst slice, or of the whole where that is lower, at least -99 dB."""
        return max(min(decibels(*self.whole), *self.ratios_db, math.inf), -99.0)

    def added(self, other: OutputPowers) -> OutputPowers:
        """Return the sums over the samples of both, which have the same slices."""
        return OutputPowers(
            whole=(self.whole[0] + other.whole[0], self.whole[1] + other.whole[1]),
            axis=self.axis,
            signal=self.signal + other.signal,
            noise=self.noise + other.noise,
        )


def slices_axis(reference: Array) -> int | None:
    """Return the axis along which the slices of an output lie, from 0; None where it counts as a whole.

    An output with two or more axes besides the samples has slices along its last axis, if there are 2 to
    MOST_SLICES of them. Its shortest axis takes the place of the last one where the slices along it differ
    _APART times as much, as boxes and classes do in a layout such as (1, 84, 8400). Long axes are positions
    rather than quantities: a row at the edge of a mask may be empty, and means nothing.

    Args:
        reference: the float model's values, samples first.
    """
    last = reference.ndim - 1
    if last < 2:
        return None
    sizes = reference.shape[1:]
    shortest = min((size for size in sizes if size > 1), default=1)
    usual = last if 2 <= sizes[-1] <= MOST_SLICES else None
    other = None
    if 2 <= shortest <= MOST_SLICES and sizes.count(shortest) == 1 and sizes[-1] > shortest:
        other = 1 + sizes.index(shortest)
    if other is None:
        return usual
    ratio = 1.0 if usual is None else _size_ratio(reference, usual)
    return other if _size_ratio(reference, other) > _APART * ratio else usual


def _size_ratio(values: Array, axis: int) -> float:
    """Return the ratio of the root mean squares of the largest and the smallest slice along an axis."""
    others = tuple(each for each in range(values.ndim) if each != axis)
    powers = np.square(values, dtype=np.float64).mean(axis=others)
    powers = powers[powers > 0]
    return float(np.sqrt(powers.max() / powers.min())) if len(powers) else 1.0


def output_powers(output: Array, reference: Array, *, axis: int | None) -> OutputPowers:
    """Return the powers of one output and its slices.

    Args:
        output, reference: real values, samples first.
        axis: of the slices (`slices_axis`).
    """
    expected = np.asarray(reference, np.float64)
    error = expected - np.asarray(output, np.float64)
    whole = float(np.square(expected).sum()), float(np.square(error).sum())
    if axis is None:
        return OutputPowers(whole=whole, axis=None, signal=np.zeros(0), noise=np.zeros(0))
    others = tuple(each for each in range(expected.ndim) if each != axis)
    signal, noise = (np.square(values).sum(axis=others) for values in (expected, error))
    return OutputPowers(whole=whole, axis=axis, signal=signal, noise=noise)


def output_sqnr(name: str, output: Array, reference: Array, *, axis: int | None = None) -> OutputSqnr:
    """Return the ratio of one output and of its slices, such as the columns of a detector.

    A slice without a signal has no ratio. A slice is dead if the reference varies in it by more than
    1/64 of its largest value: 8 bits of its own would hold that.

    Args:
        output, reference: real values, samples first.
        axis: of the slices; None is that of the reference (`slices_axis`).
    """
    axis = slices_axis(reference) if axis is None else axis
    powers = output_powers(output, reference, axis=axis)
    whole = _finite_or_none(decibels(*powers.whole))
    if axis is None:
        return OutputSqnr(name=name, sqnr_db=whole)
    ratios = powers.ratios_db
    worst = int(np.argmin(ratios))
    got, expected = (
        np.moveaxis(np.asarray(values, np.float64), axis, -1).reshape(-1, len(ratios))
        for values in (output, reference)
    )
    varies = expected.std(axis=0) * _STEPS > np.abs(expected).max(axis=0)
    dead = varies & (got == got[0]).all(axis=0)
    return OutputSqnr(
        name=name,
        sqnr_db=whole,
        axis=axis,
        slices=len(ratios),
        worst_slice=None if math.isinf(ratios[worst]) else worst,
        worst_slice_db=_finite_or_none(ratios[worst]),
        dead=tuple(int(each) for each in np.flatnonzero(dead)),
    )


def _finite_or_none(ratio: float) -> float | None:
    return None if ratio == math.inf else max(ratio, -99.0)


def softmax(scores: Array) -> Array:
    """Return class probabilities along the last axis: exp(score) / sum exp(score), without overflow."""
    grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Array = grown / grown.sum(axis=-1, keepdims=True)
    return probabilities


def useless_output(output: Array, reference: Array) -> str | None:
    """Return in words why an output is useless beside the float model's; None where it is not.

    It holds NaN or infinity, or is the same for every sample, or what varies in it is below USELESS_BELOW_DB:
    a large constant part would hide that nothing else is left. A constant offset counts as an error too.

    Args:
        output: real values, samples first.
        reference: the float model's values in the same shape.
    """
    got, expected = np.asarray(output, np.float64), np.asarray(reference, np.float64)
    if not np.isfinite(expected).all() or len(expected) < 2:
        return None
    if not np.isfinite(got).all():
        return "holds NaN or infinity"
    signal = float(np.square(expected - expected.mean(axis=0)).sum())
    if signal <= 1e-9 * max(float(np.square(expected).sum()), 1e-30):
        return None  # the float model's own output does not vary
    reached = max(decibels(signal, float(np.square(expected - got).sum())), -99.0)
    if reached >= USELESS_BELOW_DB:
        return None
    where = f"on {len(got)} samples, at least {USELESS_BELOW_DB:.0f} dB are needed"
    if (got == got[0]).all():
        return f"is the same for every sample ({reached:.1f} dB from the float model {where})"
    return f"is {reached:.1f} dB from the float model {where}"


def dead_slices(output: Array, reference: Array) -> str | None:
    """Return in words which slices of an output are dead (see `output_sqnr`); None where none is."""
    if len(reference) < 2 or not (np.isfinite(output).all() and np.isfinite(reference).all()):
        return None
    figure = output_sqnr("", output, reference)
    if not figure.dead:
        return None
    listed = ", ".join(map(str, figure.dead[:4])) + (" and more" if len(figure.dead) > 4 else "")
    return (
        f"has {len(figure.dead)} of {figure.slices} slices along axis {figure.axis} that are the same for "
        f"every sample, and vary in the float model: {listed}"
    )


def useless_classes(predicted: Array, right: Array) -> str | None:
    """Return in words why predicted classes are useless; None where not, or with too few samples.

    They are as often right as classes drawn with the same frequencies without a look at the sample: within
    two standard errors of that chance.

    Args:
        predicted, right: class indices, one per sample.
    """
    count = len(right)
    classes = np.unique(np.concatenate([predicted, right]))
    if count < _FEWEST_FOR_CHANCE or len(np.unique(right)) < 2:
        return None
    chance = float(sum(np.mean(predicted == each) * np.mean(right == each) for each in classes))
    share = float(np.mean(predicted == right))
    if share > chance + 2 * math.sqrt(chance * (1 - chance) / count):
        return None
    same = ": every sample gets the same class" if len(np.unique(predicted)) == 1 else ""
    return f"{100 * share:.1f} % of {count} classes are right, which is chance ({100 * chance:.1f} %){same}"


def useless_result(
    outputs: Sequence[Array], references: Sequence[Array] | None, labels: Array | None
) -> str | None:
    """Return in words why a model's outputs are useless; None where they are not.

    Args:
        outputs: real values, samples first; the classes are those of the first.
        references: the float model's, in the same order; None without them.
        labels: the right class of each sample; None without them.
    """
    for number, output in enumerate(outputs):
        if references is None:
            reason = "holds NaN" if np.isnan(output).any() else None
        else:
            reason = useless_output(output, references[number]) or dead_slices(output, references[number])
        if reason is not None:
            return f"output {number} {reason}" if len(outputs) > 1 else f"its output {reason}"
    if not outputs or outputs[0].ndim < 2 or outputs[0][0].size < 2:
        return None
    predicted = outputs[0].reshape(len(outputs[0]), -1).argmax(axis=1)
    if labels is not None:
        return useless_classes(predicted, labels)
    return None
