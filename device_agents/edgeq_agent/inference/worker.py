"""The model's process: read one job, run it under the runtime's interpreter, write its result."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from typing import Any, BinaryIO, Callable, NoReturn

from edgeq_agent import wire
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import BUG, AgentError
from edgeq_agent.inference.job import BenchJob, GoldenJob, InferJob, JobContext, SelfTestJob

# The type of each job, and the module in `jobs` that runs it.
_JOBS: dict[str, tuple[Any, str]] = {
    SelfTestJob.NAME: (SelfTestJob, "self_test"),
    GoldenJob.NAME: (GoldenJob, "golden"),
    InferJob.NAME: (InferJob, "infer"),
    BenchJob.NAME: (BenchJob, "bench"),
}
_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Run the job and exit."""
    response = Response(_private_stdout())
    message = wire.parse(sys.stdin.buffer.readline(wire.MAX_LINE_BYTES + 1))
    timeout_s = float(message["timeout_s"])
    _die_with_parent(int(message["parent_pid"]), timeout_s)
    try:
        kind, module = _JOBS[str(message["job"]["job"])]
        loaded = importlib.import_module("edgeq_agent.inference.jobs." + module)
        run: Callable[[Any, JobContext], wire.Json] = loaded.run
        result = run(kind.from_json(message["job"]), JobContext(response, timeout_s))
        response.send(wire.result(result))
    except AgentError as error:
        response.send(error.message())
    except Exception as error:  # noqa: BLE001 - the boundary of this process
        traceback.print_exc()
        summary = " ".join(f"{type(error).__name__}: {error}".split())
        response.send(AgentError(BUG, "the model's process", "a bug: " + summary[:300]).message())
    sys.stderr.flush()
    # Not sys.exit: a runtime's destructors may hang or crash, and the result is already sent.
    os._exit(0)


def _private_stdout() -> BinaryIO:
    """Return the pipe to the parent, and redirect everything else that prints to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def _die_with_parent(parent_pid: int, timeout_s: float) -> None:
    """End when the agent ends: by the kernel's signal where there is one, and by an alarm in any case."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return  # a Python without ctypes: the alarm remains
    if os.getppid() != parent_pid:
        os._exit(1)
