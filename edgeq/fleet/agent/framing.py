"""Frame a command's output, so that what a login shell prints or reads is not taken for the agent's.

A login shell runs its start files before the command. They may print, with or without a newline, read the
command's input, leave processes that hold its output, or end before the command. A line with a random marker
says that the command runs. Only then is its input sent.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator

from edgeq.errors import AgentProtocolError, CommandNotRun, DeviceTimeout, DeviceUnsupported, ShellHangs
from edgeq.fleet.transport import Ended, Running

# Settings of Python that a start file may export. They are for another Python, or point nowhere.
_PYTHON_SETTINGS = (
    "HOME PATH STARTUP OPTIMIZE DEBUG INSPECT UNBUFFERED VERBOSE CASEOK IOENCODING USERBASE "
    "NOUSERSITE EXECUTABLE WARNINGS FAULTHANDLER TRACEMALLOC PROFILEIMPORTTIME ASYNCIODEBUG "
    "MALLOC MALLOCSTATS COERCECLOCALE DEVMODE UTF8 BREAKPOINT PLATLIBDIR SAFEPATH THREADDEBUG "
    "DUMPREFS HASHSEED WARNDEFAULTENCODING NODEBUGRANGES INTMAXSTRDIGITS PERFSUPPORT "
    "FROZEN_MODULES GIL PYCACHEPREFIX DONTWRITEBYTECODE"
)
# Fixed text; the marker and the command come as arguments, the marker in two parts: a shell that prints each
# command (`set -x`) must not print the whole of it. `sh` has the same language on every device, and a
# login shell may be fish or csh.
_NAMES = " ".join(f"PYTHON{name}" for name in _PYTHON_SETTINGS.split())
_RUN = "unset " + _NAMES + '; echo "$0$1"; shift; exec "$@"'
# A start file with `read` waits for a line. It gets an empty one after this time, and then another; the agent
# and the script that installs it skip empty lines before their own input.
_NUDGE_S = 1.0
_NUDGES = 4
_HEARD_BYTES = 4 * 1024
_NOISE_BYTES = 256 * 1024
_SHOWN_CHARACTERS = 200
_WHERE = "a start file of the login shell (~/.bashrc, ~/.zshenv, ~/.profile, ~/.config/fish/config.fish)"


class Frame:
    """One command's frame.

    Attributes:
        mark: precedes each message of the agent.
        started: whether the login shell has started the command.
        heard: the last of what the login shell printed before that.
    """

    def __init__(self, name: str, *, start_s: float, answer_s: float) -> None:
        """Make a frame for a command on the device `name`.

        Args:
            start_s: how long its login shell may take.
            answer_s: how long the command may then be silent.
        """
        self.mark = f"edgeq-{secrets.token_hex(8)}"
        self._start_parts = (f"edgeq-{secrets.token_hex(8)}", "-runs")
        self.heard = b""
        self._name = name
        self._start_s = start_s
        self._answer_s = answer_s
        self._started = threading.Event()
        self._ended = False
        self._input_ended = False

    @property
    def started(self) -> bool:
        return self._started.is_set()

    def argv(self, argv: list[str]) -> list[str]:
        """Return the command that prints the marker and becomes `argv`."""
        return ["sh", "-c", _RUN, *self._start_parts, *argv]

    def stdin(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the input once the command runs; before, empty lines for start files that read one."""
        until_s = time.monotonic() + self._start_s
        nudges = 0
        while not self._started.wait(_NUDGE_S):
            if self._ended:
                return
            if time.monotonic() > until_s:
                # The end of input: a shell that takes it for its commands ends, and `cat` goes on.
                self._input_ended = True
                return
            # Not for long: bytes that are sent restart the idle timeout.
            if nudges < _NUDGES:
                nudges += 1
                yield b"\n"
        yield from pieces

    def lines(self, running: Running) -> Iterator[bytes]:
        """Yield the lines of the command's own output.

        Raises:
            DeviceUnsupported: a start file has read the command's input to its end.
            ShellHangs: the login shell did not start the command in time.
            AgentProtocolError: it prints without an end.
        """
        try:
            yield from self._own(running)
        except DeviceTimeout as error:
            if self.started or not running.out_of_time:
                raise
            raise self._hangs(error) from error
        finally:
            self._ended = True

    def _own(self, running: Running) -> Iterator[bytes]:
        start, mark = "".join(self._start_parts).encode(), self.mark.encode()
        noise_bytes = 0
        marked = False
        for line in running.lines():
            before, mark_seen, _ = line.partition(start)
            if self.started:
                _, mark_seen, rest = line.partition(mark)
                if mark_seen and rest.startswith(b"{"):
                    marked = True
                    yield rest
                elif not marked:
                    yield line
                # Otherwise a process of a start file printed it.
                continue
            self.heard = (self.heard + before + b"\n")[-_HEARD_BYTES:]
            noise_bytes += len(line)
            if mark_seen:
                if self._input_ended:
                    raise DeviceUnsupported(
                        self._name,
                        "the login shell reads the input of the command to its end",
                        hint=f"look for `cat`, `read` or a menu in {_WHERE}",
                    )
                running.allow_silence(self._answer_s)
                self._started.set()
            elif noise_bytes > _NOISE_BYTES:
                raise AgentProtocolError(
                    self._name,
                    f"the login shell prints without an end and starts no command: {self._text(b'')}",
                    hint=f"look at {_WHERE}",
                )

    def not_started(self, ended: Ended, problem: str | None = None) -> CommandNotRun:
        """Return the error for a login shell that ended and did not run the command.

        Args:
            problem: what is known about it.
        """
        status = "by a signal" if ended.exit_status is None else f"with exit status {ended.exit_status}"
        text = self._text(ended.stderr.encode())
        problem = problem or f"the login shell ended {status} and did not run the command"
        return CommandNotRun(self._name, f"{problem}; it printed {text}" if text else f"{problem}, silently")

    def _hangs(self, error: DeviceTimeout) -> ShellHangs:
        text = self._text(b"")
        return ShellHangs(
            self._name,
            f"the login shell does not start the command ({error.problem})"
            + (f"; it printed {text}" if text else ""),
            hint=f"look for what waits in {_WHERE}; if the device is only slow, check its load",
        )

    def _text(self, stderr: bytes) -> str:
        text = (self.heard + b"\n" + stderr).decode("utf-8", "replace")
        text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
        return repr(text[-_SHOWN_CHARACTERS:]) if text else ""
