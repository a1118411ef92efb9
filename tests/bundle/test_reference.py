"""The drift reference: bins that hold everything the reference saw, and room for what it never saw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq.bundle.reference import build_reference, channel_means, confidence_of, is_probabilities
from edgeq.errors import BundleError


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def test_channels_are_the_last_axis() -> None:
    images = np.zeros((2, 4, 4, 3))
    images[1, :, :, 2] = 5
    assert channel_means(images).tolist() == [[0, 0, 0], [0, 0, 5]]


@pytest.mark.parametrize("shape", [(3, 7), (3, 4, 4, 17), (3,)])
def test_vectors_and_many_channels_are_pooled(shape: tuple[int, ...]) -> None:
    assert channel_means(np.ones(shape)).tolist() == [[1], [1], [1]]


def test_probabilities_and_logits_are_distinguished() -> None:
    scores = np.random.default_rng(1).normal(size=(50, 10))
    assert not is_probabilities(scores)
    assert is_probabilities(softmax(scores))
    rounded = np.round(softmax(scores) * 256) / 256  # what an int8 softmax gives
    assert is_probabilities(rounded)
    assert np.allclose(confidence_of(scores, "logits"), confidence_of(softmax(scores), "probabilities"))


values = arrays(np.float64, st.integers(20, 200), elements=st.floats(-1e6, 1e6, width=32))


@given(values)
def test_every_value_is_counted_inside_and_the_outer_bins_are_empty(sample: np.ndarray) -> None:
    scores = np.tile([0.25, 0.75], (len(sample), 1))
    document = build_reference({"x": sample}, scores)
    (histogram,) = document["inputs"][0]["channels"]
    edges, counts = histogram["edges"], histogram["counts"]
    assert len(edges) == len(counts) + 1 >= 4
    assert edges == sorted(set(edges))
    assert sum(counts) == len(sample)
    assert counts[0] == counts[-1] == 0


def test_what_it_says_of_the_output() -> None:
    scores = np.tile([0.1, 0.9], (30, 1))
    output = build_reference({"x": np.arange(30.0)}, scores)["output"]
    assert output["classes"] == 2
    assert output["predicted"] == [0, 30]
    assert output["confidence_from"] == "probabilities"
    assert sum(output["confidence"]["counts"]) == 30


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(BundleError, match="at least 20 samples"):
        build_reference({"x": np.zeros(19)}, np.zeros((19, 2)))
