"""A runtime in a forked process: it answers, records its own calls, and follows the release that serves."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.telemetry.window import parse

pytestmark = pytest.mark.convert


def _windows(on: Any) -> list[dict[str, Any]]:
    windows = [event["window"] for event in on.call("telemetry", limit=1000).of("window")]
    for window in windows:
        parse(window)
    return windows


def run(on: Any, data: Path, program: str) -> str:
    """Run a program on a device in a process of its own; `rt` has answered 5 calls there."""
    start = """
import multiprocessing, os, sys, time
import numpy as np
from edgeq_agent import Runtime
x = np.load(sys.argv[2])[0]
def calls(count):
    for _ in range(count):
        rt.infer(x)
if __name__ == "__main__":
    rt = Runtime("tiny", sys.argv[1], threads=2, poll_s=0.1)
    calls(5)
"""
    text = start + textwrap.indent(textwrap.dedent(program), "    ")
    path = on.home.parent / "program.py"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path), str(on.home), str(data)],
        env=on.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def totals(on: Any) -> list[int]:
    return sorted(window["inferences"] for window in _windows(on))


def test_the_calls_of_a_forked_process_are_recorded(serving: Any, tiny_models: Path) -> None:
    program = """
    child = os.fork()
    if child == 0:
        calls(1200)
        rt.close()
        os._exit(0)
    calls(7)
    assert os.waitpid(child, 0)[1] == 0
    rt.close()
    """
    run(serving, tiny_models / "data.npy", program)
    assert totals(serving) == [12, 1200]


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_a_child_that_never_calls_ends_and_records_nothing(serving: Any, tiny_models: Path, end: str) -> None:
    program = f"""
    child = os.fork()
    if child == 0:
        {end}
    assert os.waitpid(child, 0)[1] == 0
    """
    run(serving, tiny_models / "data.npy", program)
    assert totals(serving) == [5]


@pytest.mark.first_is_quick
@pytest.mark.parametrize("children", [1, 4])
def test_processes_of_multiprocessing_close_it_at_their_end(
    serving: Any, tiny_models: Path, children: int
) -> None:
    program = f"""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=calls, args=(30,)) for _ in range({children})]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    """
    run(serving, tiny_models / "data.npy", program)
    assert totals(serving) == [5] + [30] * children


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_processes_of_other_methods_are_recorded(serving: Any, tiny_models: Path, method: str) -> None:
    program = f"""
    import child
    rt.close()
    context = multiprocessing.get_context("{method}")
    process = context.Process(target=child.work, args=(sys.argv[1], x))
    process.start()
    process.join()
    assert process.exitcode == 0
    """
    (serving.home.parent / "child.py").write_text(
        "import multiprocessing.util\nfrom edgeq_agent import Runtime\nkept = []\n"
        "def work(home, x):\n    kept.append(Runtime('tiny', home))\n"
        "    for _ in range(20):\n        kept[0].infer(x)\n"
    )
    run(serving, tiny_models / "data.npy", program)
    assert totals(serving) == [5, 20]


def test_a_child_follows_the_release_that_serves(
    both: Any, tiny_models: Path, int8_bundle: Any, float_bundle: Any
) -> None:
    program = """
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        calls(1)
        print(rt.release, flush=True)
        os.write(ready[1], b".")
        os.read(go[0], 1)
        end = time.monotonic() + 60
        first = rt.release
        while rt.release == first and time.monotonic() < end:
            time.sleep(0.05)
        print(rt.release, flush=True)
        rt.close()
        os._exit(0)
    os.read(ready[0], 1)
    link = os.path.join(sys.argv[1], "models", "tiny", "current")
    state = os.path.join(sys.argv[1], "models", "tiny", "state.json")
    import json
    previous = json.load(open(state))["previous"]
    os.symlink("../../releases/" + previous, link + ".new")
    os.replace(link + ".new", link)
    os.write(go[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    """
    printed = run(both, tiny_models / "data.npy", program).split()
    assert printed == [float_bundle.release, int8_bundle.release]


def test_a_fork_while_counters_are_written_blocks_no_other_process(serving: Any, tiny_models: Path) -> None:
    program = """
    from edgeq_agent.activation import counters
    from edgeq_agent.storage.home import Home
    home = Home(sys.argv[1])
    with counters.changing(home, "tiny", None):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    with counters.trying(home, "tiny", None) as shared:
        assert shared is not None, "the child kept the lock"
    os.kill(child, 9)
    os.waitpid(child, 0)
    """
    run(serving, tiny_models / "data.npy", program)


PRELOADED = """
import os
import numpy as np
from edgeq_agent import Runtime
rt = Runtime("tiny", os.environ["HOME_FOLDER"], threads=2)
x = np.load(os.environ["DATA"])[0]
rt.infer(x)

def app(environ, start_response):
    for _ in range(10):
        rt.infer(x)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.slow
def test_workers_of_gunicorn_with_preload_are_recorded(serving: Any, tiny_models: Path) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    (serving.home.parent / "web.py").write_text(PRELOADED)
    address = serving.home.parent / "web.sock"
    environment = {
        **serving.environment, "HOME_FOLDER": str(serving.home), "DATA": str(tiny_models / "data.npy")
    }  # fmt: skip
    command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", f"unix:{address}", "web:app"]
    with subprocess.Popen(
        command, cwd=serving.home.parent, env=environment, stderr=subprocess.PIPE
    ) as process:
        pids = {ask_worker(address) for _ in range(12)}
        process.terminate()
        _, error = process.communicate(timeout=60)
    assert pids.isdisjoint({process.pid}), error
    windows = _windows(serving)
    assert sum(window["inferences"] for window in windows) == 1 + 120, error.decode()


def ask_worker(address: Path) -> int:
    """Return the pid of the worker that answered; waits until the server listens."""
    end = time.monotonic() + 60
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(address))
            except OSError:
                assert time.monotonic() < end, "gunicorn does not listen"
                time.sleep(0.1)
                continue
            connection.settimeout(60)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            return int(answer.rsplit(b"\r\n", 1)[1])
