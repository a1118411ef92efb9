"""Windows arrive exactly once, wherever the connection breaks; invalid records are quarantined and counted.

The agent at the other end is the real one, in a process of its own with a real outbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeq.collector import collect
from edgeq.errors import AgentProtocolError, DeviceTimeout, LinkLost, StoreError
from edgeq.fleet.agent.client import AgentMessage, OnEvent
from edgeq.monitor import field_summaries
from edgeq.store import Store

NOW_NS = 1_900_000_000 * 10**9


def _body(**changes: Any) -> dict[str, Any]:
    latency = {"relative_accuracy": 0.01, "counts": {"690": 3}, "count": 3, "sum_ns": 9, "min_ns": 2}
    body = {
        "started_ns": NOW_NS - 10**9,
        "ended_ns": NOW_NS,
        "inferences": 3,
        "errors": {},
        "latency": {**latency, "max_ns": 4},
        "memory_peak_bytes": 10,
        "temperature_c": None,
        "inputs": [{"name": "x", "channels": [[1, 2]]}],
        "output": {"predicted": [3, 0], "confidence": [0, 3]},
    }
    return {**body, **changes}


def _window(seq: int = 1, boot: str = "b:n", **changes: Any) -> dict[str, Any]:
    head = {"schema": "edgeq.window/1", "device_id": "d1", "boot": boot, "seq": seq}
    return {**head, "model": "kws", "release": "r1", **_body(), **changes}


class RealAgent:
    """The agent's own program in its own process, without the SSH in between.

    Attributes:
        break_at: called with the number of the call before it is made; may raise.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.calls: list[Mapping[str, Any]] = []
        self.break_at: Callable[[int], None] = lambda _number: None

    def fill(self, count: int, **changes: Any) -> None:
        """Append windows to the outbox as `infer` does."""
        code = (
            "import json, sys\n"
            "from edgeq_agent.telemetry import outbox\n"
            "from edgeq_agent.telemetry.window import parse_unnumbered\n"
            "from edgeq_agent.storage.home import Home\n"
            "home, count, body = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])\n"
            "Home(home).ensure()\n"
            "with outbox.opened(Home(home)) as box:\n"
            "    [box.append('kws', 'r1', parse_unnumbered(body)) for _ in range(count)]\n"
        )
        argv = [sys.executable, "-c", code, str(self.home), str(count), json.dumps(_body(**changes))]
        subprocess.run(argv, check=True, timeout=60)

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float = 60,
        on_event: OnEvent | None = None,
    ) -> Mapping[str, Any]:
        """Run the verb in a process of its own."""
        self.calls.append(request)
        self.break_at(len(self.calls))
        done = subprocess.run(
            [sys.executable, "-m", "edgeq_agent", verb, "--home", str(self.home)],
            input=json.dumps(request).encode() + b"\n",
            capture_output=True,
            check=True,
            timeout=deadline_s,
        )
        *events, last = [json.loads(line) for line in done.stdout.splitlines()]
        for event in events:
            if on_event is not None and event["event"] != "hello":
                on_event(AgentMessage.of(event))
        result: Mapping[str, Any] = last["result"]
        return result


class Script:
    """An agent with scripted answers, for answers that the real one never gives."""

    def __init__(self, *answers: tuple[list[Any], dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.requests: list[Mapping[str, Any]] = []

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float = 60,
        on_event: OnEvent | None = None,
    ) -> Mapping[str, Any]:
        """Give the next answer."""
        assert verb == "telemetry"
        self.requests.append(request)
        windows, result = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        for window in windows:
            assert on_event is not None
            on_event(AgentMessage.of({"event": "window", "window": window}))
        return {"device_id": "d1", "boot": "b:n", "sent": len(windows), "pending": 0, "acked": 0, **result}


@pytest.fixture
def agent(tmp_path: Path) -> RealAgent:
    """Return an agent with an empty home."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return RealAgent(home)


@pytest.mark.slow
def test_all_windows_arrive_in_batches_and_leave_the_device(agent: RealAgent, tmp_path: Path) -> None:
    agent.fill(7)
    with Store.open(tmp_path) as store:
        got = collect(agent, "pi", store=store, limit=3, now_ns=lambda: NOW_NS)
        assert (got.new, got.duplicates, got.refused, got.pending) == (7, 0, 0, 0)
        assert [record.window.seq for record in store.windows()] == list(range(1, 8))
        again = collect(agent, "pi", store=store, now_ns=lambda: NOW_NS)
        assert (again.new, again.duplicates, again.pending) == (0, 0, 0)
        assert agent.calls[-1]["ack"] is None


@pytest.mark.first_is_quick
@pytest.mark.parametrize("broken_call", [1, 2, 3, 4])
def test_a_connection_that_breaks_at_any_call_loses_nothing(
    agent: RealAgent, tmp_path: Path, broken_call: int
) -> None:
    agent.fill(7)

    def break_at(number: int) -> None:
        if number == broken_call:
            raise LinkLost("pi", "gone")

    agent.break_at = break_at
    with Store.open(tmp_path) as store:
        with pytest.raises(LinkLost):
            collect(agent, "pi", store=store, limit=3, now_ns=lambda: NOW_NS)
        before = len(store.windows())
        assert before == min(7, 3 * (broken_call - 1))
        got = collect(agent, "pi", store=store, limit=3, now_ns=lambda: NOW_NS)
        # The batch whose acknowledgement was lost comes again, and is known.
        assert got.new == 7 - before
        assert got.duplicates == (0 if broken_call == 1 else min(3, 7 - 3 * (broken_call - 2)))
        assert [record.window.seq for record in store.windows()] == list(range(1, 8))


@pytest.mark.slow
def test_a_host_killed_between_commit_and_acknowledgement_has_each_window_once(
    agent: RealAgent, tmp_path: Path
) -> None:
    agent.fill(5)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from test_collect import RealAgent, NOW_NS\n"
        "from edgeq.collector import collect; from edgeq.store import Store\n"
        "agent = RealAgent(Path(sys.argv[1]))\n"
        "agent.break_at = lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == 2 else None\n"
        "with Store.open(Path(sys.argv[2])) as store:\n"
        "    collect(agent, 'pi', store=store, now_ns=lambda: NOW_NS)\n"
    )
    argv = [sys.executable, "-c", code, str(agent.home), str(tmp_path), os.path.dirname(__file__)]
    killed = subprocess.run(argv, capture_output=True, timeout=60)
    assert killed.returncode == -9, killed.stderr.decode()
    with Store.open(tmp_path) as store:
        assert len(store.windows()) == 5
        got = collect(agent, "pi", store=store, now_ns=lambda: NOW_NS)
        assert (got.new, got.duplicates, got.pending) == (0, 5, 0)
        assert [record.window.seq for record in store.windows()] == [1, 2, 3, 4, 5]


def test_nothing_is_acknowledged_that_was_not_stored(agent: RealAgent, tmp_path: Path) -> None:
    agent.fill(2)
    with Store.open(tmp_path) as store:
        broken = Store.open(tmp_path / "other")
        broken.close()
        with contextlib.closing(sqlite3.connect(broken.path)) as connection:
            connection.execute("DROP TABLE windows")
        with pytest.raises(StoreError, match="no such table"):
            collect(agent, "pi", store=broken, now_ns=lambda: NOW_NS)
        broken.close()
        assert [request["ack"] for request in agent.calls] == [None]
        assert collect(agent, "pi", store=store, now_ns=lambda: NOW_NS).new == 2


@pytest.mark.parametrize("hours", [25, 24 * 365 * 70])
def test_a_window_from_the_future_is_stored_and_marked(agent: RealAgent, tmp_path: Path, hours: int) -> None:
    agent.fill(1)
    agent.fill(1, ended_ns=NOW_NS + hours * 3600 * 10**9)
    agent.fill(1)
    with Store.open(tmp_path) as store:
        got = collect(agent, "pi", store=store, now_ns=lambda: NOW_NS)
        assert (got.new, got.refused, got.pending) == (3, 0, 0)
        synced = [record.window.clock_synced for record in store.windows()]
        assert synced[1] is False
        assert [record.window.seq for record in store.windows()] == [1, 2, 3]
        (summary,) = field_summaries(store, device="pi")
        assert "clock not set" in summary.line


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("text", "refused"),
    [('{"seq": 99}', 1), ("{", 0), ("", 0), ("null", 0), ('{"x": ' + "[" * 900 + "]" * 900 + "}", 0)],
    ids=["another number", "cut", "empty", "null", "deep"],
)
def test_a_damaged_row_of_the_outbox_does_not_hold_the_rest_back(
    agent: RealAgent, tmp_path: Path, text: str, refused: int
) -> None:
    agent.fill(5)
    with contextlib.closing(sqlite3.connect(agent.home / "outbox.db")) as outbox, outbox:
        assert outbox.execute("UPDATE windows SET body = ? WHERE seq = 2", (text,)).rowcount == 1
    with Store.open(tmp_path) as store:
        got = collect(agent, "pi", store=store, limit=2, now_ns=lambda: NOW_NS)
        assert (got.new, got.refused, got.pending) == (4, refused, 0)
        assert [record.window.seq for record in store.windows()] == [1, 3, 4, 5]
        assert [record.body["seq"] for record in store.quarantine("pi")] == [2] * refused


def test_windows_of_several_boots_are_all_acknowledged(tmp_path: Path) -> None:
    both = [_window(4, "b1:n"), _window(5, "b1:n"), _window(1, "b2:n")]
    script = Script((both, {"pending": 3}), ([_window(1, "b2:n")], {"pending": 1}), ([], {"pending": 0}))
    with Store.open(tmp_path) as store:
        got = collect(script, "pi", store=store, now_ns=lambda: NOW_NS)
        assert (got.new, got.duplicates, got.pending) == (3, 1, 0)
    acks = [request["ack"] for request in script.requests]
    assert acks == [None, {"boot": "b1:n", "seq": 5}, {"boot": "b2:n", "seq": 1}]


def test_an_agent_that_ignores_acknowledgements_is_an_error(tmp_path: Path) -> None:
    script = Script(([_window(1)], {"pending": 1}))
    with Store.open(tmp_path) as store:
        with pytest.raises(AgentProtocolError, match="again although it was acknowledged"):
            collect(script, "pi", store=store, now_ns=lambda: NOW_NS)
        assert len(store.windows()) == 1


def test_invalid_records_are_quarantined_and_end_the_collection(tmp_path: Path) -> None:
    script = Script(([None, "text", {"schema": "\ud800"}, _window(0)], {"pending": 4}))
    with Store.open(tmp_path) as store:
        got = collect(script, "pi", store=store, now_ns=lambda: NOW_NS)
        assert (got.new, got.refused, got.pending) == (0, 4, 4)
        assert len(store.quarantine()) == 4


class Endless:
    """An agent that sends windows without end: in one answer, or a full answer each time."""

    def __init__(self, *, in_one_answer: bool) -> None:
        self.in_one_answer = in_one_answer
        self.seq = 0

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float = 60,
        on_event: OnEvent | None = None,
    ) -> Mapping[str, Any]:
        """Send windows."""
        assert on_event is not None
        for _ in range(10**9 if self.in_one_answer else request["limit"]):
            self.seq += 1
            on_event(AgentMessage.of({"event": "window", "window": _window(self.seq)}))
        return {"device_id": "d1", "boot": "b:n", "sent": 1, "pending": 9, "acked": 0}


def test_more_windows_than_asked_for_are_an_error(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        with pytest.raises(
            AgentProtocolError, match="more windows than it was asked for, expected at most 5"
        ):
            collect(Endless(in_one_answer=True), "pi", store=store, limit=5, now_ns=lambda: NOW_NS)
        assert store.windows() == []


@pytest.mark.slow
def test_a_collection_without_end_is_ended_and_keeps_what_it_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.collector.pull.MOST_WINDOWS", 1000)
    with Store.open(tmp_path) as store:
        with pytest.raises(AgentProtocolError, match="windows without end"):
            collect(Endless(in_one_answer=False), "pi", store=store, limit=300, now_ns=lambda: NOW_NS)
        assert len(store.windows()) == 1200


def test_a_collection_that_takes_too_long_goes_on_next_time(tmp_path: Path) -> None:
    moments = iter([0.0, 10.0, 5000.0])
    with Store.open(tmp_path) as store:
        with pytest.raises(DeviceTimeout, match="not finished after 1800 s"):
            collect(
                Endless(in_one_answer=False),
                "pi",
                store=store,
                limit=3,
                now_ns=lambda: NOW_NS,
                monotonic_s=lambda: next(moments),
            )
        assert len(store.windows()) == 6


@pytest.mark.parametrize("identity", [None, "", 7])
def test_an_answer_without_a_device_id_is_refused(tmp_path: Path, identity: object) -> None:
    with (
        Store.open(tmp_path) as store,
        pytest.raises(AgentProtocolError, match="telemetry: device_id, expected "),
    ):
        collect(Script(([], {"device_id": identity})), "pi", store=store)
