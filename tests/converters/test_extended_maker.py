"""A model of all samples keeps the equalization that was judged, and takes its ranges from all samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.observe import observe  # noqa: E402
from edgeq_converters.calibration.ranges import calibrated_ranges  # noqa: E402
from edgeq_converters.data.partition import all_to_fit, split  # noqa: E402
from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.quantization.autotune.making import Candidate, Maker  # noqa: E402
from edgeq_converters.quantization.equalization.scaling import Channels  # noqa: E402
from edgeq_converters.quantization.quantize import quantize  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .nets import net, quiet, samples  # noqa: E402


def reach(given: Samples) -> float:
    return float(np.abs(given.arrays[0]).max())


@pytest.mark.parametrize("sequences", [False, True])  # those of sequences are counted in one pass
def test_ranges_are_those_of_all_samples(sequences: bool) -> None:
    model = normalize(net(activation=3, spread=1.5))
    given = samples(model, 24)
    given.arrays[0][4] *= 3
    if sequences:
        given = replace(given, begins=np.arange(24) % 2 == 0)
    folds = [split(given, seed=seed).folds[0] for seed in range(20)]
    fold = next(each for each in folds if reach(each.held_out) > reach(each.fit))
    candidate, recipe = Candidate(calibrator="minmax", equalized=True), Recipe(scheme=Scheme.INT8)
    fitted = Maker(model, fold.fit, recipe=recipe, fixed_ranges=lambda _: {})
    judged = fitted.quantized(candidate)
    everything = all_to_fit(given)
    extended = fitted.extended(
        fold.held_out,
        fit=everything,
        fixed_ranges=lambda _: {},
        histograms=observe(model, everything, advance=quiet),
    )
    equalized = fitted.floating(True)
    assert extended.floating(True) is equalized
    assert equalized is not model
    counted = observe(equalized, everything, advance=quiet)
    ranges = calibrated_ranges(equalized, counted, calibrator="minmax")
    made = extended.quantized(candidate).model
    assert made.data == quantize(equalized, recipe=recipe, ranges=ranges).model.data
    assert made.data != judged.model.data


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (1000, 3), (70_001, 5), (513, 16)])
def test_statistics_of_channels_do_not_depend_on_how_they_are_summed(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=shape).astype(np.float32) * np.logspace(-3, 3, shape[1], dtype=np.float32)
    values[-1] *= 10  # the last row counts too
    channels = Channels.of(values)
    np.testing.assert_array_equal(channels.largest, np.abs(values).max(0))
    np.testing.assert_allclose(channels.power, np.square(values.astype(np.float64)).mean(0), rtol=1e-5)
