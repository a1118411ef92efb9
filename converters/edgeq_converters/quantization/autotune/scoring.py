"""Score quantized models: held-out samples, and the SQNR against the float model at the logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.data.samples import Samples, pick, to_real
from edgeq_converters.graph import logits
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import decibels
from edgeq_converters.progress import ignore

_HELD_OUT = 0.25
_MOST_HELD_OUT = 64


def split_held_out(samples: Samples, *, seed: int) -> tuple[Samples, Samples]:
    """Return (samples to fit on, held-out samples), split by the seed; both keep the order."""
    order = np.random.default_rng(seed).permutation(len(samples))
    held = min(max(int(len(samples) * _HELD_OUT), 1), _MOST_HELD_OUT)
    return pick(samples, np.sort(order[held:])), pick(samples, np.sort(order[:held]))


class LogitsScorer:
    """Compares quantized models with the float model at the logits, on samples that neither was fitted on."""

    def __init__(self, floating: Model, held_out: Samples) -> None:
        self._samples = held_out
        self._reference = self._logits(floating)

    def sqnr_db(self, model: Model) -> float:
        """Return the mean of the outputs' SQNR in dB."""
        logits = self._logits(model)
        return float(np.mean([_bounded_db(*pair) for pair in zip(logits, self._reference, strict=True)]))

    def _logits(self, model: Model) -> list[Any]:
        cut = logits.cut(model).model
        outputs = run_samples(cut, self._samples, advance=ignore)
        return [to_real(array, info) for array, info in zip(outputs, cut.outputs, strict=True)]


def _bounded_db(output: Any, reference: Any) -> float:
    """Return the SQNR of one output, finite and at most 200 dB so that a mean over outputs stays finite."""
    noise = float(np.square(reference - output).sum())
    signal = float(np.square(reference).sum())
    return decibels(max(signal, 1e-30), max(noise, signal * 1e-20, 1e-30))
