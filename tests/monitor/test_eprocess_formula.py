"""The e-process is the formula of its docstring, here written out with loops and the standard library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pytest

from edgeq.monitor.eprocess import evidence

PRIORS = (0.05, 0.2, 0.5, 1.0, 2.0)
SPREADS = (0.02, 0.1, 0.3)
TILTS = (-1.6, -0.8, -0.4, -0.2, 0.2, 0.4, 0.8, 1.6)
LAST_STARTS = 15

Counts = Sequence[float]


def probability(counts: Counts, parameters: Counts) -> float:
    """Return the Dirichlet-multinomial probability of one sequence with these counts."""
    log = math.lgamma(sum(parameters)) - math.lgamma(sum(parameters) + sum(counts))
    for count, parameter in zip(counts, parameters, strict=True):
        log += math.lgamma(parameter + count) - math.lgamma(parameter)
    return math.exp(log)


def mixture(counts: Counts, known: Counts, *, ordered: bool) -> float:
    """Return the numerator: the mixture of alternatives that the counts before allow."""
    size, bins = sum(known), len(known)
    centre = [(count + 0.5) / (size + 0.5 * bins) for count in known]
    plain = [probability(counts, [0.5] * bins)]
    plain += [probability(counts, [share * size * mass for mass in centre]) for share in SPREADS]
    if not ordered:
        return sum(plain) / 4
    ranks = [
        (below - mass / 2 - 0.5) * math.sqrt(12)
        for below, mass in zip(accumulate(centre), centre, strict=True)
    ]
    tilted = []
    for tilt in TILTS:
        weights = [mass * math.exp(tilt * rank) for mass, rank in zip(centre, ranks, strict=True)]
        tilted.append(probability(counts, [0.5 * size * weight / sum(weights) for weight in weights]))
    return sum(plain) / 8 + sum(tilted) / 16


def e_value(reference: Counts, windows: Sequence[Counts], *, ordered: bool) -> tuple[float, int]:
    """Return E after the last window, and the start that contributes most."""
    total = len(windows)
    starts = [0, *range(max(1, total - LAST_STARTS), total)]
    terms = []
    for start in starts:
        known = [sum(column) for column in zip(reference, *windows[:start], strict=True)]
        counts = [sum(column) for column in zip(*windows[start:], strict=True)]
        null = max(probability(counts, [count + prior for count in known]) for prior in PRIORS)
        weight = 1 / 2 if start == 0 else 1 / (2 * start * (start + 1))
        terms.append(weight * mixture(counts, known, ordered=ordered) / null)
    return sum(terms) + 1 / (2 * total), starts[terms.index(max(terms))]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bins", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_each_e_value_is_the_formulas(bins: int, ordered: bool, seed: int) -> None:
    """20 windows: more than there are starts, so that the old ones are dropped."""
    random = np.random.default_rng(seed)
    reference = random.integers(1, 12, size=bins).astype(float)
    windows = random.multinomial(4, np.full(bins, 1 / bins), size=20).astype(float)
    windows[12:] = random.multinomial(4, np.linspace(0, 1, bins) / np.linspace(0, 1, bins).sum(), size=8)
    process = evidence(reference, windows, ordered=ordered)
    rows = [row.tolist() for row in windows]
    for count in range(1, 21):
        value, start = e_value(reference.tolist(), rows[:count], ordered=ordered)
        assert math.exp(process.log_e[count - 1]) == pytest.approx(value, rel=1e-9)
        assert process.start[count - 1] == start


def test_weights_of_all_starts_add_up_to_one() -> None:
    """A window without samples says nothing: every ratio is 1, and so is what the weights add up to."""
    log_e = evidence(np.array([3.0, 4.0]), np.zeros((15, 2)), ordered=False).log_e
    assert log_e == pytest.approx(np.zeros(15), abs=1e-12)


def test_a_large_e_value_does_not_overflow() -> None:
    reference, windows = np.array([1e4, 1.0]), np.tile([0.0, 500.0], (4, 1))
    log_e = evidence(reference, windows, ordered=True).log_e
    assert np.isfinite(log_e).all()
    assert log_e[-1] > 1000
