"""Progress: a line every 10 s at most in a pipe; bars with rate and time left on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.cli.progress import LINE_EVERY_S, Lines, Pace, Unit, worker_progress
from edgeq.cli.ui import Ui


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_quick_step_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Ui().progress("calibrating", 2) as advance:
        advance(1)
        advance(1)
    assert capsys.readouterr().err == ""


def test_a_line_has_share_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Ui(pace=Pace(clock=clock)).progress("calibrating", 100) as advance:
        clock.now_s += 20
        advance(10)
        clock.now_s += LINE_EVERY_S - 1
        advance(10)
        clock.now_s += 1
        advance(10)
        clock.now_s += 600
        advance(70)
    assert capsys.readouterr().err.splitlines() == [
        "calibrating: 10 %, 0.5/s, 3 min left",
        "calibrating: 30 %, 1/s, 1 min left",
        "calibrating: 100 %, 0.159/s",
    ]


def test_bytes_of_several_devices_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    totals = {"a": 1 << 20, "b": 3 << 20}
    with Ui(pace=Pace(clock=clock)).progress_of("sending", totals, unit=Unit.BYTES) as work:
        clock.now_s += 2
        work.advance("a", 1 << 20)
        work.advance("b", 1 << 20)
        clock.now_s += 10
        work.note("b", "release verified")
    assert capsys.readouterr().err.splitlines() == [
        "sending: 25 %, 512.0 KiB/s, 6 s left",
        "sending: 100 %, 341.3 KiB/s",
    ]


@given(
    waits=st.lists(st.floats(min_value=0, max_value=15), max_size=60),
    kinds=st.lists(st.sampled_from(["step", "advance", "device", "note"]), min_size=60, max_size=60),
)
def test_no_two_lines_of_a_command_are_closer_than_10_s(waits: list[float], kinds: list[str]) -> None:
    clock, written_s = Clock(), list[float]()
    pace = Pace(clock=clock)

    def say(_line: str) -> None:
        written_s.append(clock.now_s)

    one = Lines(say, pace, "a", {"": 1000}, Unit.ITEMS)
    many = Lines(say, pace, "b", {"x": 50, "y": 50}, Unit.BYTES)
    for wait, kind in zip(waits, kinds, strict=False):
        clock.now_s += wait
        if kind == "step":
            if pace.due():
                say("step")
        elif kind == "advance":
            one.advance("", 1)
        elif kind == "device":
            many.advance("x", 1)
        else:
            many.note("y", "verified")
    assert all(later - earlier >= LINE_EVERY_S - 1e-6 for earlier, later in pairwise(written_s))


def test_the_steps_of_a_worker_keep_the_pace(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with worker_progress(Ui(pace=Pace(clock=clock))) as on_progress:
        on_progress("load with TensorFlow", 0, 1)
        on_progress("calibrate", 0, 100)
        for done in range(1, 101):
            clock.now_s += 0.3
            on_progress("calibrate", done, 100)
        on_progress("quantize", 0, 1)
        clock.now_s += 10
        on_progress("verify", 0, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "load with TensorFlow"
    assert [line.partition(",")[0] for line in lines[1:-1]] == ["calibrate: 34 %", "calibrate: 68 %"]
    assert lines[-1] == "verify"


def test_threads_share_the_pace(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    totals = {str(number): 100 for number in range(8)}
    with Ui(pace=Pace(clock=clock)).progress_of("sending", totals) as work:
        clock.now_s += 5

        def send(name: str) -> None:
            for _ in range(100):
                work.advance(name, 1)

        threads = [threading.Thread(target=send, args=(name,)) for name in totals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.now_s += 10
        work.note("0", "verified")
    assert len(capsys.readouterr().err.splitlines()) == 2


def on_a_terminal(script: str) -> str:
    """Return what a script writes on a terminal of 80 columns."""
    controller, terminal = pty.openpty()
    environment = dict(os.environ, TERM="xterm", COLUMNS="80", LINES="40")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=terminal, stdout=subprocess.DEVNULL, env=environment
    )
    os.close(terminal)
    seen = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:  # the terminal's other end is closed: the process is gone
            break
        if not piece:
            break
        seen += piece
    os.close(controller)
    assert process.wait(timeout=30) == 0
    assert b"\x1b[" in seen
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def test_a_terminal_shows_a_bar_for_each_device_with_rate_and_time_left() -> None:
    shown = on_a_terminal(
        "from edgeq.cli.ui import Ui\n"
        "from edgeq.cli.progress import Unit\n"
        "import time\n"
        "with Ui().progress_of('sending', {'pi': 8 << 20, 'coral': 4 << 20}, unit=Unit.BYTES) as work:\n"
        "    for _ in range(4):\n"
        "        time.sleep(0.2)\n"
        "        work.advance('pi', 1 << 20)\n"
        "        work.advance('coral', 1 << 20)\n"
        "    work.note('coral', 'release verified')\n"
        "    time.sleep(0.2)\n"
    )
    assert re.search(r"pi .* 50 % [0-9.]+ MiB/s, [0-9]+ s left", shown)
    assert re.search(r"coral release verified .*100 %", shown)


@pytest.mark.slow
def test_a_terminal_shows_the_rate_of_a_step() -> None:
    shown = on_a_terminal(
        "from edgeq.cli.ui import Ui\n"
        "import time\n"
        "with Ui().progress('calibrating', 8) as advance:\n"
        "    for _ in range(4):\n"
        "        time.sleep(0.2)\n"
        "        advance(1)\n"
    )
    assert re.search(r"calibrating .* 50 % [0-9.]+/s, [0-9]+ s left", shown)
