"""Run a command of the user on devices: no input, bounded output, an end after a timeout."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeq.command_line import redacted
from edgeq.errors import AgentProtocolError, CommandFailed, DeviceTimeout, ShellHangs, UsageError
from edgeq.fleet.agent.framing import Frame
from edgeq.fleet.audit import audited
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy, retrying
from edgeq.fleet.connect import open_transport
from edgeq.fleet.parallel import Results, on_each
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.fleet.transport import Ended, Limits, Running
from edgeq.units import format_size
from edgeq.values import Device

DEFAULT_TIMEOUT_S = 60.0
MOST_OUTPUT_BYTES = 1024 * 1024
# The kernel passes no longer word to a program, and the login shell gets all words as one.
_LONGEST_COMMAND = 64 * 1024
# After the command's own timeout, for the answer to arrive.
_GRACE_S = 10.0
# A command that has written too much is read on for so long, so that a short rest ends with its status.
_REST_S = 2.0
# One that goes on writing is stopped here: a line without an end is kept in memory.
_STOPPED_BYTES = 16 * 1024 * 1024
# A Python program that does what `timeout -k 5` does; without quotes, because a shell gets it in quotes.
_PYTHON = """
import os, signal, subprocess, sys, time
limit, *words = sys.argv[1:]
try:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
for number, after_s in ((signal.SIGTERM, float(limit)), (signal.SIGKILL, 5)):
    try:
        status = process.wait(after_s)
        break
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, number)
else:
    status = process.wait()
late = number == signal.SIGKILL
sys.exit(124 if late else status if status >= 0 else 128 - status)
"""
# $1 is the device's Python, the rest the seconds and the command. Its time ends on the device also when the
# connection is gone: by `timeout` (older ones know no -k), else by Python, else by the shell, which can end
# the command itself but not what that has started.
_RUN = f"""
python=$1; shift
for k in "-k 5" ""; do
  if timeout $k 1 true </dev/null >/dev/null 2>&1; then exec timeout $k "$@" </dev/null; fi
done
if "$python" -I -c "import subprocess" </dev/null >/dev/null 2>&1; then
  exec "$python" -I -c '{_PYTHON}' "$@"
fi
limit=$1; shift
"$@" </dev/null & command=$!
(sleep "$limit"; kill "$command"; sleep 5; kill -9 "$command") >/dev/null 2>&1 & watch=$!
wait "$command"; status=$?
kill "$watch" 2>/dev/null
exit "$status"
"""
_TIMED_OUT = (124, 137, 143)
_NOT_RUN = {126: "not a program that this user may run", 127: "no such command"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """How a command ended on a device.

    Attributes:
        exit_status: None if a signal ended it, or if it was stopped because it wrote too much.
        stdout: at most MOST_OUTPUT_BYTES; bytes that are not UTF-8 are replaced.
        stderr: the last 8 KiB.
        truncated: whether it wrote more to standard output.
    """

    device: str
    exit_status: int | None
    stdout: str
    stderr: str
    truncated: bool
    duration_s: float

    @property
    def error(self) -> CommandFailed | None:
        """The error of a command that did not end with exit status 0."""
        if self.exit_status == 0:
            return None
        if self.truncated:
            limit = format_size(MOST_OUTPUT_BYTES)
            return CommandFailed(self.device, f"the command wrote more than {limit} and was stopped")
        if self.exit_status is None:
            return CommandFailed(self.device, "a signal ended the command")
        why = _NOT_RUN.get(self.exit_status)
        return CommandFailed(
            self.device, f"the command ended with exit status {self.exit_status}{f': {why}' if why else ''}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as `edgeq exec --json` prints it."""
        return {
            "exit_status": self.exit_status,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "truncated": self.truncated,
            "duration_s": self.duration_s,
        }


def words_of(command: Sequence[str]) -> list[str]:
    """Return the words to run: one word is a line for the device's `sh`, several are passed as they are.

    Raises:
        UsageError: there is no word, or they are too long.
    """
    if not any(word.strip() for word in command):
        raise UsageError("COMMAND", expected="a command after --", got="nothing")
    if sum(len(word.encode("utf-8", "surrogateescape")) for word in command) > _LONGEST_COMMAND:
        raise UsageError("COMMAND", "is too long", expected=f"at most {format_size(_LONGEST_COMMAND)}")
    if any("\0" in word for word in command):
        raise UsageError("COMMAND", expected="words without a null character", got="one")
    return ["sh", "-c", command[0]] if len(command) == 1 else list(command)


def bounded(python: str, timeout_s: float, words: Sequence[str]) -> list[str]:
    """Return the words that run a command on a device and end it there after its time."""
    return ["sh", "-c", _RUN, "sh", python, f"{max(1, round(timeout_s))}", *words]


def run_command(
    device: Device,
    command: Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    retry_policy: RetryPolicy = NO_RETRY,
) -> Executed:
    """Run a command on a device; only the connection is retried. The agent is not needed.

    Raises:
        UsageError: the command is empty or too long.
        DeviceTimeout: it did not end in time, and was ended on the device.
        TransportError: the subclass says what failed.
    """
    words = words_of(command)
    with (
        audited(device, "exec", {"words": redacted(command)}) as outcome,
        retrying(lambda: open_transport(device), retry_policy) as transport,
    ):
        start_s = 2 * STEP_S
        frame = Frame(device.name, start_s=start_s, answer_s=timeout_s + _GRACE_S)
        begun_s = time.monotonic()
        running = transport.run(
            frame.argv(bounded(device.python, timeout_s, words)),
            stdin=frame.stdin(()),
            limits=Limits(
                first_s=start_s,
                silence_s=start_s,
                total_s=start_s + timeout_s + _GRACE_S,
                output_bytes=_STOPPED_BYTES,
            ),
        )
        try:
            output = _output(frame, running)
            # A command that was stopped has no more to say: its connection is closed.
            ended = Ended(exit_status=None, stderr="", sent_bytes=0) if output.stopped else running.ended()
        except ShellHangs:
            raise
        except DeviceTimeout as error:
            raise _timed_out(device, timeout_s) from error
        if not frame.started:
            raise frame.not_started(ended)
        duration_s = time.monotonic() - begun_s
        if ended.exit_status in _TIMED_OUT and duration_s >= timeout_s:
            raise _timed_out(device, timeout_s)
        outcome.result = f"exit status {ended.exit_status}" if ended.exit_status is not None else "ended"
    return Executed(
        device=device.name,
        exit_status=ended.exit_status,
        stdout=output.text,
        stderr=ended.stderr,
        truncated=output.truncated,
        duration_s=round(duration_s, 3),
    )


def run_command_many(
    devices: Sequence[Device],
    command: Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    retry_policy: RetryPolicy = NO_RETRY,
) -> Results[Executed]:
    """Run a command on several devices; arguments as for `run_command`.

    Raises:
        UsageError: the command is empty or too long; nothing was started.
    """
    words_of(command)
    return on_each(
        devices,
        lambda device: run_command(device, command, timeout_s=timeout_s, retry_policy=retry_policy),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    text: str
    truncated: bool
    stopped: bool


def _output(frame: Frame, running: Running) -> _Output:
    """Return the output up to the limit, and whether there was more."""
    kept: list[bytes] = []
    left_bytes = MOST_OUTPUT_BYTES
    truncated = stopped = False
    try:
        for line in frame.lines(running):
            if truncated:
                continue
            kept.append(line[:left_bytes])
            left_bytes -= len(line) + 1
            if left_bytes < 0:
                truncated = True
                running.expect_end(_REST_S)
    except AgentProtocolError:
        if not frame.started:
            raise
        truncated = stopped = True
    text = b"\n".join(kept).decode("utf-8", "replace")
    return _Output(text=text, truncated=truncated, stopped=stopped)


def _timed_out(device: Device, timeout_s: float) -> DeviceTimeout:
    return DeviceTimeout(
        device.name,
        f"the command did not end within {timeout_s:g} s",
        hint="allow it more time with --timeout SECONDS",
    )
