"""Sessions of models that keep state: none mixes with another, and a swap does what its rule says."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from edgeq_agent import Runtime
from edgeq_agent.errors import AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.engine import Engine
from edgeq_agent.sdk.errors import (
    DeadlineMissed,
    InputMismatch,
    InvokeFailed,
    NoSuchRelease,
    RuntimeClosed,
    SessionEnded,
    SessionsFull,
)
from edgeq_agent.sdk.slot import Slot
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Arm, Split
from edgeq_agent.storage import files
from edgeq_agent.storage.home import Home
from tests import stateful
from tests.agent.held_calls import alive
from tests.eventually import until

pytestmark = pytest.mark.convert

START = np.array(stateful.START, np.float32)
ONE = np.ones(2, np.float32)
SAMPLES = stateful.samples()


def _releases(home: Any) -> tuple[str, str]:
    """Return the release that serves (gain 1), and the one before it (gain 10)."""
    where = Home(str(home))
    now = str(release_store.current(where, "total"))
    (before,) = set(release_store.of_model(where, "total")) - {now}
    return now, before


def _swap(device: Any, release: str) -> None:
    release_store.point(Home(str(device.home)), "total", release)


def _calls(device: Any) -> Counter[str]:
    """Return how many calls the telemetry windows hold, by release."""
    counted: Counter[str] = Counter()
    for event in device.call("telemetry", limit=1000).of("window"):
        window = event["window"]
        counted[window["release"]] += window["inferences"] + window["unrecorded"]
    return counted


class TestCallsWithoutASession:
    @pytest.mark.slow
    def test_they_are_independent(self, total: Any) -> None:
        with Runtime("total", str(total.home), pool=2) as rt:
            for _ in range(3):
                for sample in SAMPLES:
                    np.testing.assert_array_equal(rt.infer(sample), START + sample)

    def test_threads_do_not_mix_them_with_sessions(self, total: Any) -> None:
        wrong: list[object] = []

        def independent(rt: Runtime) -> None:
            for number in range(150):
                answer = rt.infer(ONE * number)
                if not np.array_equal(answer, START + ONE * number):
                    wrong.append(("independent", number, answer))

        def sequence(rt: Runtime, step: int) -> None:
            with rt.session() as session:
                for number in range(150):
                    answer = session.infer(ONE * step)
                    if not np.array_equal(answer, START + ONE * step * (number + 1)):
                        wrong.append((step, number, answer))

        with Runtime("total", str(total.home), pool=2) as rt:
            threads = [threading.Thread(target=sequence, args=(rt, step)) for step in range(1, 7)]
            threads += [threading.Thread(target=independent, args=(rt,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
        assert wrong == []
        assert sum(_calls(total).values()) == 10 * 150

    @pytest.mark.slow
    def test_a_shadow_compares_single_calls_only(self, total: Any) -> None:
        now, _ = _releases(total.home)
        with Runtime("total", str(total.home), shadow=now, shadow_fraction=1.0) as rt:
            for sample in SAMPLES:
                rt.infer(sample)
                time.sleep(0.02)
            with rt.session() as session:
                for sample in SAMPLES:
                    session.infer(sample)
        windows = [event["window"] for event in total.call("telemetry").of("window")]
        shadows = [shadow for window in windows for shadow in window["shadow"].values()]
        assert sum(shadow["samples"] + shadow.get("dropped", 0) for shadow in shadows) == len(SAMPLES)
        assert sum(shadow["noise"] for shadow in shadows) == 0


@pytest.mark.slow
class TestSession:
    def test_it_keeps_its_state_and_its_calls_count(self, total: Any) -> None:
        now, _ = _releases(total.home)
        with Runtime("total", str(total.home)) as rt:
            with rt.session() as one, rt.session("two") as two:
                for number in range(1, 6):
                    np.testing.assert_array_equal(one.infer(ONE), START + number)
                    answer = two.run(10 * ONE, ticket=True)
                    np.testing.assert_array_equal(answer.outputs["total"], START + 10 * number)
                assert (answer.release, answer.restarted) == (now, False)
                assert answer.ticket is not None
                rt.feedback(answer.ticket, True)
                one.reset()
                np.testing.assert_array_equal(one.infer(ONE), START + 1)
                assert two.id == "two"
            with pytest.raises(SessionEnded, match="it was closed"):
                one.infer(ONE)
        assert _calls(total) == {now: 11}
        counters = files.read_json(str(total.home / "models" / "total" / "counters.json"))
        assert counters["releases"][now]["calls"] == 11

    def test_the_next_session_does_not_see_the_state_of_the_last(self, total: Any) -> None:
        with Runtime("total", str(total.home), pool=1) as rt:
            for _ in range(3):
                with rt.session() as session:
                    np.testing.assert_array_equal(session.infer(ONE), START + 1)

    def test_an_input_that_is_refused_does_not_change_the_state(self, total: Any) -> None:
        with Runtime("total", str(total.home)) as rt, rt.session() as session:
            session.infer(ONE)
            with pytest.raises(InputMismatch):
                session.infer(np.ones(3))
            np.testing.assert_array_equal(session.infer(ONE), START + 2)

    def test_the_limit(self, total: Any) -> None:
        with Runtime("total", str(total.home), sessions=2) as rt:
            with rt.session(), rt.session():
                with pytest.raises(SessionsFull) as caught:
                    rt.session()
                assert caught.value.code == "EQ562"
                assert "2 are open" in caught.value.problem
                assert "sessions=" in str(caught.value.hint)
                np.testing.assert_array_equal(rt.infer(ONE), START + 1)
            with rt.session() as session:
                np.testing.assert_array_equal(session.infer(ONE), START + 1)

    def test_threads_that_begin_sessions_never_exceed_the_limit(self, total: Any) -> None:
        begun: list[Any] = []
        refused: list[SessionsFull] = []

        def begin(rt: Runtime) -> None:
            try:
                begun.append(rt.session())
            except SessionsFull as error:
                refused.append(error)

        with Runtime("total", str(total.home), sessions=3) as rt:
            threads = [threading.Thread(target=begin, args=(rt,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert (len(begun), len(refused)) == (3, 5)

    def test_an_idle_one_ends_and_says_so(self, total: Any) -> None:
        with Runtime("total", str(total.home), sessions=1, session_idle_s=0.2, poll_s=0.05) as rt:
            session = rt.session("a")
            session.infer(ONE)
            time.sleep(0.5)
            with pytest.raises(SessionEnded) as caught:
                session.infer(ONE)
            assert caught.value.code == "EQ563"
            assert "no call came for 0.2 s" in caught.value.problem
            with rt.session("b") as other:
                np.testing.assert_array_equal(other.infer(ONE), START + 1)

    def test_a_busy_one_is_not_idle(self, total: Any) -> None:
        with (
            Runtime("total", str(total.home), session_idle_s=0.3, poll_s=0.02) as rt,
            rt.session() as session,
        ):
            for number in range(1, 12):
                np.testing.assert_array_equal(session.infer(ONE), START + number)
                time.sleep(0.05)

    def test_calls_of_one_session_run_one_after_another(self, total: Any) -> None:
        totals: list[float] = []
        with Runtime("total", str(total.home)) as rt, rt.session() as session:
            threads = [
                threading.Thread(target=lambda: totals.extend(session.infer(ONE)[0] for _ in range(50)))
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert sorted(totals) == [START[0] + number for number in range(1, 201)]

    def test_the_runtime_ends_its_sessions(self, total: Any) -> None:
        with Runtime("total", str(total.home)) as rt:
            session = rt.session()
            session.infer(ONE)
        with pytest.raises(RuntimeClosed):
            session.infer(ONE)
        session.close()
        assert sum(_calls(total).values()) == 1

    def test_a_late_answer_has_changed_the_state(self, total: Any) -> None:
        with Runtime("total", str(total.home), strict=True) as rt, rt.session() as session:
            with pytest.raises(DeadlineMissed):
                session.infer(ONE, deadline_s=1e-9)
            np.testing.assert_array_equal(session.infer(ONE, deadline_s=10), START + 2)

    def test_a_model_that_fails_ends_it(self, total: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(slot: Slot, x: Any, raw: bool) -> Any:
            raise InvokeFailed("the model", "failed: of a fault")

        with Runtime("total", str(total.home), sessions=1) as rt:
            session = rt.session("s")
            session.infer(ONE)
            with monkeypatch.context() as patch:
                patch.setattr(Slot, "run", fail)
                with pytest.raises(InvokeFailed):
                    session.infer(ONE)
            with pytest.raises(SessionEnded, match="the model failed"):
                session.infer(ONE)
            with rt.session("s") as later:
                np.testing.assert_array_equal(later.infer(ONE), START + 1)

    @pytest.mark.parametrize(
        "wrong", [{"sessions": -1}, {"session_idle_s": 0}, {"on_swap": "x"}, {"session_finish_s": True}]
    )
    def test_wrong_rules_are_refused(self, total: Any, wrong: Any) -> None:
        with pytest.raises(AgentError) as caught:
            Runtime("total", str(total.home), **wrong)
        assert next(iter(wrong)) in caught.value.subject


@pytest.mark.slow
class TestSwap:
    def test_finish_lets_a_session_go_on_with_its_release(self, total: Any) -> None:
        now, before = _releases(total.home)
        with Runtime("total", str(total.home), poll_s=0.02) as rt:
            with rt.session() as session:
                session.infer(ONE)
                _swap(total, before)
                until(lambda: rt.release == before)
                time.sleep(0.1)
                answer = session.run(ONE)
                assert answer.release == now
                np.testing.assert_array_equal(answer.outputs["total"], START + 2)
                with rt.session() as later:
                    np.testing.assert_array_equal(later.infer(ONE), START + 10)
            time.sleep(0.1)
        assert _calls(total) == {now: 2, before: 1}

    def test_finish_is_bounded(self, total: Any) -> None:
        now, before = _releases(total.home)
        with Runtime("total", str(total.home), poll_s=0.02, session_finish_s=0.3) as rt:
            session = rt.session()
            session.infer(ONE)
            _swap(total, before)
            until(lambda: rt.release == before)
            assert session.release == now
            until(lambda: not session.release)
            with pytest.raises(SessionEnded, match="was replaced"):
                session.infer(ONE)

    def test_end_gives_the_next_call_one_clear_error(self, total: Any) -> None:
        now, before = _releases(total.home)
        with Runtime("total", str(total.home), poll_s=0.02, on_swap="end") as rt:
            session = rt.session("s")
            session.infer(ONE)
            _swap(total, before)
            until(lambda: rt.release == before)
            with pytest.raises(SessionEnded) as caught:
                session.infer(ONE)
            assert f"its release {now[:12]} was replaced" in caught.value.problem
            with rt.session("s") as later:
                np.testing.assert_array_equal(later.infer(ONE), START + 10)

    def test_restart_is_reported(self, total: Any) -> None:
        now, before = _releases(total.home)
        rt = Runtime("total", str(total.home), poll_s=0.02, on_swap="restart")
        with rt, rt.session() as session:
            session.infer(ONE)
            _swap(total, before)
            until(lambda: rt.release == before)
            answer = session.run(ONE)
            assert (answer.release, answer.restarted, session.restarts) == (before, True, 1)
            np.testing.assert_array_equal(answer.outputs["total"], START + 10)
            assert not session.run(ONE).restarted
        assert _calls(total) == {now: 1, before: 2}

    @pytest.mark.parametrize("on_swap", ["finish", "end", "restart"])
    def test_a_storm_of_sessions(self, total: Any, on_swap: str) -> None:
        now, before = _releases(total.home)
        gains = {now: 1, before: 10}
        wrong: list[object] = []
        counts: list[Counter[str]] = [Counter() for _ in range(12)]
        refused: Counter[str] = Counter()
        ended = threading.Event()

        def follow(session: Any, counted: Counter[str], length: int) -> None:
            """Compare the answers of a session that no other thread uses."""
            release, state_now = "", START
            for _ in range(length):
                answer = session.run(ONE)
                counted[answer.release] += 1
                if answer.release != release:
                    if release and not answer.restarted:
                        wrong.append(("moved without a word", answer))
                    release, state_now = answer.release, START
                state_now = state_now + gains[release]
                if not np.array_equal(answer.outputs["total"], state_now):
                    wrong.append((answer, state_now))

        def work(number: int, rt: Runtime) -> None:
            random = np.random.default_rng(number)
            while not ended.is_set():
                try:
                    session = rt.session()
                    follow(session, counts[number], int(random.integers(1, 30)))
                    if random.random() < 0.7:  # the others end because they are idle
                        session.close()
                except (SessionsFull, SessionEnded) as error:
                    refused[error.code] += 1
                answer = rt.run(ONE)
                counts[number][answer.release] += 1
                if not np.array_equal(answer.outputs["total"], START + gains[answer.release]):
                    wrong.append(answer)

        rt = Runtime(
            "total", str(total.home), poll_s=0.02, pool=2, sessions=6, session_idle_s=0.1, on_swap=on_swap,
            session_finish_s=0.15,
        )  # fmt: skip
        threads = [threading.Thread(target=work, args=(number, rt)) for number in range(12)]
        for thread in threads:
            thread.start()
        for release in [before, now] * 6:
            _swap(total, release)
            until(lambda release=release: rt.release == release)  # type: ignore[misc]
            time.sleep(0.1)
        ended.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        until(lambda: rt.open_sessions == 0)
        until(lambda: len(alive(Engine)) == 1)
        rt.close()
        assert wrong == []
        assert _calls(total) == sum(counts, Counter[str]())


@pytest.mark.slow
def test_a_session_of_the_parent_ends_in_a_forked_process(total: Any) -> None:
    with Runtime("total", str(total.home)) as rt, rt.session("a") as session:
        session.infer(ONE)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                try:
                    session.infer(ONE)
                except SessionEnded as error:
                    os.write(writer, error.problem.encode() + b"\n")
                with rt.session("a") as own:
                    os.write(writer, str(own.infer(ONE).tolist()).encode())
                rt.close()
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as stream:
            assert stream.read().splitlines() == ["was opened before the fork", str((START + 1).tolist())]
        np.testing.assert_array_equal(session.infer(ONE), START + 2)


@pytest.mark.slow
class TestSplit:
    def test_a_session_has_one_arm(self, total: Any) -> None:
        now, before = _releases(total.home)
        split = Split((Arm("a", now, 0.5), Arm("b", before, 0.5)), "salt")
        ab_split.write(Home(str(total.home)), "total", split)
        arms: Counter[str | None] = Counter()
        with Runtime("total", str(total.home)) as rt:
            for number in range(40):
                with rt.session(f"user-{number}") as session:
                    answers = [session.run(ONE) for _ in range(3)]
                assert len({answer.arm for answer in answers}) == 1
                gain = 1 if answers[0].arm == "a" else 10
                np.testing.assert_array_equal(answers[-1].outputs["total"], START + 3 * gain)
                arms[answers[0].arm] += 1
                assert rt.run(ONE, key=f"user-{number}").arm == answers[0].arm
            unnamed: Counter[str | None] = Counter()
            for _ in range(40):
                with rt.session() as session:
                    unnamed[session.run(ONE).arm] += 1
        assert min(arms["a"], arms["b"], unnamed["a"], unnamed["b"]) > 5

    def test_a_session_of_a_release(self, total: Any) -> None:
        now, before = _releases(total.home)
        with Runtime("total", str(total.home)) as rt:
            assert rt.session(release=now).release == now
            with pytest.raises(NoSuchRelease):
                rt.session(release=before)
