"""The latency sketch: quantiles within 1 percent, exact merging, and the same figures on device and host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq_agent.telemetry import ddsketch
from edgeq_agent.telemetry.window import parse
from tests.telemetry.golden import entries

FRACTIONS = (0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


def _sketch(values: list[int]) -> ddsketch.Sketch:
    builder = ddsketch.SketchBuilder()
    for value in values:
        builder.add(value)
    return builder.build()


def test_quantiles_are_within_the_relative_accuracy() -> None:
    values = np.random.default_rng(7).lognormal(11, 1, 20_000).astype(int).tolist()
    sketch = _sketch(values)
    values.sort()
    for fraction in FRACTIONS:
        exact = values[int(fraction * (len(values) - 1))]
        assert abs(sketch.quantile_ns(fraction) - exact) <= 0.0101 * exact
    assert (sketch.min_ns, sketch.max_ns, sketch.sum_ns) == (values[0], values[-1], sum(values))
    assert sketch.mean_ns == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    "entry", [e for e in entries() if e["unclamped_quantiles_ns"]], ids=lambda e: e["name"]
)
def test_recorded_quantiles_hold_and_stay_between_the_extremes(entry: dict[str, Any]) -> None:
    """The device's sketch did not clamp when these were recorded; the host's did, and now both do."""
    sketch = parse(entry["window"]).latency
    for fraction, unclamped in entry["unclamped_quantiles_ns"].items():
        expected = min(max(unclamped, sketch.min_ns), sketch.max_ns)
        assert sketch.quantile_ns(float(fraction)) == expected
    assert sketch.quantile_ns(0.0) >= sketch.min_ns
    assert sketch.quantile_ns(1.0) <= sketch.max_ns


def test_a_bucket_beyond_every_float_gives_the_exact_maximum() -> None:
    sketch = ddsketch.Sketch(relative_accuracy=0.5, counts={20_000: 1}, count=1, sum_ns=9, min_ns=9, max_ns=9)
    assert sketch.quantile_ns(0.5) == 9


def test_clamping_never_makes_a_quantile_worse() -> None:
    random = np.random.default_rng(9)
    for _ in range(200):
        values = sorted(random.lognormal(9, 2, random.integers(1, 12)).astype(int) + 1)
        sketch = _sketch([int(value) for value in values])
        for fraction in FRACTIONS:
            rank = fraction * (len(values) - 1)
            exact = values[int(rank)]
            unclamped = ddsketch.bucket_middle(ddsketch.bucket_at(sketch.counts, rank), sketch.gamma)
            assert abs(sketch.quantile_ns(fraction) - exact) <= abs(unclamped - exact)


def test_merged_sketches_equal_one_over_all_samples() -> None:
    values = np.random.default_rng(8).integers(1, 10**9, 3000).tolist()
    parts = [_sketch(values[0::2]), _sketch(values[1::2]), ddsketch.Sketch()]
    assert ddsketch.merge(parts) == _sketch(values)
    assert ddsketch.merge(reversed(parts)) == _sketch(values)
    assert ddsketch.merge([parts[2]]) == ddsketch.merge([]) == ddsketch.Sketch()


def test_sketches_of_different_accuracy_do_not_merge() -> None:
    other = ddsketch.Sketch(relative_accuracy=0.02, counts={3: 1}, count=1, sum_ns=1, min_ns=1, max_ns=1)
    with pytest.raises(ValueError, match=r"different relative accuracy cannot be merged: 0\.01, 0\.02"):
        ddsketch.merge([_sketch([5]), other])


def test_an_empty_sketch_has_no_quantile_and_zero_counts_as_1_ns() -> None:
    with pytest.raises(ValueError, match="empty sketch"):
        ddsketch.Sketch().quantile_ns(0.5)
    assert _sketch([0]).to_json()["counts"] == {"0": 1}
