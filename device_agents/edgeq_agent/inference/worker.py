"""The model's process: one job in, its answer out, under the runtime's interpreter."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from typing import BinaryIO, Callable, NoReturn

from edgeq_agent import wire
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import BUG, AgentError

_JOBS: dict[str, str] = {
    "prove": "self_test",
    "golden": "golden",
    "infer": "infer",
    "bench": "bench",
}
_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Do the job and exit."""
    response = Response(_private_stdout())
    job = wire.parse(sys.stdin.buffer.readline(wire.MAX_LINE_BYTES + 1))
    _die_with_parent(int(job["parent_pid"]), float(job["timeout_s"]))
    try:
        run: Callable[[wire.Json, Response], wire.Json] = importlib.import_module(
            "edgeq_agent.inference.jobs." + _JOBS[str(job["job"])]
        ).run
        response.send(wire.result(run(job, response)))
    except AgentError as error:
        response.send(error.message())
    except Exception as error:  # noqa: BLE001 - the boundary of this process
        traceback.print_exc()
        summary = " ".join(f"{type(error).__name__}: {error}".split())
        response.send(AgentError(BUG, "the model's process", "a bug: " + summary[:300]).message())
    sys.stderr.flush()
    # Not sys.exit: a runtime's destructors may hang or crash, and the answer is out already.
    os._exit(0)


def _private_stdout() -> BinaryIO:
    """Return the pipe to the parent, and let everything that prints land on standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def _die_with_parent(parent_pid: int, timeout_s: float) -> None:
    """End with the agent: by the kernel's signal where there is one, and by an alarm in any case."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return  # a Python without ctypes: the alarm remains
    if os.getppid() != parent_pid:
        os._exit(1)
