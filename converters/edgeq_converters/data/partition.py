"""Partition samples into those that a conversion is fitted on and those that judge it.

The two kinds have types of their own, so that mypy refuses to fit anything on a held-out sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, canonical_order, digests, pick, pick_sequences

FitSamples = NewType("FitSamples", Samples)
"""Samples that ranges, equalization, correction and the choice of calibrators may see."""
HeldOutSamples = NewType("HeldOutSamples", Samples)
"""Samples that only judge what was fitted on others."""

CROSS_FIT_BELOW = 100
"""Different samples below which each is held out once; a quarter of fewer samples would say too little."""
_FOLDS = 4
_HELD_OUT = 0.25
_MOST_HELD_OUT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One division of the samples."""

    fit: FitSamples
    held_out: HeldOutSamples


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """All divisions of the samples that a choice is judged by.

    Attributes:
        folds: one, or several of which each holds out other samples; together they hold out all.
    """

    folds: tuple[Fold, ...]

    @property
    def cross_fitted(self) -> bool:
        """Whether every sample is held out once."""
        return len(self.folds) > 1

    @property
    def held_out(self) -> int:
        """The number of samples that are held out in some fold."""
        return sum(len(fold.held_out) for fold in self.folds)


def distinct(samples: Samples) -> int:
    """Return how many different samples there are."""
    return len(set(digests(samples)))


def partition(samples: Samples, *, seed: int, cross_fit: bool = True) -> Partition:
    """Return the samples in folds, chosen by the seed, whatever their order.

    Below CROSS_FIT_BELOW different samples there are four folds, of which each holds out a quarter. Otherwise
    a quarter is held out once, at most 64 samples. Equal samples are on the same side
    of every fold, and so are those of a sequence. Held-out samples with carried states stay sequences.

    Args:
        cross_fit: False gives one fold also for few samples, where several would cost too much.

    Raises:
        ValueError: fewer than two different samples.
    """
    few = distinct(samples) < CROSS_FIT_BELOW
    return _divided(samples, seed=seed, folds=_FOLDS) if cross_fit and few else split(samples, seed=seed)


def split(samples: Samples, *, seed: int, share: float = _HELD_OUT, most: int = _MOST_HELD_OUT) -> Partition:
    """Return one fold that holds out a share of the different samples, at most `most` of them.

    Raises:
        ValueError: fewer than two different samples.
    """
    count = min(max(int(len(set(_keys(samples))) * share), 1), most)
    return _divided(samples, seed=seed, held_out=count)


def halves(samples: Samples, *, seed: int) -> Partition:
    """Return two folds of which each holds out half of the samples.

    Raises:
        ValueError: fewer than two different samples.
    """
    return _divided(samples, seed=seed, folds=2)


def all_to_fit(samples: Samples) -> FitSamples:
    """Return all samples in canonical order, for the model that is written once everything is chosen."""
    return FitSamples(canonical_order(samples))


Mask = npt.NDArray[np.bool_]


def apart(fit: Sequence[bytes], held_out: Sequence[bytes], *, seed: int) -> tuple[Mask, Mask]:
    """Return which of two sets of samples to keep, so that no sample is in both.

    Shared samples stay in the set to fit on, if that leaves half of the held-out ones; else they stay held
    out, if that leaves half of those to fit on; else each set keeps half of them, chosen by the seed. Of a
    single sample that is both, nothing is left to hold out.

    Args:
        fit, held_out: `samples.digests_of` of each set.

    Returns:
        A mask of each set.
    """
    shared = np.array(sorted(set(fit) & set(held_out)), dtype="S32")
    in_fit = np.isin(np.array(fit, dtype="S32"), shared)
    in_held_out = np.isin(np.array(held_out, dtype="S32"), shared)
    if 2 * int(in_held_out.sum()) <= len(held_out):
        return np.ones(len(fit), bool), ~in_held_out
    if 2 * int(in_fit.sum()) <= len(fit):
        return ~in_fit, np.ones(len(held_out), bool)
    drawn = np.random.default_rng(seed).permutation(len(shared))
    half = len(shared) // 2
    count = max(half, 1) if in_fit.all() else half
    to_fit = shared[drawn[:count]]
    stays = np.isin(np.array(fit, dtype="S32"), to_fit)
    return ~in_fit | stays, ~np.isin(np.array(held_out, dtype="S32"), to_fit)


def _divided(samples: Samples, *, seed: int, folds: int = 1, held_out: int = 0) -> Partition:
    """Return folds that hold out all samples, or one fold that holds out `held_out` different ones."""
    keys = np.array(_keys(samples))
    order = np.argsort([digest.hex() for digest in digests(samples)], kind="stable")
    ordered, keys = canonical_order(samples), keys[order]
    different = np.unique(keys)
    if len(different) < 2:
        raise ValueError("nothing can be held out of equal samples")
    drawn = np.random.default_rng(seed).permutation(len(different))
    groups = np.array_split(drawn, min(folds, len(different))) if folds > 1 else [drawn[:held_out]]
    parts = []
    for group in groups:
        held = np.isin(keys, different[group])
        fit, out = pick(ordered, ~held), pick(ordered, held)
        if samples.carries and _by_sequence(samples):
            out = pick_sequences(samples, np.sort(order[held]))
        parts.append(Fold(fit=FitSamples(fit), held_out=HeldOutSamples(out)))
    return Partition(folds=tuple(parts))


def _keys(samples: Samples) -> list[str]:
    """Return a key for each sample; those with the same key stay on one side.

    Equal samples have the same key, and so have the samples of one sequence, which resemble each other, where
    there are sequences enough.
    """
    own = [digest.hex() for digest in digests(samples)]
    if samples.begins is None or not _by_sequence(samples):
        return own
    number = np.cumsum(samples.begins)
    parts = {int(n): "".join(own[i] for i in np.flatnonzero(number == n)) for n in np.unique(number)}
    whole = {n: hashlib.sha256(text.encode()).hexdigest() for n, text in parts.items()}
    return [whole[int(n)] for n in number]


def _by_sequence(samples: Samples) -> bool:
    """Return whether there are sequences enough that each of them stays on one side."""
    return samples.begins is not None and samples.sequences >= _FOLDS
