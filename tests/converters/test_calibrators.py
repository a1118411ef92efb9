"""Each calibrator against its definition; every entry of CALIBRATORS has a test here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq.cli import main
from edgeq_converters.calibration.calibrators import AUTO, CALIBRATORS, calibrator_of, usage
from edgeq_converters.calibration.histogram import Histogram, Observer, histogram_of
from edgeq_converters.calibration.qparams import INT8, INT16

Values = npt.NDArray[np.float32]
# Without subnormals: libraries that this process may have loaded turn them into zero.
FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
VALUES = arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 9)), elements=FLOATS)
NAMES = sorted(CALIBRATORS)


def heavy_tailed(*, relu: bool = False) -> Values:
    values = np.random.default_rng(5).standard_t(3, size=(100, 2000)).astype(np.float32)
    return np.maximum(values, 0) if relu else values


def squared_error(values: Values, bounds: tuple[float, float]) -> float:
    exact = values.astype(np.float64)
    return float(np.mean(np.square(INT8.rounded(exact, *bounds) - exact)))


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", NAMES)
@given(values=VALUES, random=st.randoms(use_true_random=False), size=st.integers(1, 5))
def test_neither_order_nor_batches_nor_merging_change_a_range(
    name: str, values: Values, random: object, size: int
) -> None:
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    observer = Observer()
    for start in range(0, len(values), size):
        observer.add(values[order][start : start + size])
    half = len(values) // 2
    merged = histogram_of(values[half:]).merge(histogram_of(values[:half])) if half else histogram_of(values)
    decide = calibrator_of(name)
    assert decide(observer.histogram()) == decide(histogram_of(values)) == decide(merged)


@pytest.mark.first_is_quick
@pytest.mark.parametrize("grid", [INT8, INT16])
@pytest.mark.parametrize("name", NAMES)
@given(values=VALUES)
def test_a_range_lies_within_the_extremes(name: str, grid: object, values: Values) -> None:
    low, high = calibrator_of(name)(histogram_of(values), grid)  # type: ignore[arg-type]
    assert float(values.min()) <= low <= high <= float(values.max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 2.5, -3.25, 1e-30])
def test_a_constant_tensor_keeps_its_value(name: str, value: float) -> None:
    low, high = calibrator_of(name)(histogram_of(np.full((4, 6), value, np.float32)))
    assert low == high == pytest.approx(value, rel=0.0)


def test_minmax_clips_nothing() -> None:
    values = heavy_tailed()
    assert calibrator_of("minmax")(histogram_of(values)) == (float(values.min()), float(values.max()))


def test_ema_is_the_mean_of_the_samples_extremes() -> None:
    values = heavy_tailed()
    low, high = calibrator_of("ema")(histogram_of(values))
    assert low == pytest.approx(values.min(axis=1).mean(), rel=0.005)
    assert high == pytest.approx(values.max(axis=1).mean(), rel=0.005)


def test_ema_is_what_a_moving_average_gives_over_many_orders() -> None:
    values, random = heavy_tailed()[:20], np.random.default_rng(2)

    def moving(order: npt.NDArray[np.int64]) -> float:
        average = float(values[order[0]].max())
        for row in values[order[1:]]:
            average = 0.95 * average + 0.05 * float(row.max())
        return average

    averages = [moving(random.permutation(20)) for _ in range(2000)]
    _, high = calibrator_of("ema")(histogram_of(values))
    assert abs(high - np.mean(averages)) < 4 * np.std(averages) / np.sqrt(2000)
    assert np.std(averages) > 1  # what one order gives says little


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("relu", [False, True])
def test_percentile_is_numpys_on_both_sides(percent: float, relu: bool) -> None:
    values = heavy_tailed(relu=relu)
    low, high = calibrator_of(f"percentile:{percent}")(histogram_of(values))
    assert low == pytest.approx(np.percentile(values, 100 - percent), rel=0.01, abs=1e-6)
    assert high == pytest.approx(np.percentile(values, percent), rel=0.01)


def test_clip_takes_its_share_of_each_end() -> None:
    values = np.array([[-2.0, -1.0, 0.0, 3.0, 4.0]], np.float32)
    assert calibrator_of("clip:0.5")(histogram_of(values)) == (-1.0, 2.0)
    assert calibrator_of("clip:1")(histogram_of(values)) == calibrator_of("minmax")(histogram_of(values))
    assert calibrator_of("clip:0.5")(histogram_of(values[:, 3:])) == (3.0, 3.0)  # nothing below zero to cut
    same_sign = np.array([[3.0], [4.0]], np.float32)  # half of an extreme would lie beyond the other one
    assert calibrator_of("clip:0.5")(histogram_of(same_sign)) == (3.0, 3.0)
    assert calibrator_of("clip:0.5")(histogram_of(-same_sign)) == (-3.0, -3.0)


@pytest.mark.parametrize("share", ["0", "-1", "1.5", "nan"])
def test_clip_refuses_an_invalid_share(share: str) -> None:
    with pytest.raises(ValueError, match="clip: expected a share above 0"):
        calibrator_of(f"clip:{share}")


def test_percentile_has_bounds_and_a_default() -> None:
    histogram = histogram_of(heavy_tailed())
    assert calibrator_of("percentile")(histogram) == calibrator_of("percentile:99.99")(histogram)
    low, high = calibrator_of("percentile:50.1")(histogram)
    assert low < high
    for percent in ("50", "49.5", "100.01", "-1"):
        with pytest.raises(ValueError, match="above 50 and at most 100"):
            calibrator_of(f"percentile:{percent}")


def test_clip_has_a_default() -> None:
    histogram = histogram_of(heavy_tailed())
    assert calibrator_of("clip")(histogram) == calibrator_of("clip:0.85")(histogram)


def test_percentile_100_is_minmax() -> None:
    histogram = histogram_of(heavy_tailed())
    assert calibrator_of("percentile:100")(histogram) == calibrator_of("minmax")(histogram)


def test_entropy_cuts_a_far_outlier_and_keeps_an_even_spread() -> None:
    random = np.random.default_rng(1)
    normal = random.normal(size=(50, 2000)).astype(np.float32)
    normal[0, 0] = 60
    low, high = calibrator_of("entropy")(histogram_of(normal))
    assert -5 < low < -3
    assert 3 < high < 10
    even = random.uniform(-1, 1, size=(50, 2000)).astype(np.float32)
    low, high = calibrator_of("entropy")(histogram_of(even))
    assert high - low > 1.9


def entropy_by_definition(histogram: Histogram, bins: int = 2048) -> float:
    """Return the threshold of the least divergence, one value at a time."""
    largest = max(abs(histogram.minimum), abs(histogram.maximum))
    width = largest / bins
    counts = [0.0] * bins
    for low, high, number in zip(*(part.tolist() for part in histogram.bins()), strict=True):
        near, far = sorted((abs(low), abs(high)))
        if near == far:
            counts[min(int(far / width), bins - 1)] += number
        for at in range(int(near / width), bins):
            if near < far and at * width < far:
                overlap = min(far, (at + 1) * width) - max(near, at * width)
                counts[at] += number * max(overlap, 0.0) / (far - near)
    counts[0] = counts[1]
    levels = 128 if histogram.minimum < 0 < histogram.maximum else 256
    best, least = 0, math.inf
    for kept in range(levels, bins + 1, levels // 16):
        sums, filled = [0.0] * levels, [0] * levels
        for at, count in enumerate(counts[:kept]):
            sums[at * levels // kept] += count
            filled[at * levels // kept] += count > 0
        p = [*counts[: kept - 1], counts[kept - 1] + sum(counts[kept:])]
        q = [
            sums[at * levels // kept] / filled[at * levels // kept] if counts[at] > 0 else 0.0
            for at in range(kept)
        ]
        divergence = sum(
            (share / sum(p)) * (math.log(share / sum_p / (other / sum_q)) if other > 0 else math.inf)
            for sum_p, sum_q in [(sum(p), sum(q))]
            for share, other in zip(p, q, strict=True)
            if share > 0
        )
        if divergence < least:
            best, least = kept, divergence
    return largest * best / bins


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signs", "unit"), [("both", 1), ("negative", 1), ("positive", 1), ("positive", 0.01)]
)
def test_entropy_is_its_definition(signs: str, unit: float) -> None:
    values = heavy_tailed()[:10] * np.float32(unit)
    if signs != "both":  # with 256 levels the threshold is another one than with 128
        values = np.minimum(values, 0)
    if signs == "positive":
        values = -values
    histogram = histogram_of(values)
    low, high = calibrator_of("entropy")(histogram)
    threshold = entropy_by_definition(histogram)
    assert threshold < 0.9 * max(histogram.maximum, -histogram.minimum)
    assert low == pytest.approx(max(histogram.minimum, -threshold))
    assert high == pytest.approx(min(histogram.maximum, threshold))


def test_entropy_keeps_an_exactly_even_spread_whole() -> None:
    even = np.linspace(-1, 1, 200_001, dtype=np.float32).reshape(1, -1)
    assert calibrator_of("entropy")(histogram_of(even)) == (-1.0, 1.0)


@pytest.mark.parametrize(("relu", "sign"), [(False, 1), (True, 1), (True, -1)])
def test_mse_has_at_most_the_error_of_its_neighbours(relu: bool, sign: int) -> None:
    values = np.float32(sign) * heavy_tailed(relu=relu)
    low, high = calibrator_of("mse")(histogram_of(values))
    error = squared_error(values, (low, high))
    width = high - low
    for share in (0.005, 0.01, 0.03):
        for down, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1)):
            moved = low - down * share * width, high + up * share * width
            assert error <= squared_error(values, moved) * 1.0005


@pytest.mark.parametrize("sign", [1, -1])
def test_mse_clips_each_end_alone_on_an_asymmetric_grid(sign: int) -> None:
    values = np.linspace(-1, 1, 1_000_001, dtype=np.float32)
    values[-1] = 10
    values *= sign
    low, high = calibrator_of("mse")(histogram_of(values))
    near, far = (-low, high) if sign > 0 else (high, -low)
    assert near > 0.97, "nothing to gain at the end without an outlier"
    assert far < 8, "the end with the outlier is clipped"
    low, high = calibrator_of("mse")(histogram_of(values), INT16)
    extremes = sorted((float(values[0]), float(values[-1])))
    assert low / extremes[0] == pytest.approx(high / extremes[1]), "one scale, so one ratio"


@pytest.mark.parametrize("relu", [False, True])
def test_mse_has_the_least_error_of_all_and_of_a_fine_search(relu: bool) -> None:
    values = heavy_tailed(relu=relu)
    histogram = histogram_of(values)
    error = squared_error(values, calibrator_of("mse")(histogram))
    others = [squared_error(values, calibrator_of(name)(histogram)) for name in NAMES]
    ends = np.linspace(0.1, 1, 15)
    fine = [
        squared_error(values, (low * float(values.min()), high * float(values.max())))
        for low in (ends if not relu else [0.0])
        for high in ends
    ]
    assert error <= min(*others, *fine) * 1.01


def test_the_grid_equals_litert_quantizer_s() -> None:
    scale, zero = INT8.parameters(-1.0, 3.0)
    assert scale == pytest.approx(4 / 255)
    assert zero == round(-128 + 255 / 4)
    assert INT8.parameters(1.0, 3.0) == INT8.parameters(0.0, 3.0)  # zero is always on the grid
    assert INT16.parameters(-1.0, 3.0) == (3.0 / 32767, 0)
    assert INT8.parameters(0.0, 0.0)[0] > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mze", "did you mean 'mse'"),
        ("percentil:99", "did you mean 'percentile'"),
        ("", "known are minmax"),
        ("percentile:", "expected a number"),
        ("percentile:many", "expected a number after the colon, got 'many'"),
        ("percentile:40", "above 50"),
        ("percentile:100.5", "at most 100"),
        ("percentile:nan", "above 50"),
        ("mse:3", "takes no parameter"),
    ],
)
def test_an_unknown_name_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibrator_of(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_calibrator_has_an_entry_here(name: str) -> None:
    own: list[Callable[..., None]] = [
        entry for key, entry in globals().items() if key.startswith("test_" + name)
    ]
    assert own


def test_the_help_of_convert_lists_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert usage() in words
    assert all(f"{name}" in usage() for name in (*NAMES, AUTO))
    assert "percentile[:PERCENT]" in usage()


@pytest.mark.parametrize("name", NAMES)
def test_the_candidates_of_auto_are_calibrators_of_their_own_entry(name: str) -> None:
    entry = CALIBRATORS[name]
    candidates = (*entry.whole_model, *entry.single_tensors)
    assert all(spec.split(":")[0] == name for spec in candidates)
    assert all(isinstance(calibrator_of(spec), entry.kind) for spec in candidates)
    assert set(entry.when_costly) <= set(candidates)
