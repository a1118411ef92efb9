"""Null replay: measure the monitor's false-alarm rate on simulated streams without drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeq.bundle.drift_reference import DriftReference
from edgeq.monitor.eprocess import average, evidence
from edgeq.monitor.signals import signals_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """How often streams without drift raised an alarm.

    Attributes:
        upper95: upper end of the two-sided 95 % Wilson interval of the rate.
    """

    alpha: float
    replays: int
    windows: int
    samples_per_window: int
    false_alarms: int
    rate: float
    upper95: float


def replay_null(
    reference: DriftReference,
    *,
    alpha: float,
    windows: int = 40,
    samples_per_window: int = 50,
    replays: int = 2000,
    seed: int = 0,
) -> Replay:
    """Draw references and windows from one distribution, test them as `judge` does, and count the alarms.

    Each signal has the distribution of the given reference. Every replay draws a new reference of the same
    size from it, so that the measured rate includes the uncertainty of a finite reference. Signals are
    independent.

    Args:
        alpha: the promised false-alarm probability of a stream.
        windows: windows in a stream.
        samples_per_window: inferences in a window.
        replays: number of streams.
    """
    random = np.random.default_rng(seed)
    log_es = []
    for signal in signals_of(reference):
        size = int(signal.reference.sum())
        truth = signal.reference + 0.5
        truth = truth / truth.sum()
        drawn = random.multinomial(size, truth, size=replays).astype(np.float64)
        field = random.multinomial(samples_per_window, truth, size=(replays, windows)).astype(np.float64)
        log_es.append(evidence(drawn, field, ordered=signal.ordered).log_e)
    alarms = int((average(np.stack(log_es)).max(axis=-1) >= -math.log(alpha)).sum())
    return Replay(
        alpha=alpha,
        replays=replays,
        windows=windows,
        samples_per_window=samples_per_window,
        false_alarms=alarms,
        rate=alarms / replays,
        upper95=_wilson_upper(alarms, replays),
    )


def _wilson_upper(hits: int, trials: int) -> float:
    z = 1.959964
    share = hits / trials
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (share + z * z / (2 * trials) + spread) / (1 + z * z / trials)
