"""Analysis of experiments: both kinds of split, planted differences, and a result read after every window."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeq.experiment import Decision, ExperimentConfig, ExperimentResult, SplitBy, analyze, objections
from edgeq.experiment.arm_counts import ArmCounts, ArmWindow, blocks
from edgeq.experiment.confidence_sequence import mean_path
from edgeq.experiment.config import assign
from edgeq.experiment.metrics import Conclusion, MetricKind
from edgeq.store import WindowRecord
from edgeq_agent import wire
from edgeq_agent.telemetry.ddsketch import Sketch
from edgeq_agent.telemetry.window import MIXED, Feedback, OutputCounts, Window, to_json

STEP = math.log(1.01 / 0.99)
A, B = "a" * 64, "b" * 64


def config(by: SplitBy, devices: list[str], share: float = 0.5, **more: Any) -> ExperimentConfig:
    arms = assign(devices, share, "salt") if by is SplitBy.DEVICES else dict.fromkeys(devices, "ab")
    values = {"experiment": "kws-1", "model": "kws", "release_a": A, "release_b": B, "salt": "salt", **more}
    return ExperimentConfig(**values, by=by, share=share, arms=arms)


class Fleet:
    """Makes windows as devices send them."""

    def __init__(self, seed: int, devices: int, *, spread: float = 0.0) -> None:
        self.random = np.random.default_rng(seed)
        self.names = [f"pi{number:02d}" for number in range(devices)]
        self.offsets = dict(zip(self.names, spread * self.random.normal(size=devices), strict=True))
        self.windows: list[WindowRecord] = []

    def window(
        self, device: str, arm: str, calls: int, *, right: float, slower: float = 1.0, errors: int = 0,
        **more: Any,
    ) -> None:  # fmt: skip
        offset = self.offsets[device]
        latencies = 1e6 * slower * math.exp(offset) * self.random.lognormal(0, 0.3, calls)
        buckets = Counter(np.ceil(np.log(latencies) / STEP).astype(int).tolist())
        labelled = calls // 2
        rate = float(np.clip(right + offset, 0, 1))
        confidence = np.histogram(self.random.beta(8, 2, calls), bins=20, range=(0, 1))[0]
        sketch = Sketch(
            counts=buckets, count=calls, sum_ns=int(latencies.sum()), min_ns=1, max_ns=int(latencies.max())
        )
        window = Window(
            started_ns=0,
            ended_ns=1,
            inferences=calls + errors,
            errors={"invoke": errors} if errors else {},
            latency=sketch,
            inputs=(),
            output=OutputCounts(predicted=(), confidence=tuple(confidence.tolist())),
            arm=arm,
            experiment="kws-1",
            feedback=Feedback(labelled=labelled, correct=int(self.random.binomial(labelled, rate))),
            device_id=device,
            boot="b",
            seq=len(self.windows) + 1,
            model="kws",
            release={"a": A, "b": B}[arm],
        )
        window = replace(window, **more)
        digest = wire.digest(to_json(window))
        number = len(self.windows) + 1
        self.windows.append(
            WindowRecord(id=number, device=device, device_id=device, window=window, sha256=digest)
        )

    def change_last(self, **fields: Any) -> None:
        last = self.windows[-1]
        self.windows[-1] = replace(last, window=replace(last.window, **fields))

    def by_calls(self, rounds: int, *, right_b: float = 0.8, **of_b: Any) -> None:
        for _ in range(rounds):
            for name in self.names:
                self.window(name, "a", 40, right=0.8)
                self.window(name, "b", 10, right=right_b, **of_b)

    def by_devices(self, rounds: int, arms: dict[str, str], *, right_b: float = 0.8, **of_b: Any) -> None:
        for _ in range(rounds):
            for name, arm in arms.items():
                more = of_b if arm == "b" else {}
                self.window(name, arm, 50, right=right_b if arm == "b" else 0.8, **more)

    def result(self, known: ExperimentConfig, end: int | None = None) -> ExperimentResult:
        return analyze(known, self.windows[:end], {A: None, B: None})


def conclusion(result: ExperimentResult, figure: MetricKind) -> Conclusion:
    return result.metric(figure).conclusion


def looks(fleet: Fleet, known: ExperimentConfig, every: int) -> Iterator[ExperimentResult]:
    for end in range(every, len(fleet.windows) + 1, every):
        yield fleet.result(known, end)


class TestByCalls:
    def test_a_lower_rate_of_right_answers_is_detected_and_nothing_else(self) -> None:
        fleet = Fleet(1, 4)
        known = config(SplitBy.CALLS, fleet.names, 0.2)
        fleet.by_calls(150, right_b=0.6)
        result = fleet.result(known)
        assert [metric.kind for metric in result.worse] == [MetricKind.FEEDBACK]
        assert result.summary == "B is worse in right answers"
        feedback = result.metric(MetricKind.FEEDBACK)
        assert feedback.interval.low < -0.2 < feedback.interval.high < 0
        assert (feedback.units, feedback.unit) == (600, "blocks")
        assert conclusion(result, MetricKind.P95) is Conclusion.SAME
        assert objections(known, result, Decision.REJECT) == ()
        assert "shown to be worse" in objections(known, result, Decision.PROMOTE)[0]

    @pytest.mark.slow
    def test_equal_releases_show_no_difference_at_any_look_and_b_may_be_promoted(self) -> None:
        fleet = Fleet(2, 4)
        known = config(SplitBy.CALLS, fleet.names, 0.2, worse_by=0.05)
        fleet.by_calls(500)
        for result in looks(fleet, known, 400):
            assert {metric.conclusion for metric in result.metrics} <= {Conclusion.SAME, Conclusion.NOTHING}
        assert objections(known, result, Decision.PROMOTE) == ()
        assert objections(known, result, Decision.REJECT) == ("nothing shows that B is worse",)

    @pytest.mark.slow
    def test_a_slower_and_failing_release_is_detected(self) -> None:
        fleet = Fleet(3, 4)
        known = config(SplitBy.CALLS, fleet.names, 0.2)
        fleet.by_calls(250, slower=1.5, errors=1)
        result = fleet.result(known)
        assert {metric.kind for metric in result.worse} == {MetricKind.P50, MetricKind.P95, MetricKind.ERRORS}
        assert (
            1.2
            < result.metric(MetricKind.P50).interval.low
            < 1.5
            < result.metric(MetricKind.P50).interval.high
        )

    def test_errors_of_the_caller_do_not_count_as_failures(self) -> None:
        fleet = Fleet(4, 1)
        known = config(SplitBy.CALLS, fleet.names)
        for _ in range(300):
            fleet.window("pi00", "a", 10, right=0.8)
            fleet.window("pi00", "b", 10, right=0.8, errors=5)
            fleet.change_last(errors={"input_mismatch": 5})
        assert conclusion(fleet.result(known), MetricKind.ERRORS) is Conclusion.SAME

    def test_calls_with_a_key_are_reported_and_object_to_a_promotion(self) -> None:
        fleet = Fleet(5, 2)
        known = config(SplitBy.CALLS, fleet.names, worse_by=0.5, slower_by=5)
        fleet.by_calls(200, keyed=3)
        result = fleet.result(known)
        assert result.keyed == 1200
        assert "with a key" in objections(known, result, Decision.PROMOTE)[-1]

    def test_windows_of_no_arm_are_not_counted(self) -> None:
        fleet = Fleet(6, 1)
        known = config(SplitBy.CALLS, [*fleet.names, "pi99"])
        fleet.by_calls(2)
        for arm in (MIXED, "a"):  # merged of several; of the other arm's release
            fleet.window("pi00", "b", 10, right=0.8)
            fleet.change_last(arm=arm)
        result = fleet.result(known)
        assert (result.windows, result.others, result.silent) == (4, 2, ("pi99",))
        assert result.summary == "no conclusion yet"

    @pytest.mark.slow
    def test_rare_feedback_with_a_changing_rate_shows_no_difference(self) -> None:
        """Of ten windows of B one has a label: its block spans them all, and ends with it."""
        missed, middles = 0, []
        for run in range(40):
            random = np.random.default_rng(run)
            swing, seen = 0.0, []
            for _ in range(1500):
                swing = 0.99 * swing + math.sqrt(1 - 0.99**2) * random.normal()
                rate = float(np.clip(0.7 + 0.2 * swing, 0.05, 0.99))
                for arm, labels in (("a", 0.9), ("b", 0.1)):
                    count = int(random.poisson(labels))
                    part = ArmCounts(labelled=count, correct=int(random.binomial(count, rate)))
                    seen.append(ArmWindow(device="pi", arm=arm, counts=part))
            both = blocks(seen, lambda part: part.labelled)
            values = np.array(
                [one.b.correct / one.b.labelled - one.a.correct / one.a.labelled for one in both]
            )
            low, high = mean_path(values, values, span=2.0, alpha=0.05)
            missed += bool(((low > 0) | (high < 0)).any())
            middles.append(values.mean())
        assert missed <= 6
        assert abs(np.mean(middles)) < 4 * np.std(middles) / math.sqrt(len(middles))

    def test_the_digest_identifies_the_data(self) -> None:
        fleet = Fleet(7, 1)
        known = config(SplitBy.CALLS, fleet.names)
        fleet.by_calls(3)
        one, two = fleet.result(known), fleet.result(known, 5)
        assert one.data_sha256 == fleet.result(known).data_sha256 != two.data_sha256
        assert one.to_dict()["metrics"][0]["metric"] == "feedback"


class TestAcrossDevices:
    @pytest.mark.slow
    def test_device_effects_show_no_difference_however_many_calls(self) -> None:
        """Twelve unlike devices, hundreds of calls each: pooled, they would show what is not there."""
        alpha, runs, missed, pooled = 0.05, 25, 0, 0
        for seed in range(runs):
            fleet = Fleet(100 + seed, 12, spread=0.08)
            known = config(SplitBy.DEVICES, fleet.names, alpha=alpha)
            fleet.by_devices(16, dict(known.arms))
            result = list(looks(fleet, known, 12))
            shown = {metric.conclusion for one in result for metric in one.metrics}
            missed += bool(shown & {Conclusion.WORSE, Conclusion.BETTER})
            rates = [part.correct / part.labelled for part in result[-1].arms.values()]
            deviation = math.sqrt(2 * 0.16 / result[-1].arms["a"].labelled)
            pooled += abs(rates[0] - rates[1]) > 1.96 * deviation
        assert missed <= 5
        assert pooled > runs / 2, "taking calls for independent ones is wrong most of the time"

    def test_a_difference_is_detected_with_enough_devices(self) -> None:
        fleet = Fleet(8, 20, spread=0.03)
        known = config(SplitBy.DEVICES, fleet.names)
        fleet.by_devices(8, dict(known.arms), right_b=0.6, slower=1.4)
        result = fleet.result(known)
        assert {metric.kind for metric in result.worse} == {
            MetricKind.FEEDBACK,
            MetricKind.P50,
            MetricKind.P95,
        }
        feedback = result.metric(MetricKind.FEEDBACK)
        assert feedback.interval.low < -0.2 < feedback.interval.high < 0
        assert (feedback.units, feedback.unit) == (20, "devices")

    def test_without_failures_the_rate_is_known_to_within_one_call(self) -> None:
        fleet = Fleet(13, 20)
        known = config(SplitBy.DEVICES, fleet.names)
        fleet.by_devices(8, dict(known.arms))
        interval = fleet.result(known).metric(MetricKind.ERRORS).interval
        assert interval.high == -interval.low == pytest.approx(2 / 400)

    def test_few_devices_allow_no_conclusion_however_many_calls(self) -> None:
        fleet = Fleet(9, 6)
        known = config(SplitBy.DEVICES, fleet.names)
        fleet.by_devices(200, dict(known.arms), right_b=0.1)
        result = fleet.result(known)
        assert result.summary == "no conclusion yet"
        assert result.metric(MetricKind.FEEDBACK).estimate is not None
        assert "cannot be compared yet" in objections(known, result, Decision.PROMOTE)[0]

    def test_the_interval_does_not_change_between_two_looks(self) -> None:
        fleet = Fleet(10, 14)
        known = config(SplitBy.DEVICES, fleet.names)
        fleet.by_devices(8, dict(known.arms))
        intervals = [one.metric(MetricKind.P50).interval for one in looks(fleet, known, 1)]
        assert len({(each.low, each.high) for each in intervals}) == 4, "none, at 28, at 56, at 112 windows"


@pytest.mark.parametrize(("share", "count", "of_b"), [(0.1, 20, 2), (0.1, 3, 1), (0.99, 3, 2), (0.5, 7, 4)])
def test_the_arms_of_devices_are_stable(share: float, count: int, of_b: int) -> None:
    names = [f"pi{number}" for number in range(count)]
    arms = assign(names, share, "s")
    assert list(arms.values()).count("b") == of_b
    assert assign(names[::-1], share, "s") == arms
    more = assign(names, min(0.99, share + 0.2), "s")
    assert all(more[name] == "b" for name, arm in arms.items() if arm == "b"), "no device leaves arm B"


def test_the_configuration_survives_a_round_trip() -> None:
    known = config(SplitBy.DEVICES, ["x", "y", "z"])
    assert ExperimentConfig.from_dict(known.to_dict()) == known
    assert known.weights("x") in ({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0})
    assert config(SplitBy.CALLS, ["x"], 0.1).weights("x") == {"a": 0.9, "b": 0.1}
