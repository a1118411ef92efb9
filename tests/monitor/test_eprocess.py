"""The sequential test keeps its false-alarm rate without drift, and detects a visible shift soon."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeq.monitor.eprocess import PRIORS, average, evidence, log_gamma
from edgeq.monitor.verdict import js_distance, psi

REPLAYS = 2000
WINDOWS = 16
SAMPLES = 50

EVEN = np.full(10, 0.1)
STEEP = 0.5 ** np.arange(1, 11)
RARE = np.concatenate([[0.9], np.full(19, 0.1 / 19)])
COIN = np.array([0.5, 0.5])


def _null(
    truth: NDArray[np.float64], size: int, *, replays: int = REPLAYS, seed: int = 7
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    truth = truth / truth.sum()
    reference = random.multinomial(size, truth, size=replays).astype(np.float64)
    return reference, random.multinomial(SAMPLES, truth, size=(replays, WINDOWS)).astype(np.float64)


def _limit(alpha: float, replays: int = REPLAYS) -> float:
    """Return the count of alarms that a true rate of alpha exceeds with probability below 1e-4."""
    return alpha * replays + 4 * math.sqrt(alpha * (1 - alpha) * replays)


@given(st.lists(st.floats(1e-3, 1e7), min_size=1, max_size=20))
def test_log_gamma_equals_the_standard_librarys(values: list[float]) -> None:
    expected = [math.lgamma(value) for value in values]
    assert log_gamma(np.array(values)) == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(
    ("truth", "ordered"), [(STEEP, True), (COIN, False)], ids=["steep histogram", "coin"]
)
def test_the_false_alarm_rate_holds_on_a_few_streams(truth: NDArray[np.float64], ordered: bool) -> None:
    reference, windows = _null(truth, 20, replays=300)
    highest = evidence(reference, windows, ordered=ordered).log_e.max(axis=-1)
    for alpha in (0.05, 0.01):
        assert (highest >= -math.log(alpha)).sum() <= _limit(alpha, 300)


@pytest.mark.slow
@pytest.mark.parametrize("size", [20, 300])
@pytest.mark.parametrize(
    ("truth", "ordered"),
    [(EVEN, True), (EVEN, False), (STEEP, True), (STEEP, False), (RARE, False), (COIN, False)],
    ids=["even histogram", "even classes", "steep histogram", "steep classes", "rare classes", "coin"],
)
def test_the_false_alarm_rate_holds_over_whole_streams(
    truth: NDArray[np.float64], ordered: bool, size: int
) -> None:
    reference, windows = _null(truth, size)
    highest = evidence(reference, windows, ordered=ordered).log_e.max(axis=-1)
    for alpha in (0.05, 0.01, 0.001):
        assert (highest >= -math.log(alpha)).sum() <= _limit(alpha)


@pytest.mark.slow
def test_the_false_alarm_rate_holds_where_edges_are_the_references_own_quantiles() -> None:
    random = np.random.default_rng(3)
    for size in (20, 200):
        values = random.random((REPLAYS, size))
        edges = np.quantile(values, np.linspace(0, 1, 11), axis=1).T
        reference = np.stack([np.histogram(row, edge)[0] for row, edge in zip(values, edges, strict=True)])
        # As bundles do it: an empty bin on either side takes what the reference never saw.
        border = np.zeros((REPLAYS, 1))
        reference = np.concatenate([border, reference, border], axis=1)
        edges = np.concatenate([border, edges, border + 1], axis=1)
        windows = np.stack([random.multinomial(SAMPLES, np.diff(edge), size=WINDOWS) for edge in edges])
        highest = evidence(reference, windows.astype(np.float64), ordered=True).log_e.max(axis=-1)
        for alpha in (0.05, 0.01, 0.001):
            assert (highest >= -math.log(alpha)).sum() <= _limit(alpha)


def _log_beta(x: float, y: float) -> float:
    return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)


def test_one_window_has_an_expected_e_value_of_one_at_most() -> None:
    # Exact, over all outcomes: two bins, a Beta prior of the mixture, five samples.
    reference = np.array([3.0, 4.0])
    counts = np.array([[k, 5 - k] for k in range(6)], dtype=float)
    log_e = evidence(np.tile(reference, (6, 1)), counts[:, None, :], ordered=False).log_e[:, 0]
    for prior in PRIORS:
        a, b = reference + prior
        predictive = [
            math.comb(5, k) * math.exp(_log_beta(a + k, b + 5 - k) - _log_beta(a, b)) for k in range(6)
        ]
        assert sum(predictive) == pytest.approx(1)
        assert np.dot(predictive, np.exp(log_e)) <= 1 + 1e-9


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_mixture_over_starts_is_a_supermartingale_one_step_ahead(seed: int) -> None:
    # E[e after one more sample | past] <= e, under every prior of the null, exactly over the outcomes.
    random = np.random.default_rng(seed)
    reference = random.integers(0, 6, size=3).astype(float) + 1
    past = random.integers(0, 8, size=(4, 3)).astype(float)
    now = evidence(reference, past, ordered=False).log_e[-1]
    nexts = [np.concatenate([past, outcome[None]]) for outcome in np.eye(3)]
    log_e = np.array([evidence(reference, each, ordered=False).log_e[-1] for each in nexts])
    known = reference + past.sum(axis=0)
    for prior in PRIORS:
        _upper_bound(known, prior, log_e, now, reference, past)


def _upper_bound(
    known: NDArray[np.float64],
    prior: float,
    log_e: NDArray[np.float64],
    now: float,
    reference: NDArray[np.float64],
    past: NDArray[np.float64],
) -> None:
    # The smallest of several martingales need not be one itself; its ceiling, the process with this one
    # prior as denominator, is, and lies above it at every step.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeq.monitor.eprocess.PRIORS", (prior,))
        single_now = evidence(reference, past, ordered=False).log_e[-1]
        single = np.array(
            [
                evidence(reference, np.concatenate([past, outcome[None]]), ordered=False).log_e[-1]
                for outcome in np.eye(3)
            ]
        )
    chances = (known + prior) / (known + prior).sum()
    assert np.dot(chances, np.exp(single)) <= math.exp(single_now) * (1 + 1e-9)
    assert (log_e <= single + 1e-9).all()
    assert now <= single_now + 1e-9


@pytest.mark.parametrize(("shift_sd", "most_windows"), [(0.5, 5), (1.0, 1)])
def test_a_visible_shift_of_the_mean_is_detected_soon(shift_sd: float, most_windows: int) -> None:
    random = np.random.default_rng(11)
    delays = []
    for _ in range(60):
        values = random.normal(size=300)
        edges = np.quantile(values, np.linspace(0, 1, 11))
        reference, _ = np.histogram(values, edges)
        inner = edges[1:-1]
        field = random.normal(shift_sd, size=(20, SAMPLES))
        bins = [np.bincount(np.searchsorted(inner, row), minlength=10) for row in field]
        windows = np.stack(bins).astype(np.float64)
        reached = np.flatnonzero(evidence(reference, windows, ordered=True).log_e >= math.log(1000))
        delays.append(reached[0] + 1 if len(reached) else 999)
    assert np.median(delays) <= most_windows
    assert np.mean(np.array(delays) <= 20) >= 0.95


def test_a_late_shift_is_detected_and_dated() -> None:
    random = np.random.default_rng(5)
    reference = random.multinomial(500, EVEN).astype(np.float64)
    shifted = np.roll(STEEP / STEEP.sum(), 3) * 0.6 + EVEN * 0.4
    windows = np.concatenate(
        [random.multinomial(SAMPLES, EVEN, size=60), random.multinomial(SAMPLES, shifted, size=10)]
    )
    process = evidence(reference, windows, ordered=False)
    alarm = np.flatnonzero(process.log_e >= math.log(1000))[0]
    assert 60 <= alarm <= 65
    assert 58 <= process.start[-1] <= 62


def test_a_batch_is_judged_as_each_alone() -> None:
    reference, windows = _null(EVEN, 100)
    batch = evidence(reference[:3], windows[:3], ordered=True).log_e
    for index in range(3):
        alone = evidence(reference[index], windows[index], ordered=True).log_e
        assert batch[index] == pytest.approx(alone)


def test_an_empty_window_adds_no_evidence() -> None:
    process = evidence(np.array([5, 5]), np.zeros((1, 2)), ordered=False)
    assert process.log_e[0] == pytest.approx(0)


def test_the_average_is_the_average() -> None:
    assert average(np.log(np.array([[1.0], [3.0]])))[0] == pytest.approx(math.log(2))


def test_effect_sizes_match_their_definitions() -> None:
    equal = np.array([10, 20, 30])
    assert psi(equal, equal * 100) == pytest.approx(0, abs=0.01)
    assert js_distance(equal, equal * 3) == pytest.approx(0, abs=1e-9)
    assert js_distance(np.array([5, 0]), np.array([0, 9])) == pytest.approx(1)
    p, q = np.array([0.25, 0.75]), np.array([0.5, 0.5])
    expected = 0.25 * math.log(2) + (-0.25) * math.log(2 / 3)
    assert psi(p * 10**8, q * 10**8) == pytest.approx(expected, rel=1e-6)
