"""Run a job in a process of its own, with a deadline: a model's memory, crashes and hangs stay there."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Callable

from edgeq_agent import wire
from edgeq_agent.errors import DEADLINE, UNHEALTHY, UNSUPPORTED, AgentError
from edgeq_agent.inference import job as jobs
from edgeq_agent.inference.job import Job
from edgeq_agent.storage.code_folder import CODE

_START = "import sys; sys.path[0] = {!r}; from edgeq_agent.inference.worker import main; main()"
_STDERR_BYTES = 16 * 1024
_PIPE_BYTES = 64 * 1024
_EXIT_S = 5.0
_KILL_S = 10.0

OnEvent = Callable[[wire.Json], None]


def run(
    interpreter: str,
    job: Job,
    timeout_s: float,
    on_event: OnEvent | None = None,
    crash_code: str = UNHEALTHY,
) -> wire.Json:
    """Run one job under `interpreter` and return its result as JSON; the job's result type parses it.

    Args:
        interpreter: path of the Python that has the runtime.
        timeout_s: after this time the process and everything that it started are killed.
        on_event: called with every message that is neither a result nor an error.
        crash_code: the error's code when the process dies without a result.

    Raises:
        AgentError: EQ511 at the deadline; EQ503 the interpreter does not start; `crash_code` the process
            died; else the error that the job reported.
    """
    process = _spawn(interpreter)
    try:
        exchange = _Exchange(process, time.monotonic() + timeout_s, on_event)
        message = {
            "event": "job",
            "job": jobs.to_json(job),
            "timeout_s": timeout_s,
            "parent_pid": os.getpid(),
        }
        exchange.run(wire.dump(message))
        if exchange.timed_out:
            raise AgentError(
                DEADLINE,
                "job " + job.NAME,
                "the model's process did not answer in time and was killed",
                expected=f"an answer within {timeout_s:g} s",
                hint="allow more time, or roll back",
            )
        return _result(exchange, process, crash_code)
    finally:
        _kill(process)
        _close(process)


def _spawn(interpreter: str) -> subprocess.Popen[bytes]:
    # -E: PYTHON* variables of the caller must not change what the runtime imports.
    command = [interpreter, "-E", "-c", _START.format(CODE)]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # its own process group, killed as a whole
        )
    except OSError as error:
        raise AgentError(UNSUPPORTED, interpreter, f"does not start: {error.strerror}") from error


class _Exchange:
    """One exchange with the child: send the job, read lines, keep the end of standard error.

    Attributes:
        last: the result or the error; None when the child ended without one.
        timed_out: the deadline passed before the child answered.
    """

    def __init__(self, process: subprocess.Popen[bytes], deadline: float, on_event: OnEvent | None) -> None:
        self._process = process
        self._deadline = deadline
        self._on_event = on_event
        self._partial: list[bytes] = []
        self.last: wire.Json | None = None
        self.stderr = b""
        self.timed_out = False

    def run(self, line: bytes) -> None:
        process = self._process
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the child has no pipes")
        with suppress(BrokenPipeError):  # it died at once; its exit status says how
            process.stdin.write(line)
            process.stdin.close()
        sinks: dict[int, Callable[[bytes], None]] = {
            process.stdout.fileno(): self._read_lines,
            process.stderr.fileno(): self._keep_stderr,
        }
        with selectors.DefaultSelector() as selector:
            for descriptor in sinks:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map() and self.last is None:
                ready = selector.select(max(0.0, self._deadline - time.monotonic()))
                if not ready and time.monotonic() >= self._deadline:
                    self.timed_out = True
                    return
                for key, _ in ready:
                    chunk = os.read(key.fd, _PIPE_BYTES)
                    if chunk:
                        sinks[key.fd](chunk)
                    else:
                        selector.unregister(key.fd)
        self._wait()

    def _wait(self) -> None:
        left_s = max(0.1, self._deadline - time.monotonic()) if self.last is None else _EXIT_S
        try:
            self._process.wait(left_s)
        except subprocess.TimeoutExpired:
            # A result counts even when the process does not end after it.
            self.timed_out = self.last is None

    def _read_lines(self, chunk: bytes) -> None:
        while True:
            head, newline, chunk = chunk.partition(b"\n")
            self._partial.append(head)
            if sum(map(len, self._partial)) > wire.MAX_LINE_BYTES:
                raise AgentError(UNHEALTHY, "the model's process", "sent a line without an end")
            if not newline:
                return
            line, self._partial = b"".join(self._partial), []
            try:
                self._handle(wire.parse(line))
            except wire.WireError as error:
                raise AgentError(UNHEALTHY, "the model's process", str(error)) from error

    def _handle(self, message: wire.Json) -> None:
        if message["event"] in ("result", "error"):
            self.last = message
        elif self._on_event is not None:
            self._on_event(message)

    def _keep_stderr(self, chunk: bytes) -> None:
        self.stderr = (self.stderr + chunk)[-_STDERR_BYTES:]


def _result(exchange: _Exchange, process: subprocess.Popen[bytes], crash_code: str) -> wire.Json:
    sys.stderr.write(exchange.stderr.decode("utf-8", "replace"))
    if exchange.last is None:
        raise AgentError(
            crash_code,
            "the model's process",
            "died without an answer: " + _cause_of_death(process.returncode, exchange.stderr),
        )
    if exchange.last["event"] == "error":
        raise AgentError.from_message(exchange.last["error"])
    result: wire.Json = exchange.last["result"]
    # Some runtimes do not let the child look at their operations, but log the delegate.
    if result.get("kernels") == "unknown" and b"XNNPACK delegate" in exchange.stderr:
        result["kernels"] = "xnnpack"
    return result


def _cause_of_death(status: int | None, stderr: bytes) -> str:
    if status is not None and status < 0:
        try:
            return "killed by " + signal.Signals(-status).name
        except ValueError:
            return f"killed by signal {-status}"
    last = stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return "exit status {}{}".format(status, ": " + last[0][:200] if last else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole process group, including what it started, and reap the child."""
    with suppress(ProcessLookupError):  # the group has ended already
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it ends when the kernel returns
        process.wait(_KILL_S)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
