"""The drift reference: bins that hold everything the reference saw, and room for what it never saw."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeq.bundle.drift_reference import parse_reference
from edgeq.bundle.reference import build_reference, channel_means, confidence_of, is_probabilities
from edgeq.errors import BundleError
from edgeq_agent import wire


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
    reference = build_reference({"x": sample}, scores)
    (histogram,) = reference.inputs[0].channels
    edges, counts = histogram.edges, histogram.counts
    assert len(edges) == len(counts) + 1 >= 4
    assert list(edges) == sorted(set(edges))
    assert sum(counts) == len(sample)
    assert counts[0] == counts[-1] == 0


def test_what_it_says_of_the_output() -> None:
    scores = np.tile([0.1, 0.9], (30, 1))
    output = build_reference({"x": np.arange(30.0)}, scores).output
    assert output.classes == 2
    assert output.predicted == (0, 30)
    assert output.confidence_from == "probabilities"
    assert sum(output.confidence.counts) == 30


def test_a_reference_that_is_written_is_read_back() -> None:
    reference = build_reference({"x": np.arange(60.0).reshape(20, 3)}, np.tile([0.25, 0.75], (20, 1)))
    data = wire.canonical(reference.to_json())
    assert parse_reference(data, subject="a.eqb") == reference
    assert wire.canonical(parse_reference(data, subject="a.eqb").to_json()) == data


HISTOGRAM = {"edges": [0, 0.5, 1], "counts": [1, 2]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": "edgeq.reference/9"}, "`schema`"),
        ({"inputs": None}, "`inputs`"),
        ({"inputs": [{"channels": []}]}, "`inputs.0.name`"),
        ({"inputs": [{"name": "x", "channels": [{"edges": [0]}]}]}, "`inputs.0.channels.0.counts`"),
        ({"output": {"predicted": [1.5], "confidence": HISTOGRAM}}, "`output.predicted.0`"),
        ({"output": {"predicted": [-1], "confidence": HISTOGRAM}}, "`output.predicted.0`"),
        ({"output": {"predicted": [], "confidence": {"edges": [0], "counts": []}}}, "`output.confidence`"),
        ({"output": {"predicted": [], "confidence": {**HISTOGRAM, "edges": [0, 1]}}}, "one edge more"),
        ({"output": {"predicted": [], "confidence": {**HISTOGRAM, "edges": [0, 2, 1]}}}, "ascending"),
        ({"output": {"predicted": [], "confidence": {**HISTOGRAM, "edges": [0, 1, math.inf]}}}, "finite"),
    ],
)
def test_a_document_that_is_not_a_reference_is_refused(change: dict[str, Any], problem: str) -> None:
    good = {
        "schema": "edgeq.reference/1",
        "inputs": [{"name": "x", "channels": [HISTOGRAM]}],
        "output": {"predicted": [3], "confidence": HISTOGRAM},
    }
    assert parse_reference({**good, "later": 1}, subject="a.eqb").inputs[0].channels[0].counts == (1, 2)
    with pytest.raises(BundleError) as caught:
        parse_reference({**good, **change}, subject="a.eqb")
    assert "a.eqb: drift reference: " in caught.value.message
    assert problem in caught.value.message


def test_a_file_that_is_not_json_is_refused() -> None:
    with pytest.raises(BundleError, match="not JSON"):
        parse_reference(b"{", subject="a.eqb")


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(BundleError, match="at least 20 samples"):
        build_reference({"x": np.zeros(19)}, np.zeros((19, 2)))
