"""Histograms of parts of the samples: counted in one pass, they equal those of a pass over each part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.observe import observe  # noqa: E402
from edgeq_converters.calibration.observed import observe_parts  # noqa: E402
from edgeq_converters.data.partition import partition, split  # noqa: E402
from edgeq_converters.data.samples import Samples, pick  # noqa: E402
from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402

from .nets import net, quiet, samples  # noqa: E402


def with_repeats(given: Samples) -> Samples:
    return pick(given, np.append(np.arange(len(given)), [0, 0, 3]))


@pytest.mark.parametrize("count", [24, 120])  # in four folds, and in one
def test_parts_equal_passes_of_their_own(count: int) -> None:
    model = normalize(net())
    given = with_repeats(samples(model, count))
    parts = partition(given, seed=0)
    observed = observe_parts(model, given, parts, advance=quiet)
    assert observed.all == observe(model, given, advance=quiet)
    for fold in parts.folds:
        assert observed.of(fold.fit) == observe(model, fold.fit, advance=quiet)
        assert observed.of(fold.held_out) == observe(model, fold.held_out, advance=quiet)
    assert observed.of(split(given, seed=7).folds[0].fit) is None  # of another division


def test_samples_that_depend_on_each_other_are_counted_together() -> None:
    model = normalize(net())
    given = samples(model, 24)
    sequence = replace(given, begins=np.arange(24) % 12 == 0)
    observed = observe_parts(model, sequence, partition(given, seed=0), advance=quiet)
    assert len(observed.groups) == 1
    assert observed.of(partition(given, seed=0).folds[0].fit) is None


def test_values_that_are_not_finite_are_counted_over_all_parts() -> None:
    model = normalize(net())
    given = samples(model, 24)
    given.arrays[0].reshape(24, -1)[::2, 0] = np.nan
    parts = partition(given, seed=0)
    with pytest.raises(ConverterError) as alone:
        observe(model, given, advance=quiet)
    with pytest.raises(ConverterError) as apart:
        observe_parts(model, given, parts, advance=quiet)
    assert str(apart.value) == str(alone.value)
