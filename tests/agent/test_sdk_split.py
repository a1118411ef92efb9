"""A/B split: shares follow the weights, a key keeps its arm, and a change moves as few keys as possible."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq_agent import Runtime
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.errors import SplitUnusable
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Arm, Split, choose
from edgeq_agent.storage.home import Home
from tests.eventually import until

KEYS = [f"device-{number}" for number in range(4000)]
weights = st.floats(0.01, 10, allow_nan=False)


def _arms(arms: list[tuple[str, float]], salt: str = "s") -> list[int]:
    return [choose(arms, salt, key) for key in KEYS]


def _six_sigma(share: float) -> float:
    return 6 * math.sqrt(share * (1 - share) / len(KEYS)) + 1 / len(KEYS)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(weights, min_size=1, max_size=5), st.text(max_size=10))
def test_each_arm_gets_its_share(values: list[float], salt: str) -> None:
    arms = [(f"arm{number}", weight) for number, weight in enumerate(values)]
    shares = np.bincount(_arms(arms, salt), minlength=len(arms)) / len(KEYS)
    for share, weight in zip(shares, values, strict=True):
        expected = weight / sum(values)
        assert abs(share - expected) < _six_sigma(expected)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(weights, min_size=2, max_size=5), weights, st.integers(0, 4))
def test_only_the_moved_share_moves(values: list[float], weight: float, which: int) -> None:
    which %= len(values)
    before = [(f"arm{number}", value) for number, value in enumerate(values)]
    after = [(name, weight if number == which else value) for number, (name, value) in enumerate(before)]
    moves = [(old, new) for old, new in zip(_arms(before), _arms(after), strict=True) if old != new]
    if weight >= values[which]:
        assert all(new == which for _, new in moves)
    else:
        assert all(old == which for old, _ in moves)
    shift = abs(weight / (sum(values) - values[which] + weight) - values[which] / sum(values))
    assert abs(len(moves) / len(KEYS) - shift) < 2 * _six_sigma(0.5)


@given(st.text(), st.text(max_size=5))
def test_a_key_keeps_its_arm_whatever_the_order_and_scale(key: str, salt: str) -> None:
    arms = [("a", 0.5), ("b", 0.3), ("c", 0.2)]
    winner = arms[choose(arms, salt, key)][0]
    turned = arms[::-1]
    assert turned[choose(turned, salt, key)][0] == winner
    scaled = [(name, weight * 7) for name, weight in arms]
    assert scaled[choose(scaled, salt, key)][0] == winner


def test_the_draw_is_the_same_on_every_device_and_version() -> None:
    # Written down once: a change of the formula would move everybody's keys.
    arms = [("a", 0.5), ("b", 0.5)]
    assert "".join("ab"[choose(arms, "salt", f"key-{number}")] for number in range(24)) == (
        "aabaaabababbbaaaabbbbaaa"
    )


def test_another_salt_is_another_draw() -> None:
    arms = [("a", 0.5), ("b", 0.5)]
    same = np.mean(np.array(_arms(arms, "one")) == np.array(_arms(arms, "two")))
    assert abs(same - 0.5) < _six_sigma(0.5)


def test_an_arm_of_weight_zero_gets_no_keys() -> None:
    assert set(_arms([("a", 0.0), ("b", 1.0)])) == {1}


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        ([], "schema"),
        ({"schema": "edgeq.split/2"}, "schema"),
        ({"schema": ab_split.SCHEMA}, "arms"),
        ({"schema": ab_split.SCHEMA, "arms": []}, "arms"),
        ({"schema": ab_split.SCHEMA, "arms": [1]}, "arms"),
        ({"schema": ab_split.SCHEMA, "arms": [{"name": "a", "release": "current"}]}, "arms.weight"),
        ({"schema": ab_split.SCHEMA, "arms": [{"name": "a", "release": "current", "weight": -1}]}, "weight"),
        (
            {"schema": ab_split.SCHEMA, "arms": [{"name": "a", "release": "current", "weight": True}]},
            "weight",
        ),
        ({"schema": ab_split.SCHEMA, "arms": [{"name": "a", "release": "current", "weight": 0}]}, "file"),
        ({"schema": ab_split.SCHEMA, "arms": [{"name": "a", "weight": 1}]}, "release"),
        (
            {
                "schema": ab_split.SCHEMA,
                "arms": [{"name": "a", "release": "current", "weight": 1}] * 2,
            },
            "file",
        ),
    ],
)
def test_an_invalid_description_is_refused(body: Any, subject: str) -> None:
    with pytest.raises(SplitUnusable) as caught:
        ab_split.parse(body, "file")
    assert subject in caught.value.subject
    assert caught.value.code == "EQ546"


@pytest.mark.convert
class TestOnADevice:
    def test_split_json_is_applied_and_dropped(self, both: Any, tiny_data: Any, int8_bundle: Any) -> None:
        home = Home(str(both.home))
        now = str(release_store.current(home, "tiny"))
        split = Split((Arm("a", "current", 0.7), Arm("b", int8_bundle.release[:10], 0.3)), "first")
        with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
            ab_split.write(home, "tiny", split)
            until(lambda: rt.releases == {"a": now, "b": int8_bundle.release})
            arms = [("a", 0.7), ("b", 0.3)]
            for key in KEYS[:200]:
                answer = rt.run(tiny_data[0], key=key)
                assert answer.arm == "ab"[choose(arms, "first", key)]
                assert answer.release == {"a": now, "b": int8_bundle.release}[answer.arm]
            # Calls without a key are the device's, and always on one arm.
            device_id = json.loads((both.home / "device.json").read_text())["device_id"]
            assert rt.run(tiny_data[0]).arm == "ab"[choose(arms, "first", device_id)]
            assert rt.run(tiny_data[0], key=device_id).arm == rt.run(tiny_data[0]).arm
            ab_split.remove(home, "tiny")
            until(lambda: rt.releases == {"default": now})
            assert rt.run(tiny_data[0], key="any").arm is None
        windows = [event["window"] for event in both.call("telemetry").of("window")]
        by_arm = {window.get("arm"): window for window in windows}
        assert by_arm["a"]["inferences"] + by_arm["b"]["inferences"] == 203
        assert by_arm["a"]["release"] == now
        assert by_arm["b"]["release"] == int8_bundle.release
        assert by_arm[None]["inferences"] == 1

    def test_the_applications_own_split(self, both: Any, tiny_data: Any, int8_bundle: Any) -> None:
        with Runtime("tiny", str(both.home), split={"current": 0.5, "previous": 0.5}) as rt:
            assert rt.releases["previous"] == int8_bundle.release
            arms = [rt.run(tiny_data[0], key=key).arm for key in KEYS[:400]]
            assert 120 < arms.count("current") < 280
            assert rt.run(tiny_data[0], release=int8_bundle.release).release == int8_bundle.release

    def test_arms_of_split_json_by_name(self, both: Any, int8_bundle: Any, float_bundle: Any) -> None:
        home = Home(str(both.home))
        arms = (Arm("a", float_bundle.release, 1.0), Arm("b", int8_bundle.release, 0.0))
        ab_split.write(home, "tiny", Split(arms, "x"))
        with Runtime("tiny", str(both.home), split={"a": 0, "b": 1}) as rt:
            assert rt.release == int8_bundle.release
        with Runtime("tiny", str(both.home), split=False) as rt:
            assert rt.releases == {"default": float_bundle.release}

    @pytest.mark.parametrize(
        "weights", [{"a": -1}, {"a": "x"}, {"a": math.nan}, {"a": math.inf}, {"a": True}, {"a": 0}, {}]
    )
    def test_invalid_weights_raise_in_the_application(self, both: Any, weights: Any) -> None:
        with pytest.raises(SplitUnusable):
            Runtime("tiny", str(both.home), split=weights)

    @pytest.mark.parametrize("weights", [{"nobody": 1}, {"": 1}, {"current": 1, "ffffffff": 1}])
    def test_a_split_that_cannot_be_served_leaves_the_current_release(self, both: Any, weights: Any) -> None:
        with Runtime("tiny", str(both.home), split=weights) as rt:
            assert list(rt.releases) == ["default"]
            assert {problem.code for problem in rt.problems} == {"EQ546"}

    def test_an_invalid_split_json_does_not_block_a_deployment(self, both: Any, int8_bundle: Any) -> None:
        home = Home(str(both.home))
        with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
            served = rt.release
            (both.home / "models" / "tiny" / "split.json").write_text("{")
            until(lambda: rt.problems)
            assert rt.release == served
            release_store.point(home, "tiny", int8_bundle.release)
            until(lambda: rt.release == int8_bundle.release)

    @pytest.mark.slow
    def test_a_split_json_that_is_damaged_leaves_the_arms_that_serve(
        self, both: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        home = Home(str(both.home))
        arms = (Arm("a", "current", 0.5), Arm("b", int8_bundle.release, 0.5))
        ab_split.write(home, "tiny", Split(arms, "s"))
        with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
            before = rt.releases
            assert set(before) == {"a", "b"}
            (both.home / "models" / "tiny" / "split.json").write_text("{")
            until(lambda: rt.problems)
            assert rt.problems[0].code == "EQ546"
            with Runtime("tiny", str(both.home)) as later:
                assert later.releases == {"default": float_bundle.release}
            time.sleep(0.3)
            assert rt.releases == before
            release_store.point(home, "tiny", int8_bundle.release)
            until(lambda: rt.releases == {"default": int8_bundle.release})
