"""The `ssh` master process that holds a connection: start it, read its log, end and reap it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

_LOG_BYTES = 64 * 1024
_PIECE_BYTES = 4096
_LOOK_S = 0.02
_END_S = 2.0
_SIGNAL = b"rtype exit-signal"
# Fixed text; the command comes as arguments. The reader of the pipe ends ssh when this process is gone, even
# if it was killed; otherwise the master would stay logged in. It also removes the private folder.
_SUPERVISOR = """
folder=$1
shift
exec 3<&0
"$@" 3<&- </dev/null &
ssh=$!
{ while read -r _; do :; done; rm -rf -- "$folder"; kill "$ssh"; } <&3 2>/dev/null &
watch=$!
exec 3<&-
wait "$ssh"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"""


class Master:
    """An `ssh` process with its log.

    Attributes:
        pid: of the process group, which holds ssh and the processes that it started for jump hosts.
        signals: how many commands ended by a signal, according to ssh's log.
    """

    def __init__(self, argv: list[str], *, folder: Path, name: str) -> None:
        """Start it; the private folder is removed when it ends."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SUPERVISOR, "sh", str(folder), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # without a terminal, nothing can prompt
        )
        self.pid = self._process.pid
        self.signals = 0
        self._log = b""
        self._log_grew_s = time.monotonic()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read_log, name=f"edgeq-ssh-{name}", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_for(self, path: Path, *, silence_s: float, total_s: float) -> bool:
        """Wait until it has logged in and listens at a path; return False if it ended before.

        Each of its steps writes to its log, so a growing log means progress.

        Raises:
            TimeoutError: its log did not grow for `silence_s`, or `total_s` has passed.
        """
        until_s = time.monotonic() + total_s
        while not path.exists():
            if self._process.poll() is not None:
                return False
            silent_s = time.monotonic() - self._log_grew_s
            if silent_s > silence_s or time.monotonic() > until_s:
                raise TimeoutError(f"waited {silent_s:.0f} s")
            time.sleep(_LOOK_S)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end and the rest of its log; return False if it is still running."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(_END_S)
        return True

    def lines(self) -> tuple[str, ...]:
        """Return the last lines of its log."""
        return tuple(line.strip() for line in self._log.decode("utf-8", "replace").splitlines())

    def end(self) -> None:
        """End it and all it started, and reap it; may be called more than once."""
        with self._lock:
            if self._process.stdin is not None and not self._process.stdin.closed:
                # SIGTERM: ssh closes the connection properly, so that the device does not wait for it.
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            self.kill()
            self._reader.join(_END_S)

    def kill(self) -> None:
        """Kill what is still running, including the processes that ssh started for jump hosts."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def _read_log(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - opened as a pipe
        with self._process.stderr as stream:
            while piece := os.read(stream.fileno(), _PIECE_BYTES):
                self._log_grew_s = time.monotonic()
                # Only complete lines count, so that one that arrives in two pieces counts once.
                whole = self._log.rpartition(b"\n")[2] + piece
                self.signals += whole[: whole.rfind(b"\n") + 1].count(_SIGNAL)
                self._log = (self._log + piece)[-_LOG_BYTES:]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # A window that asks for a passphrase would wait for a user.
    for name in ("SSH_ASKPASS", "DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    return {**environment, "SSH_ASKPASS_REQUIRE": "never"}
