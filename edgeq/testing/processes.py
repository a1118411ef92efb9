"""Processes of the loopback device: each exec request runs one group, which ends with its SSH channel."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import paramiko

_PIECE_BYTES = 64 * 1024
_running: set[int] = set()


class ExecProcess:
    """Runs `/bin/sh -c COMMAND` and joins its three streams to a channel."""

    def __init__(
        self, channel: paramiko.Channel, *, command: str, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._channel = channel
        self._command = command
        self._folder = folder
        self._environment = environment

    def start(self) -> None:
        """Run in the background; the request's answer must go out before any output does."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        process = subprocess.Popen(
            ["/bin/sh", "-c", self._command],
            cwd=self._folder,
            env=dict(self._environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        _running.add(process.pid)
        assert process.stdin is not None  # noqa: S101 - all three are opened as pipes
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        threading.Thread(target=self._feed, args=(process, process.stdin), daemon=True).start()
        errors = threading.Thread(target=self._drain, args=(process.stderr, True), daemon=True)
        errors.start()
        self._drain(process.stdout, False)
        errors.join()
        status = process.wait()
        _running.discard(process.pid)
        # The client may be gone by now.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.send_exit_status(status if status >= 0 else 128 - status)
            self._channel.shutdown_write()
            self._channel.close()

    def _feed(self, process: subprocess.Popen[bytes], stdin: IO[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):
            while piece := self._channel.recv(_PIECE_BYTES):
                with contextlib.suppress(BrokenPipeError):  # it reads no more; keep the client's window open
                    stdin.write(piece)
                    stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        # recv returns b"" both at the end of the input and at the end of the connection.
        transport = self._channel.get_transport()
        while process.poll() is None:
            if self._channel.closed or not transport.is_active():
                kill_group(process.pid)
                return
            transport.join(0.2)
            if process.poll() is None and transport.is_active():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)

    def _drain(self, source: IO[bytes], is_stderr: bool) -> None:
        descriptor = source.fileno()
        send = self._channel.sendall_stderr if is_stderr else self._channel.sendall
        try:
            while piece := os.read(descriptor, _PIECE_BYTES):
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    send(piece)
        finally:
            source.close()


def kill_group(pid: int) -> None:
    """End a command and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def kill_all() -> None:
    """End every command that still runs."""
    for pid in list(_running):
        kill_group(pid)
