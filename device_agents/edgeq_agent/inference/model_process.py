"""Runs a model in a process of its own: its memory, crashes and hangs stay there, the wait is bounded."""

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

# The agent's own code, a folder or a .pyz: the child imports the same one.
_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = "import sys; sys.path[0] = {!r}; from edgeq_agent.inference.worker import main; main()"
_STDERR_BYTES = 16 * 1024

OnEvent = Callable[[wire.Json], None]


def run(
    interpreter: str,
    job: wire.Json,
    timeout_s: float,
    on_event: OnEvent | None = None,
    crash_code: str = UNHEALTHY,
) -> wire.Json:
    """Run one job under `interpreter` and return its result.

    Args:
        interpreter: path of the Python that has the runtime.
        job: what to do; see child_main.
        timeout_s: after that the process and all that it started are killed.
        on_event: gets every message that is neither result nor error.
        crash_code: the code of the error when the process dies without an answer.

    Raises:
        AgentError: EQ511 at the deadline; `crash_code` when it died; else what the job reported.
    """
    process = _spawn(interpreter)
    try:
        talk = _Talk(process, time.monotonic() + timeout_s, on_event)
        talk.run(wire.dump(dict(job, event="job", timeout_s=timeout_s, parent_pid=os.getpid())))
        if talk.late:
            raise AgentError(
                DEADLINE,
                "job " + str(job.get("job")),
                "the model's process did not answer and was killed",
                expected=f"an answer within {timeout_s:g} s",
                hint="allow more time, or roll back",
            )
        return _outcome(talk, process, crash_code)
    finally:
        _kill(process)
        _close(process)


def _spawn(interpreter: str) -> subprocess.Popen[bytes]:
    # PYTHON* of the caller must not change what the runtime imports; -E does that for every interpreter.
    command = [interpreter, "-E", "-c", _START.format(_CODE)]
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


class _Talk:
    """One exchange with the child: the job in, lines out, the end of standard error kept."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float, on_event: OnEvent | None) -> None:
        self._process = process
        self._deadline = deadline
        self._on_event = on_event
        self._rest: list[bytes] = []
        self.last: wire.Json | None = None
        self.stderr = b""
        self.late = False

    def run(self, line: bytes) -> None:
        process = self._process
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the child has no pipes")
        with suppress(BrokenPipeError):  # it died at once: how is seen from its exit status
            process.stdin.write(line)
            process.stdin.close()
        sinks: dict[int, Callable[[bytes], None]] = {
            process.stdout.fileno(): self._take,
            process.stderr.fileno(): self._keep,
        }
        with selectors.DefaultSelector() as selector:
            for descriptor in sinks:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map() and self.last is None:
                ready = selector.select(max(0.0, self._deadline - time.monotonic()))
                if not ready and time.monotonic() >= self._deadline:
                    self.late = True
                    return
                for key, _ in ready:
                    chunk = os.read(key.fd, 65536)
                    if chunk:
                        sinks[key.fd](chunk)
                    else:
                        selector.unregister(key.fd)
        self._wait()

    def _wait(self) -> None:
        try:
            self._process.wait(max(0.1, self._deadline - time.monotonic()) if self.last is None else 5.0)
        except subprocess.TimeoutExpired:
            self.late = (
                self.last is None
            )  # an answer counts, even when the process then does not end by itself

    def _take(self, chunk: bytes) -> None:
        while True:
            head, newline, chunk = chunk.partition(b"\n")
            self._rest.append(head)
            if sum(map(len, self._rest)) > wire.MAX_LINE_BYTES:
                raise AgentError(UNHEALTHY, "the model's process", "answers with an endless line")
            if not newline:
                return
            line, self._rest = b"".join(self._rest), []
            try:
                self._message(wire.parse(line))
            except wire.WireError as error:
                raise AgentError(UNHEALTHY, "the model's process", str(error)) from error

    def _message(self, message: wire.Json) -> None:
        if message["event"] in ("result", "error"):
            self.last = message
        elif self._on_event is not None:
            self._on_event(message)

    def _keep(self, chunk: bytes) -> None:
        self.stderr = (self.stderr + chunk)[-_STDERR_BYTES:]


def _outcome(talk: _Talk, process: subprocess.Popen[bytes], crash_code: str) -> wire.Json:
    sys.stderr.write(talk.stderr.decode("utf-8", "replace"))
    if talk.last is None:
        raise AgentError(
            crash_code,
            "the model's process",
            "died without an answer: " + _death(process.returncode, talk.stderr),
        )
    if talk.last["event"] == "error":
        raise AgentError.from_message(talk.last["error"])
    result: wire.Json = talk.last["result"]
    if result.get("kernels") == "unknown" and b"XNNPACK delegate" in talk.stderr:
        result["kernels"] = "xnnpack"
    return result


def _death(status: int | None, stderr: bytes) -> str:
    if status is not None and status < 0:
        try:
            return "killed by " + signal.Signals(-status).name
        except ValueError:
            return f"killed by signal {-status}"
    last = stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return "exit status {}{}".format(status, ": " + last[0][:200] if last else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole process group, also what it started itself, and reap it."""
    with suppress(ProcessLookupError):  # all gone already
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it ends when the kernel lets it
        process.wait(10)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
