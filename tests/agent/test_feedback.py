"""Feedback: counted once for each answer and for its arm, in bounded memory."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from edgeq_agent import Runtime
from edgeq_agent.errors import AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.errors import FeedbackRefused, RuntimeClosed
from edgeq_agent.split import ab_split
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.window import Feedback, parse
from tests.agent.served import running
from tests.eventually import until

pytestmark = pytest.mark.convert


def windows_of(device: Any) -> list[dict[str, Any]]:
    windows = [event["window"] for event in device.call("telemetry", limit=1000).of("window")]
    for window in windows:
        parse(window)
    return windows


def counts(windows: list[dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    sums: dict[str, list[int]] = {}
    for window in windows:
        feedback = window.get("feedback", {"labelled": 0, "correct": 0, "expired": 0})
        known = sums.setdefault(window["release"], [0, 0, 0])
        for place, name in enumerate(("labelled", "correct", "expired")):
            known[place] += feedback[name]
    return {release: tuple(counted) for release, counted in sums.items()}  # type: ignore[misc]


def test_each_answer_is_counted_once_for_its_arm(
    both: Any, tiny_data: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    arms = (ab_split.Arm("a", float_bundle.release, 0.5), ab_split.Arm("b", int8_bundle.release, 0.5))
    ab_split.write(Home(str(both.home)), "tiny", ab_split.Split(arms, "s", experiment="e-1"))
    expected = {float_bundle.release: [0, 0], int8_bundle.release: [0, 0]}
    with Runtime("tiny", str(both.home)) as rt:
        for number in range(60):
            answer = rt.run(tiny_data[number], key=str(number), ticket=True)
            assert answer.ticket is not None
            correct = number % 3 > 0
            rt.feedback(answer.ticket, correct)
            expected[answer.release][0] += 1
            expected[answer.release][1] += correct
            with pytest.raises(FeedbackRefused) as caught:
                rt.feedback(answer.ticket, correct)
            assert (caught.value.code, "redeemed already" in str(caught.value)) == ("EQ550", True)
        assert rt.run(tiny_data[0]).ticket is None
    windows = windows_of(both)
    assert counts(windows) == {name: (one, two, 0) for name, (one, two) in expected.items()}
    assert {window["experiment"] for window in windows} == {"e-1"}


def test_sixteen_threads_count_each_feedback_once(serving: Any, tiny_data: Any, int8_bundle: Any) -> None:
    with Runtime("tiny", str(serving.home)) as rt:
        tickets = [rt.run(tiny_data[0], ticket=True).ticket for _ in range(400)]
        refused: list[int] = []

        def send() -> None:
            for ticket in tickets:
                try:
                    rt.feedback(str(ticket), True)
                except FeedbackRefused:
                    refused.append(1)

        threads = [threading.Thread(target=send) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(refused) == 15 * 400
    assert counts(windows_of(serving)) == {int8_bundle.release: (400, 400, 0)}


def test_open_tickets_are_bounded_and_dropped_ones_counted(
    serving: Any, tiny_data: Any, int8_bundle: Any
) -> None:
    with Runtime("tiny", str(serving.home), feedback=5) as rt:
        tickets = [str(rt.run(tiny_data[0], ticket=True).ticket) for _ in range(8)]
        for ticket in tickets[:3]:
            with pytest.raises(FeedbackRefused):
                rt.feedback(ticket, True)
        for ticket in tickets[3:]:
            rt.feedback(ticket, False)
    assert counts(windows_of(serving)) == {int8_bundle.release: (5, 0, 3)}


@pytest.mark.parametrize("correct", [1, 0, "true", None, 0.5])
def test_feedback_must_be_a_boolean(serving: Any, tiny_data: Any, correct: Any) -> None:
    with Runtime("tiny", str(serving.home)) as rt:
        ticket = str(rt.run(tiny_data[0], ticket=True).ticket)
        with pytest.raises(AgentError) as caught:
            rt.feedback(ticket, correct)
        assert caught.value.code == "EQ512"
        rt.feedback(ticket, True)  # the wrong call did not use the ticket up


def test_unknown_tickets_and_a_closed_runtime_refuse_feedback(serving: Any, tiny_data: Any) -> None:
    with Runtime("tiny", str(serving.home)) as other:
        foreign = str(other.run(tiny_data[0], ticket=True).ticket)
    with Runtime("tiny", str(serving.home)) as rt:
        for ticket in (foreign, "", "x", None, 3, "0" * 10_000):
            with pytest.raises(FeedbackRefused, match="not issued by this process") as caught:
                rt.feedback(ticket, True)  # type: ignore[arg-type]
            assert len(str(caught.value)) < 400
        mine = str(rt.run(tiny_data[0], ticket=True).ticket)
    with pytest.raises(RuntimeClosed):
        rt.feedback(mine, True)


@pytest.mark.slow
def test_feedback_counts_for_a_release_that_has_been_replaced(
    both: Any, tiny_data: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
        tickets = [str(rt.run(tiny_data[0], ticket=True).ticket) for _ in range(3)]
        release_store.point(Home(str(both.home)), "tiny", int8_bundle.release)
        until(lambda: rt.release == int8_bundle.release)
        rt.feedback(tickets[0], True)
        until(lambda: counts(windows_of(both)).get(float_bundle.release) == (1, 1, 0))
        rt.feedback(tickets[1], False)  # its window was stored and the release replaced; it still counts
        until(lambda: counts(windows_of(both)).get(float_bundle.release) == (2, 1, 0))
        rt.feedback(tickets[2], True)
    assert counts(windows_of(both))[float_bundle.release] == (3, 2, 0)


def test_merged_windows_add_up_feedback(serving: Any, tiny_data: Any) -> None:
    for correct in (True, False):
        with Runtime("tiny", str(serving.home)) as rt:
            rt.feedback(str(rt.run(tiny_data[0], ticket=True).ticket), correct)
    first, second = (parse(window) for window in windows_of(serving))
    assert merge_windows(first, second).feedback == Feedback(labelled=2, correct=1)
    assert merge_windows(first, replace(second, feedback=None)).feedback == first.feedback


class TestOverHttp:
    def test_a_ticket_is_issued_and_redeemed(self, both: Any, float_bundle: Any, tiny_data: Any) -> None:
        with running(both, "--port", "0") as server:
            name = json.loads(server.ask("GET", "/v2/models/tiny")[2])["inputs"][0]["name"]
            entry = {
                "name": name, "shape": [1, 6, 6, 2], "datatype": "FP32", "data": tiny_data[0].ravel().tolist()
            }  # fmt: skip
            ask = {"inputs": [entry], "parameters": {"ticket": True}}

            def post(path: str, body: Any) -> tuple[int, dict[str, Any]]:
                status, _, data = server.ask("POST", f"/v2/models/tiny{path}", json.dumps(body).encode())
                return status, json.loads(data)

            status, answer = post("/infer", ask)
            assert status == 200
            ticket = answer["parameters"]["ticket"]
            assert post("/feedback", {"ticket": ticket, "correct": False})[0] == 200
            assert post("/feedback", {"ticket": ticket, "correct": False})[0] == 409
            assert post("/feedback", {"ticket": "x", "correct": True})[0] == 409
            bodies: list[Any] = [{}, {"ticket": ticket}, {"ticket": ticket, "correct": 1}, {"a": 1}, []]
            for body in bodies:
                status, refused = post("/feedback", body)
                assert (status, "error" in refused) == (400, True)
            assert post(f"/versions/{float_bundle.release}/feedback", {})[0] == 404
            assert server.ask("GET", "/v2/models/tiny/feedback")[0] == 405
            status, answer = post("/infer", {**ask, "parameters": {}})
            assert "parameters" not in answer
            assert post("/infer", {**ask, "parameters": {"ticket": "yes"}})[0] == 400
        assert counts(windows_of(both)) == {float_bundle.release: (1, 0, 0)}
