"""Stages: parsed strictly, cumulative, and the same devices each time."""

from __future__ import annotations

import random
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import UsageError
from edgeq.fleet.rollout.stages import Stage, parse_stages, partition

NAMES = [f"d{number}" for number in range(40)]
PLAIN: dict[str, dict[str, str]] = {name: {} for name in NAMES}


def test_stages_are_counts_percentages_labels_and_the_rest() -> None:
    one, ten, half, rest = parse_stages("1, 10%,label:canary=yes ,all")
    assert (one.count, ten.percent, half.label) == (1, Fraction(10), ("canary", "yes"))
    assert rest == Stage(text="all")
    assert parse_stages("label=site=lab,all")[0].label == ("site", "lab")
    assert parse_stages("12.5%")[0].percent == Fraction("12.5")


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("", "''"),
        ("1,,100%", "''"),
        ("0", "'0'"),
        ("0%", "'0%'"),
        ("101%", "'101%'"),
        ("-1", "'-1'"),
        ("1,ten,100%", "'ten'"),
        ("label:canary", "'label:canary'"),
        ("1e3", "'1e3'"),
        ("5,3,100%", "'3'"),
        ("50%,50%", "'50%'"),
        ("all,100%", "'100%'"),
        ("\u0661,100%", "'\u0661'"),  # a digit, but not an ASCII one
    ],
)
def test_an_invalid_stage_is_named(text: str, token: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_stages(text)
    assert token in caught.value.message
    assert "--stages 1,10%,50%,100%" in caught.value.hint


def test_percent_is_of_the_whole_and_cumulative_and_rounds_up() -> None:
    sizes = [len(part) for part in partition(parse_stages("1,10%,50%,100%"), PLAIN, seed="r")]
    assert sizes == [1, 3, 16, 20]
    assert [len(part) for part in partition(parse_stages("1,1%,100%"), PLAIN, seed="r")] == [1, 0, 39]


def test_labels_come_first_and_count() -> None:
    labels = {name: {"canary": "yes"} if name in ("d3", "d7") else {} for name in NAMES}
    first, second, last = partition(parse_stages("label:canary=yes,25%,100%"), labels, seed="r")
    assert set(first) == {"d3", "d7"}
    assert (len(second), len(last)) == (8, 30)


def test_an_unknown_label_and_devices_in_no_stage_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'label:canary=yes': no selected device"):
        partition(parse_stages("label:canary=yes,100%"), PLAIN, seed="r")
    with pytest.raises(UsageError, match="36 of 40 devices are in no stage") as caught:
        partition(parse_stages("1,10%"), PLAIN, seed="r")
    assert "end with 100%" in caught.value.hint


def test_the_choice_is_known_and_depends_on_the_rollout_alone() -> None:
    # As it is today: a change would let a rollout that is on its way choose other devices.
    assert partition(parse_stages("3,100%"), PLAIN, seed="kws-1")[0] == KNOWN
    assert partition(parse_stages("3,100%"), PLAIN, seed="kws-2")[0] != KNOWN


KNOWN = ("d18", "d35", "d0")

stage_texts = st.lists(
    st.one_of(
        st.integers(1, 60).map(str),
        st.integers(1, 100).map(lambda percent: f"{percent}%"),
        st.sampled_from(["label:canary=yes", "label:site=lab"]),
    ),
    max_size=6,
)
fleets = st.dictionaries(
    st.text("abcdefgh0123456789", min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(["canary", "site"]), st.sampled_from(["yes", "lab", "no"])),
    min_size=1,
    max_size=60,
)


@given(tokens=stage_texts, fleet=fleets, seed=st.text(max_size=8), order=st.randoms())
def test_every_device_is_in_exactly_one_stage_and_sizes_are_as_asked(
    tokens: list[str], fleet: dict[str, dict[str, str]], seed: str, order: random.Random
) -> None:
    try:
        stages = parse_stages(",".join([*tokens, "all"]))
        parts = partition(stages, fleet, seed=seed)
    except UsageError:
        return  # stages that shrink, or a label that no device has
    flat = [name for part in parts for name in part]
    assert sorted(flat) == sorted(fleet)
    reached = 0
    for stage, part in zip(stages, parts, strict=True):
        before, reached = reached, reached + len(part)
        if stage.label:
            key, value = stage.label
            assert all(fleet[name].get(key) == value for name in part)
            assert not [n for n in flat[reached:] if fleet[n].get(key) == value]
        elif stage.percent is not None:
            assert reached == max(before, ceil(stage.percent * len(fleet) / 100))
        elif stage.count is not None:
            assert reached == max(before, min(stage.count, len(fleet)))
    shuffled = list(fleet.items())
    order.shuffle(shuffled)
    assert partition(stages, dict(shuffled), seed=seed) == parts


@given(text=st.text(max_size=30))
def test_no_text_makes_anything_but_stages_or_a_usage_error(text: str) -> None:
    try:
        stages = parse_stages(text)
    except UsageError:
        return
    assert ",".join(stage.text for stage in stages) == ",".join(token.strip() for token in text.split(","))
