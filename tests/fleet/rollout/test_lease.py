"""The lease: real processes race for it, the dead lose it, the living and other machines keep it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeq.errors import RolloutBusy
from edgeq.fleet.rollout import lease

HOLD = """
import sys, time
from pathlib import Path
from edgeq.errors import RolloutBusy
from edgeq.fleet.rollout import lease
folder, barrier = Path(sys.argv[1]), Path(sys.argv[2])
while not barrier.exists():
    time.sleep(0.001)
try:
    with lease.hold(folder, name="r-1"):
        print("held", flush=True)
        sys.stdin.read()
except RolloutBusy as error:
    print("busy", error.message, flush=True)
"""


def contender(folder: Path, barrier: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(barrier)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_word(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)


@pytest.mark.slow
def test_of_processes_that_race_exactly_one_gets_it_each_time(tmp_path: Path) -> None:
    for number in range(3):
        barrier = tmp_path / f"go{number}"
        racers = [contender(tmp_path, barrier) for _ in range(4)]
        time.sleep(0.3)
        barrier.touch()
        words = [first_word(racer) for racer in racers]
        assert [word.split()[0] for word in words].count("held") == 1, words
        for word in words:
            if word != "held":
                assert word.startswith("busy r-1: has a controller already")
        for racer in racers:
            end(racer)


def test_the_dead_lose_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    holder = contender(tmp_path, tmp_path / "go")
    assert first_word(holder) == "held"
    with pytest.raises(RolloutBusy, match=f"process {holder.pid}"), lease.hold(tmp_path, name="r-1"):
        pass
    holder.send_signal(signal.SIGKILL)
    end(holder)
    assert json.loads((tmp_path / "lease").read_text())["pid"] == holder.pid
    with lease.hold(tmp_path, name="r-1"):
        assert json.loads((tmp_path / "lease").read_text())["pid"] == os.getpid()
    assert json.loads((tmp_path / "lease").read_text()) == {}


def holder_file(tmp_path: Path, **changes: object) -> None:
    (tmp_path / "lease").write_text(json.dumps({**lease.this_process().to_json(), **changes}))


def test_another_machine_is_never_taken_for_dead(tmp_path: Path) -> None:
    holder_file(tmp_path, host="elsewhere", pid=1)
    with pytest.raises(RolloutBusy, match="process 1 on elsewhere") as caught, lease.hold(tmp_path, name="r"):
        pass
    assert "remove .edgeq/rollouts/r/lease" in caught.value.hint
    assert json.loads((tmp_path / "lease").read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("changes", [None, {"pid": 2**22 + 1, "start": "1"}])
def test_the_kernels_lock_alone_keeps_it(tmp_path: Path, changes: dict[str, object] | None) -> None:
    # A controller before it wrote who it is; or one whose number means nothing here, as in a container.
    if changes:
        holder_file(tmp_path, **changes)
    with (tmp_path / "lease").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RolloutBusy), lease.hold(tmp_path, name="r"):
            pass
    with lease.hold(tmp_path, name="r"):
        pass


def test_a_living_process_without_the_kernels_lock_keeps_it(tmp_path: Path) -> None:
    holder_file(tmp_path)
    with pytest.raises(RolloutBusy), lease.hold(tmp_path, name="r"):
        pass


@pytest.mark.parametrize(
    "changes", [{"start": "1"}, {"boot_id": "another"}, {"pid": 2**22 + 1, "start": "1"}]
)
def test_a_number_that_was_used_again_is_another_process(tmp_path: Path, changes: dict[str, object]) -> None:
    holder_file(tmp_path, **changes)
    with lease.hold(tmp_path, name="r"):
        assert json.loads((tmp_path / "lease").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", '{"host": "els', "[1]", "\x00\x00"])
def test_a_half_written_lease_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease").write_text(text)
    with lease.hold(tmp_path, name="r"):
        pass
