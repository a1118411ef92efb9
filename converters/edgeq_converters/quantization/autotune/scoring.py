"""Held-out samples, and the signal-to-noise ratio that an integer model reaches on them at its logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeq_converters.data.samples import Samples, to_real
from edgeq_converters.graph import inference, logits

_HELD_OUT = 0.25
_MOST_HELD_OUT = 64


def split(samples: Samples, *, seed: int) -> tuple[Samples, Samples]:
    """Return (samples to fit, samples that were held out), by the seed, each in the old order."""
    order = np.random.default_rng(seed).permutation(len(samples))
    held = min(max(int(len(samples) * _HELD_OUT), 1), _MOST_HELD_OUT)
    return _picked(samples, np.sort(order[held:])), _picked(samples, np.sort(order[:held]))


def taken(samples: Samples, count: int) -> Samples:
    """Return at most `count` samples, evenly from the whole."""
    if len(samples) <= count:
        return samples
    return _picked(samples, np.linspace(0, len(samples) - 1, count).round().astype(np.intp))


def _picked(samples: Samples, rows: Any) -> Samples:
    return replace(samples, arrays=tuple(array[rows] for array in samples.arrays))


class Judge:
    """Compares integer models with the float model at the logits, on samples that neither was fitted on."""

    def __init__(self, floating: bytes, held: Samples, *, subject: str) -> None:
        self._held, self._subject = held, subject
        self._wanted = self._logits(floating)

    def score(self, data: bytes) -> float:
        """Return the mean over the outputs of the signal-to-noise ratio in dB."""
        got = self._logits(data)
        return float(np.mean([sqnr_db(one, other) for one, other in zip(self._wanted, got, strict=True)]))

    def _logits(self, data: bytes) -> list[Any]:
        cut = logits.cut(data, subject=self._subject)
        found = inference.outputs(cut.data, self._held, subject=self._subject, advance=_quiet)
        return [to_real(array, info) for array, info in zip(found, cut.outputs, strict=True)]


def sqnr_db(wanted: Any, got: Any) -> float:
    """Return 10 log10 of the wanted values' power over the error's, at most 200."""
    noise = float(np.square(wanted - got).sum())
    power = float(np.square(wanted).sum())
    return 10 * float(np.log10(max(power, 1e-30) / max(noise, power * 1e-20, 1e-30)))


def _quiet(amount: int) -> None:
    del amount
