"""Keepalives: probe a connection every few seconds, and close it when the other side is silent."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko

from edgeq.fleet.ssh.activity import ActivitySocket

# The time limit of each step before keepalives start: connecting, banner, key exchange, login.
STEP_S = 9.0
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a dead connection is detected: within `patience_s` and half a second, whatever a command may take.

    A device that works silently is not mistaken for a dead one: its SSH server answers the keepalives.

    Attributes:
        every_s: interval of keepalives, in seconds.
        patience_s: how long the other side may be silent before the connection is closed, in seconds.
    """

    every_s: float = 2.0
    patience_s: float = 8.0


USUAL = Watch()


class Watchdog:
    """Closes a dead connection, so that threads that wait in it get an error.

    paramiko itself does not detect a dead path, and waits without a limit.

    Attributes:
        reason: why the connection was closed, or None.
    """

    def __init__(self, session: paramiko.Transport, life: ActivitySocket, *, name: str, watch: Watch) -> None:
        self.reason: str | None = None
        self._session = session
        self._life = life
        self._watch = watch
        self._due: tuple[float, str] | None = None
        self._closing = threading.Event()
        for work in (self._ask, self._judge):
            threading.Thread(target=work, name=f"edgeq-{name}{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
        self._closing.set()

    @contextlib.contextmanager
    def at_most(self, seconds: float, problem: str) -> Iterator[None]:
        """Apply a time limit to a step for which paramiko has none."""
        self._due = (time.monotonic() + seconds, problem)
        try:
            yield
        finally:
            self._due = None

    def _ask(self) -> None:
        while not self._closing.wait(self._watch.every_s):
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                # Any reply counts, even the usual refusal. Without one the call waits until the close.
                self._session.global_request("keepalive@openssh.com", wait=True)

    def _judge(self) -> None:
        while not self._closing.wait(min(_LOOK_S, self._watch.every_s)):
            silent_s = self._life.silent_s()
            due = self._due
            if silent_s > self._watch.patience_s:
                self.reason = f"did not respond for {silent_s:.3g} s"
            elif due is not None and time.monotonic() > due[0]:
                self.reason = due[1]
            else:
                continue
            self._closing.set()
            self._session.close()
