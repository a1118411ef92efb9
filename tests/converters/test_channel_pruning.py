"""Pruning without Keras: the request, the schedule, the masks, and tied channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq_converters.training.pruning.channel_pruning import Shares, choose, groups
from edgeq_converters.training.pruning.channels import ChannelGraph, Channels, ChannelSet, Cut
from edgeq_converters.training.pruning.magnitude import mask_of, sparsity_at
from edgeq_converters.training.settings import PruningRequest


@pytest.mark.parametrize(
    "text",
    [
        "magnitude:0.8",
        "channels:0.5",
        "channels:0.5,heads=0",
        "channels:0.5,heads=0.25,by=group,rounds=3,lasso=0.1",
    ],
)
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
        "channels:0.5,",
        "channels:0.5,heads",
        "channels:0.5,heads=1",
        "channels:0.5,heads=nan",
        "channels:0.5,heads=-0.1",
        "channels:0.5,by=",
        "channels:0.5,by=rank",
        "channels:0.5,by=l1,by=l2",
        "channels:0.5,depth=2",
        "channels:0.5,rounds=0",
        "channels:0.5,rounds=1.5",
        "channels:0.5,lasso=-1",
        "channels:0.5,lasso=inf",
        "channels:0.5,lasso=much",
        "magnitude:0.5,by=l2",
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


def _graph(count: int = 4, names: tuple[str, str] = ("one", "other")) -> tuple[ChannelGraph, ChannelSet]:
    channels = ChannelSet()
    cuts = tuple(Cut(layer=name, index=0, axis=1, channels=channels.new(count), unit=name) for name in names)
    return ChannelGraph(channels=channels, cuts=cuts, resizes={}, slices={}, unpruned={}), channels


def _stay(graph: ChannelGraph, worth: dict[str, list[float]], share: float = 0.5) -> dict[str, list[int]]:
    """Return the positions that stay in each layer, given the importance of its channels."""
    figures: dict[str, dict[int, float]] = {}
    for unit, made in graph.units().items():
        figures[unit] = {}
        for root, value in zip(graph.channels.roots(made), worth[unit], strict=True):
            figures[unit][int(root)] = figures[unit].get(int(root), 0.0) + value
    removed = choose(graph, figures, Shares(channels=share, heads=0.0))
    return {unit: graph.channels.remaining(made, removed).tolist() for unit, made in graph.units().items()}


def test_layers_that_are_added_lose_the_same_channels() -> None:
    graph, channels = _graph()
    channels.tie(*graph.units().values())
    stay = _stay(graph, {"one": [9.0, 1.0, 1.0, 9.0], "other": [1.0, 1.0, 1.1, 1.0]})
    assert stay == {"one": [0, 3], "other": [0, 3]}


def test_untied_channels_are_chosen_within_their_layer() -> None:
    graph, _ = _graph()
    stay = _stay(graph, {"one": [0.0, 1.0, 2.0, 3.0], "other": [3.0, 2.0, 1.0, 0.0]})
    assert stay == {"one": [2, 3], "other": [0, 1]}


def test_fixed_channels_stay_with_the_first_reason() -> None:
    graph, channels = _graph()
    one, other = graph.units().values()
    channels.fix(other, "an output")
    channels.tie(one, other)
    channels.fix(one, "a later reason")
    assert groups(graph) == {}
    assert {channels.reason(channels.root(int(channel))) for channel in one} == {"an output"}


def test_heads_have_a_share_of_their_own() -> None:
    graph, _ = _graph(names=("one", "attention heads"))
    stay = _stay(graph, {"one": [1.0, 2.0, 3.0, 4.0], "attention heads": [1.0, 2.0, 3.0, 4.0]})
    assert stay == {"one": [2, 3], "attention heads": [0, 1, 2, 3]}


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(1, 8))
def test_rounds_remove_as_much_as_one_pruning(count: int, share: float, rounds: int) -> None:
    units, left = ("layer",), count
    for number in range(rounds):
        progress = (number + 1) / rounds
        left -= Shares(channels=share, heads=0.0, progress=progress, sizes={units: count}).count(units, left)
    assert left == count - Shares(channels=share, heads=0.0).count(units, count)


@given(st.integers(2, 12), st.floats(0.001, 0.999))
def test_a_group_never_loses_all_channels(count: int, ratio: float) -> None:
    graph, _ = _graph(count)
    stay = _stay(graph, {"one": [1.0] * count, "other": [1.0] * count}, ratio)
    assert len(stay["one"]) == max(1, count - round(count * ratio))


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.5, 0.999))
def test_no_part_of_a_split_becomes_empty(left: int, right: int, ratio: float) -> None:
    graph, _ = _graph(left + right)
    made = graph.units()["one"]
    readers: list[Channels] = [made[:left], made[left:]]
    cuts = tuple(
        Cut(layer=f"reader{i}", index=0, axis=0, channels=part, reads=True) for i, part in enumerate(readers)
    )
    graph = replace(graph, cuts=(*graph.cuts, *cuts))
    worth = [float(i) for i in range(left + right)]
    stay = set(_stay(graph, {"one": worth, "other": worth}, ratio)["one"])
    assert left - 1 in stay
    assert left + right - 1 in stay
