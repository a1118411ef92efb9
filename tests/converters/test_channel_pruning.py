"""Pruning without Keras: the request, the schedule, the masks, and tied channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq_converters.training.pruning.channel_graph import ChannelGraph, ChannelSet
from edgeq_converters.training.pruning.channel_pruning import choose, remaining
from edgeq_converters.training.pruning.magnitude import mask_of, sparsity_at
from edgeq_converters.training.settings import PruningRequest


@pytest.mark.parametrize("text", ["magnitude:0.8", "channels:0.5"])
def test_a_request_prints_as_it_was_parsed(text: str) -> None:
    assert str(PruningRequest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "channels",
        "channels:",
        "channels:0",
        "channels:1",
        "channels:-1",
        "channels:nan",
        "filters:0.5",
        "0.5",
    ],
)
def test_an_invalid_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"channels:0\.5"):
        PruningRequest.parse(text)


@given(st.integers(2, 400), st.floats(0.01, 0.99))
def test_the_schedule_rises_to_the_ratio_and_stays(total: int, final: float) -> None:
    course = [sparsity_at(step, total, final) for step in range(total)]
    assert course == sorted(course)
    assert course[-1] == pytest.approx(final)
    assert course[int(total * 0.6)] == pytest.approx(final)


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 9))
def test_a_mask_drops_exactly_the_smallest_weights(size: int, sparsity: float, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    mask = mask_of(weight, sparsity)
    assert int((mask == 0).sum()) == round(sparsity * size)
    stays, goes = np.abs(weight[mask == 1]), np.abs(weight[mask == 0])
    assert not len(stays) or not len(goes) or stays.min() >= goes.max()


def _graph(count: int = 4) -> tuple[ChannelGraph, ChannelSet]:
    graph = ChannelGraph(channels=ChannelSet())
    for name in ("one", "other"):
        graph.writes[name] = graph.channels.new(count)
    return graph, graph.channels


def test_layers_that_are_added_lose_the_same_channels() -> None:
    graph, channels = _graph()
    channels.tie(graph.writes["one"], graph.writes["other"])
    worth = {"one": np.array([9.0, 1.0, 1.0, 9.0]), "other": np.array([1.0, 1.0, 1.1, 1.0])}
    removed = choose(graph, ["one", "other"], worth, 0.5)
    assert remaining(graph, graph.writes["one"], removed).tolist() == [0, 3]
    assert remaining(graph, graph.writes["other"], removed).tolist() == [0, 3]


def test_untied_channels_are_chosen_within_their_layer() -> None:
    graph, _ = _graph()
    worth = {"one": np.arange(4.0), "other": np.arange(4.0)[::-1]}
    removed = choose(graph, ["one", "other"], worth, 0.5)
    assert remaining(graph, graph.writes["one"], removed).tolist() == [2, 3]
    assert remaining(graph, graph.writes["other"], removed).tolist() == [0, 1]


def test_fixed_channels_stay_and_their_layers_are_reported() -> None:
    graph, channels = _graph()
    channels.tie(graph.writes["one"], graph.writes["other"])
    channels.fix(graph.writes["other"])
    assert choose(graph, ["one", "other"], {"one": np.ones(4), "other": np.ones(4)}, 0.5) == set()
    assert set(graph.unpruned) == {"one", "other"}


@given(st.integers(2, 12), st.floats(0.001, 0.999))
def test_a_group_never_loses_all_channels(count: int, ratio: float) -> None:
    graph, _ = _graph(count)
    removed = choose(graph, ["one", "other"], {"one": np.ones(count), "other": np.ones(count)}, ratio)
    assert len(remaining(graph, graph.writes["one"], removed)) == max(1, count - round(count * ratio))
