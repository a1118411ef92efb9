"""Corruptions: strength, range, places and repeatability, for images and for other arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.evaluation.corruptions import SEVERITIES, Corruption, Layout, Scale, corrupt

Real = npt.NDArray[np.float32]
SHAPES = {"image": (12, 16, 3), "steps": (24, 4), "row": (20,)}


def samples_of(kind: str, count: int = 6) -> Real:
    return np.random.default_rng(3).gamma(2.0, size=(count, *SHAPES[kind])).astype(np.float32)


def worse(samples: Real, corruption: Corruption, severity: int, seed: int = 0) -> Real:
    return corrupt(samples, corruption, severity, scale=Scale.of(samples), seed=seed)


def applicable(sample: tuple[int, ...]) -> tuple[Corruption, ...]:
    return Scale.of(np.random.default_rng(0).normal(size=(9, *sample))).corruptions


CASES = [(kind, corruption) for kind in SHAPES for corruption in Scale.of(samples_of(kind)).corruptions]


@pytest.mark.parametrize(("kind", "corruption"), CASES)
def test_a_higher_severity_changes_more(kind: str, corruption: Corruption) -> None:
    samples = samples_of(kind)
    copy = samples.copy()
    changed = [float(np.square(worse(samples, corruption, each) - samples).sum()) for each in SEVERITIES]
    assert changed[0] > 0
    assert changed == sorted(changed)
    assert changed[-1] > changed[0]
    assert np.array_equal(samples, copy)


@pytest.mark.parametrize(("kind", "corruption"), CASES)
def test_the_same_seed_gives_the_same_values(kind: str, corruption: Corruption) -> None:
    samples = samples_of(kind)
    first = worse(samples, corruption, 3, seed=5)
    assert first.shape == samples.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, worse(samples, corruption, 3, seed=5))
    random = corruption in (Corruption.NOISE, Corruption.OCCLUSION, Corruption.DROPPED_SENSOR)
    assert np.array_equal(first, worse(samples, corruption, 3, seed=6)) is not random


@pytest.mark.parametrize(("kind", "corruption"), CASES)
@settings(max_examples=20)
@given(factor=st.floats(0.01, 100), offset=st.floats(-50, 50))
def test_the_strength_follows_the_unit_of_the_data(
    kind: str, corruption: Corruption, factor: float, offset: float
) -> None:
    samples = samples_of(kind, 2)
    span = float(np.ptp(samples)) * factor
    expected = worse(samples, corruption, 3) * factor + offset
    other = worse(samples * np.float32(factor) + np.float32(offset), corruption, 3)
    # A pixel of JPEG is one of 256 values: rounding may choose the neighbour before the compression.
    allowed = 0.1 if corruption is Corruption.COMPRESSION else 1e-4
    assert np.abs(other - expected).max() <= allowed * span + 1e-4 * abs(offset)


def test_which_corruptions_fit() -> None:
    assert set(applicable((96, 96, 3))) == set(Corruption)
    assert set(applicable((49, 10, 1))) == set(Corruption)
    assert Corruption.COMPRESSION not in applicable((128, 9))
    assert {Corruption.BLUR, Corruption.DROPPED_SENSOR} <= set(applicable((128, 9)))
    assert Corruption.DROPPED_SENSOR not in applicable((128, 1))
    assert Corruption.BLUR not in applicable((20,))
    assert {Corruption.OCCLUSION, Corruption.DROPPED_SENSOR} <= set(applicable((20,)))
    assert set(applicable(())) == {
        Corruption.NOISE, Corruption.CONTRAST, Corruption.BRIGHTNESS, Corruption.CLIPPING
    }  # fmt: skip
    assert Corruption.BLUR in applicable((1, 128, 9))
    assert Corruption.COMPRESSION in applicable((28, 28, 1))
    assert Corruption.COMPRESSION not in applicable((4, 28, 1))
    assert Corruption.COMPRESSION not in applicable((28, 28, 2))


def test_a_table_of_features_differs_from_a_picture() -> None:
    # Coefficients of speech: the first one varies far more than the others.
    samples = np.random.default_rng(0).normal(size=(20, 49, 10, 1)).astype(np.float32)
    assert Layout.of(samples) == Layout(image=True, steps=None, channels=None)
    samples[:, :, 0] *= 20
    scale = Scale.of(samples)
    assert scale.layout == Layout(image=False, steps=1, channels=2)
    assert Corruption.COMPRESSION not in scale.corruptions
    assert Layout.of(samples.transpose(0, 2, 1, 3)) == Layout(image=False, steps=2, channels=1)
    for corruption in scale.corruptions:
        changed = corrupt(samples, corruption, 3, scale=scale, seed=0) - samples
        ratio = float(changed[:, :, 0].std() / changed[:, :, 1].std())
        assert 10 < ratio < 40, corruption
    # A picture with a dark border stays one.
    picture = np.zeros((20, 28, 28, 1), np.float32)
    picture[:, 4:24, 4:24] = np.random.default_rng(0).random((20, 20, 20, 1))
    assert Layout.of(picture).image


@pytest.mark.parametrize("corruption", [Corruption.NOISE, Corruption.BRIGHTNESS, Corruption.COMPRESSION])
def test_an_image_stays_in_its_range(corruption: Corruption) -> None:
    samples = samples_of("image")
    changed = worse(samples, corruption, 5)
    assert changed.min() >= samples.min() - 1e-4
    assert changed.max() <= samples.max() + 1e-4


def test_noise_has_the_stated_standard_deviation() -> None:
    samples = np.random.default_rng(0).normal(5, 2, size=(200, 50, 4)).astype(np.float32)
    noise = worse(samples, Corruption.NOISE, 1) - samples
    assert float(noise.std()) == pytest.approx(0.16 * 2, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)


def test_large_images_get_the_strengths_of_imagenet_c() -> None:
    samples = np.random.default_rng(0).random(size=(4, 80, 72, 3)).astype(np.float32)
    assert not Scale.of(samples).small
    means = samples.mean(axis=(1, 2), keepdims=True)
    changed = worse(samples, Corruption.CONTRAST, 1)
    assert np.allclose(changed - means, 0.4 * (samples - means), atol=1e-5)
    assert Scale.of(samples[:, :, :64]).small


def test_each_channel_has_a_scale_of_its_own() -> None:
    units = np.array([1, 1000], np.float32)
    samples = np.random.default_rng(0).normal(size=(50, 30, 2)).astype(np.float32) * units
    noise = worse(samples, Corruption.NOISE, 1) - samples
    assert float(noise[..., 1].std() / noise[..., 0].std()) == pytest.approx(1000, rel=0.1)


def test_contrast_moves_values_to_the_mean_of_their_channel() -> None:
    samples = samples_of("image")
    changed = worse(samples, Corruption.CONTRAST, 1)
    means = samples.mean(axis=(1, 2), keepdims=True)
    assert np.allclose(changed - means, 0.75 * (samples - means), atol=1e-5)


def test_a_square_of_an_image_is_covered_by_the_mean() -> None:
    samples = samples_of("image")
    changed = worse(samples, Corruption.OCCLUSION, 5)
    covered = (changed != samples).any(axis=3)
    assert covered.sum(axis=(1, 2)).tolist() == [7 * 10] * 6  # 0.6 of 12 and of 16
    assert np.allclose(changed[covered], samples.mean(), atol=1e-5)


def test_a_dropped_sensor_gives_its_own_mean() -> None:
    samples = samples_of("steps")
    changed = worse(samples, Corruption.DROPPED_SENSOR, 5)
    dropped = (changed != samples).all(axis=1)
    assert dropped.sum(axis=1).tolist() == [2] * 6
    for row, channel in zip(*np.nonzero(dropped), strict=True):
        assert np.allclose(changed[row, :, channel], samples[..., channel].mean(), atol=1e-5)


def test_clipping_cuts_off_what_is_far_from_the_mean() -> None:
    samples = np.array([[-3.0], [-1.0], [1.0], [3.0]], np.float32)  # mean 0, variance 5
    changed = worse(samples, Corruption.CLIPPING, 5)
    assert changed[:, 0] == pytest.approx([-np.sqrt(5) / 2, -1.0, 1.0, np.sqrt(5) / 2])


def test_constant_data_has_no_noise() -> None:
    samples = np.full((3, 16, 16, 1), 7.0, np.float32)
    for corruption in applicable((16, 16, 1)):
        assert np.allclose(worse(samples, corruption, 5), 7.0, atol=1e-4), corruption


def test_four_channels_are_compressed_one_by_one() -> None:
    samples = np.random.default_rng(1).random((2, 16, 16, 4)).astype(np.float32)
    changed = worse(samples, Corruption.COMPRESSION, 1)
    assert 0.005 < np.abs(changed - samples).mean() < 0.3
