"""The latency ratio covers at every look, with hot devices and with arms of very unequal size."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from edgeq.experiment import ratios
from edgeq.experiment.arm_counts import ArmCounts, ArmWindow, Block, blocks, quantile_bucket, share_up_to
from edgeq.experiment.confidence_sequence import NOTHING, radius
from edgeq.experiment.ratios import ratio_interval

ACCURACY = 0.01
STEP = math.log((1 + ACCURACY) / (1 - ACCURACY))


def part(latencies_ns: np.ndarray) -> ArmCounts:
    buckets = np.ceil(np.log(latencies_ns) / STEP).astype(int)
    return ArmCounts(latency=dict(Counter(buckets.tolist())), accuracy=ACCURACY)


def made(
    random: np.random.Generator, count: int, ratio: float, *, a: int = 40, b: int = 4, devices: int = 3
) -> list[Block]:
    """Return blocks of devices of different speed that are throttled for long stretches."""
    observed = []
    heat = np.zeros(devices)
    for number in range(count):
        device = number % devices
        heat[device] = 0.97 * heat[device] + 0.1 * random.normal()
        speed = 1e6 * (1 + device) * math.exp(heat[device])
        sides = [speed * random.lognormal(0, 0.4, size) for size in (a, b)]
        observed.append(Block(device=f"pi{device}", a=part(sides[0]), b=part(sides[1] * ratio)))
    return observed


@pytest.mark.slow
@pytest.mark.parametrize("quantile", [0.5, 0.95])
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_it_holds_at_every_look(quantile: float, ratio: float) -> None:
    runs, alpha, missed = 30, 0.05, 0
    for run in range(runs):
        observed = made(np.random.default_rng(run), 180, ratio)
        looks = [ratio_interval(observed[:end], quantile, alpha=alpha)[0] for end in range(20, 181, 20)]
        missed += any(not interval.holds(ratio) for interval in looks)
    assert missed <= 5, "of 30 at most 1 or 2 are expected"


def test_an_interval_that_assumes_independent_calls_is_soon_wrong() -> None:
    """Heat comes and goes in both arms; one that only B's windows saw would look like B's doing."""
    random = np.random.default_rng(3)
    missed = 0
    for _ in range(40):
        heat, shares = 0.0, []
        for _ in range(60):  # B runs alone, in another stretch of time than A
            heat = 0.97 * heat + 0.1 * random.normal()
            shares.append((random.lognormal(heat, 0.4, 40) <= 1).mean())
        spread = 1.96 * math.sqrt(0.25 / (60 * 40))
        missed += abs(np.mean(shares) - 0.5) > spread
    assert missed > 12, "this is why both arms run at the same time, and a block is one value"


@pytest.mark.slow
def test_arms_of_very_different_size_show_no_false_difference() -> None:
    """A sample quantile is biased, and more so for the smaller arm: over many blocks that would show."""
    observed = made(np.random.default_rng(4), 3000, 1.0, a=100, b=3, devices=1)
    interval, estimate, units = ratio_interval(observed, 0.95, alpha=0.05)
    assert interval.low <= 1 <= interval.high
    assert interval.high / interval.low < 1.25
    assert estimate is not None
    assert abs(estimate - 1) < 0.05
    assert units == 2999, "the first block only sets the threshold"
    by_block = [
        quantile_bucket(one.b.latency, 0.95) - quantile_bucket(one.a.latency, 0.95) for one in observed
    ]
    assert np.mean(by_block) < -5, "the plain comparison of quantiles is off by a tenth"


@pytest.mark.slow
def test_a_slow_release_is_detected_to_the_resolution_of_the_sketch() -> None:
    observed = made(np.random.default_rng(5), 2000, 1.5, a=60, b=60)
    interval, estimate, _ = ratio_interval(observed, 0.95, alpha=0.05)
    assert 1.3 < interval.low < 1.5 < interval.high < 1.7
    assert estimate is not None
    assert abs(estimate - 1.5) < 0.06
    same = made(np.random.default_rng(6), 20_000, 1.0, a=200, b=200, devices=1)
    interval, _, _ = ratio_interval(same, 0.5, alpha=0.05)
    gamma = math.exp(STEP)
    assert interval.low >= gamma**-2.5
    assert interval.high <= gamma**2.5
    assert interval.low <= 1 / gamma * 1.0001


def test_few_blocks_give_an_open_interval() -> None:
    random = np.random.default_rng(7)
    assert ratio_interval([], 0.5, alpha=0.05)[0].is_open
    assert ratio_interval(made(random, 1, 1.0), 0.5, alpha=0.05)[2] == 0
    interval, _, units = ratio_interval(made(random, 8, 1.0), 0.5, alpha=0.05)
    assert (interval.is_open, units) == (True, 5)


def test_a_ratio_beyond_the_grid_has_one_finite_end() -> None:
    observed = made(np.random.default_rng(8), 400, 30.0)
    interval, estimate, _ = ratio_interval(observed, 0.5, alpha=0.05)
    reach = math.exp(STEP) ** 120
    assert interval.low == pytest.approx(reach), "every step of the grid is excluded"
    assert interval.high == math.inf
    assert estimate is None
    observed = made(np.random.default_rng(8), 400, 1 / 30)
    interval, estimate, _ = ratio_interval(observed, 0.5, alpha=0.05)
    assert interval.low == -math.inf
    assert interval.high == pytest.approx(1 / reach)
    assert estimate is None


def test_buckets_are_counted_with_sharp_edges() -> None:
    one = ArmCounts(latency={10: 5, 12: 4, 20: 1}, accuracy=ACCURACY)
    assert [share_up_to(one.latency, bucket) for bucket in (9, 10, 11, 12, 20)] == [0, 0.5, 0.5, 0.9, 1]
    assert [quantile_bucket(one.latency, fraction) for fraction in (0.1, 0.5, 0.51, 0.9, 0.95)] == [
        10,
        10,
        12,
        12,
        20,
    ]


def test_a_block_ends_when_both_arms_have_a_value() -> None:
    def seen(device: str, arm: str, count: int) -> ArmWindow:
        return ArmWindow(device=device, arm=arm, counts=ArmCounts(labelled=count, correct=count))

    windows = [
        seen("x", "a", 3), seen("y", "b", 1), seen("x", "a", 2), seen("x", "b", 0), seen("x", "b", 1),
        seen("y", "a", 4), seen("x", "a", 9),
    ]  # fmt: skip
    observed = blocks(windows, lambda part: part.labelled)
    assert [(one.device, one.a.labelled, one.b.labelled) for one in observed] == [("x", 5, 1), ("y", 4, 1)]


def _thresholds(blocks_: list[Block], quantile: float) -> list[tuple[Block, int]]:
    """Return each block with the quantile of A in its last blocks: 10, or as few as have 200 calls."""
    thresholds = []
    for at, block in enumerate(blocks_):
        past: list[ArmCounts] = []
        for before in reversed(blocks_[:at]):
            if before.device == block.device:
                if len(past) == 10 or sum(sum(counts.latency.values()) for counts in past) >= 200:
                    break
                past.append(before.a)
        if past:
            latency: Counter[int] = Counter()
            for counts in past:
                latency.update(counts.latency)
            thresholds.append((block, quantile_bucket(latency, quantile)))
    return thresholds


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("a", "b", "ratio", "quantile"),
    [
        (40, 4, 1.0, 0.5),
        (90, 30, 1.4, 0.95),
        (7, 7, 0.5, 0.5),
        (250, 60, 1.1, 0.95),
        (199, 30, 1.0, 0.5),  # two blocks: one alone has one call too few
        (3, 40, 1.0, 0.95),  # never 200 calls in ten blocks
    ],
)
def test_the_ends_are_the_steps_of_the_grid_that_the_bound_excludes(
    a: int, b: int, ratio: float, quantile: float
) -> None:
    """A ratio is excluded when the sum of the blocks' values at it is further from 0 than the bound."""
    observed = made(np.random.default_rng(a), 110, ratio, a=a, b=b)
    compared = _thresholds(observed, quantile)
    sums = {}
    for step in range(-120, 121):
        values = [
            share_up_to(block.b.latency, threshold + step) - share_up_to(block.a.latency, threshold)
            for block, threshold in compared
        ]
        sums[step] = (sum(values), float(radius(np.array(sum(value**2 for value in values)), 0.05)))
    too_small = [step for step, (total, bound) in sums.items() if total + bound < 0]
    too_large = [step for step, (total, bound) in sums.items() if total - bound > 0]
    interval, estimate, units = ratio_interval(observed, quantile, alpha=0.1)
    gamma = math.exp(STEP)
    assert units == len(compared)
    assert interval.low == pytest.approx(gamma ** max(too_small) if too_small else -math.inf)
    assert interval.high == pytest.approx(gamma ** min(too_large) if too_large else math.inf)
    crossing = next(step for step, (total, _) in sums.items() if total / units >= -1e-9)
    assert estimate == pytest.approx(gamma ** (crossing - 0.5))


@pytest.mark.parametrize("cells", [1, 500])
def test_the_interval_does_not_depend_on_the_piece_size(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    observed = made(np.random.default_rng(10), 110, 1.4)
    whole = ratio_interval(observed, 0.5, alpha=0.1)
    assert not whole[0].is_open
    monkeypatch.setattr(ratios, "CELLS", cells)
    assert ratio_interval(observed, 0.5, alpha=0.1) == whole


def test_sketches_of_different_accuracy_are_not_compared() -> None:
    observed = made(np.random.default_rng(9), 40, 1.0)
    coarse = ArmCounts(latency=observed[-1].b.latency, accuracy=2 * ACCURACY)
    mixed = [*observed[:-1], Block(device=observed[-1].device, a=observed[-1].a, b=coarse)]
    assert ratio_interval(mixed, 0.5, alpha=0.05) == (NOTHING, None, 0)
