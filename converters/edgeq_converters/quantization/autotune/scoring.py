"""Held-out samples, and the signal-to-noise ratio that an integer model reaches on them at its logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeq_converters.data.samples import Samples, to_real
from edgeq_converters.graph import inference, logits
from edgeq_converters.metrics import decibels
from edgeq_converters.progress import ignore

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
        return float(np.mean([_bounded_db(*pair) for pair in zip(got, self._wanted, strict=True)]))

    def _logits(self, data: bytes) -> list[Any]:
        cut = logits.cut(data, subject=self._subject)
        found = inference.outputs(cut.data, self._held, subject=self._subject, advance=ignore)
        return [to_real(array, info) for array, info in zip(found, cut.outputs, strict=True)]


def _bounded_db(output: Any, reference: Any) -> float:
    """Return the SQNR of one output, finite and at most 200 dB so that a mean over outputs stays finite."""
    noise = float(np.square(reference - output).sum())
    signal = float(np.square(reference).sum())
    return decibels(max(signal, 1e-30), max(noise, signal * 1e-20, 1e-30))
