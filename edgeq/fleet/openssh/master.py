"""The `ssh` process that holds a connection: started, listened to, ended and reaped; never left alone."""

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
# Fixed text; the command comes as words. The reader of the pipe ends ssh when this process is gone, also when
# it was killed: a master would stay logged in for ever. It takes the private folder along.
_TIED = """
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
        pid: of the process group; ssh is in it, with what ssh itself started for machines on the way.
        signals: how many commands ended by a signal, as ssh told.
    """

    def __init__(self, argv: list[str], *, folder: Path, name: str) -> None:
        """Start it; a private folder goes when it is ended."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _TIED, "sh", str(folder), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # without a terminal nothing can ask anybody for anything
        )
        self.pid = self._process.pid
        self.signals = 0
        self._log = b""
        self._heard_s = time.monotonic()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._listen, name=f"edgeq-ssh-{name}", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_for(self, path: Path, *, silence_s: float, total_s: float) -> bool:
        """Wait until it has logged in and listens at a path; False when it ended before.

        It tells each of its steps on its log: so long as it does, it gets on.

        Raises:
            TimeoutError: nothing was heard of it for so long; the message says how long.
        """
        until_s = time.monotonic() + total_s
        while not path.exists():
            if self._process.poll() is not None:
                return False
            silent_s = time.monotonic() - self._heard_s
            if silent_s > silence_s or time.monotonic() > until_s:
                raise TimeoutError(f"waited {silent_s:.0f} s")
            time.sleep(_LOOK_S)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, with all that it said; False when it goes on."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(_END_S)
        return True

    def lines(self) -> tuple[str, ...]:
        """Return the last of what it said."""
        return tuple(line.strip() for line in self._log.decode("utf-8", "replace").splitlines())

    def end(self) -> None:
        """End it and all it started, and reap it; again is harmless."""
        with self._lock:
            if self._process.stdin is not None and not self._process.stdin.closed:
                # SIGTERM: ssh says goodbye, so that the device does not wait for it.
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            self.kill()
            self._reader.join(_END_S)

    def kill(self) -> None:
        """End what still runs of it at once, with what ssh started for machines on the way."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def _listen(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - a pipe, as asked
        with self._process.stderr as stream:
            while piece := os.read(stream.fileno(), _PIECE_BYTES):
                self._heard_s = time.monotonic()
                # Only whole lines count, so that one which comes in two pieces counts once.
                whole = self._log.rpartition(b"\n")[2] + piece
                self.signals += whole[: whole.rfind(b"\n") + 1].count(_SIGNAL)
                self._log = (self._log + piece)[-_LOG_BYTES:]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # A window that asks for a passphrase would wait for somebody.
    for name in ("SSH_ASKPASS", "DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    return {**environment, "SSH_ASKPASS_REQUIRE": "never"}
