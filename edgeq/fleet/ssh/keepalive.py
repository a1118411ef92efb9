"""Watching a connection: a question every few seconds, and an end when nothing comes back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko

from edgeq.fleet.ssh.activity import Lifeline

# Each step before the watch can begin (reaching, banner, key exchange, login) ends after this much silence.
STEP_S = 9.0
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a dead connection is noticed: within `patience_s` and half a second, whatever a command may take.

    A device that works silently is not taken for a dead one: its SSH server answers in the agent's place.

    Attributes:
        every_s: how often the other side is asked for a sign of life.
        patience_s: how long there may be none before the connection is given up.
    """

    every_s: float = 2.0
    patience_s: float = 8.0


USUAL = Watch()


class Watchdog:
    """Closes a connection that died; whoever waits in it gets an error then.

    paramiko itself does not notice a dead path, and what it waits for it waits for without an end.

    Attributes:
        found: what was wrong, once something was.
    """

    def __init__(self, session: paramiko.Transport, life: Lifeline, *, name: str, watch: Watch) -> None:
        self.found: str | None = None
        self._session = session
        self._life = life
        self._watch = watch
        self._due: tuple[float, str] | None = None
        self._closing = threading.Event()
        for work in (self._ask, self._judge):
            threading.Thread(target=work, name=f"edgeq-{name}{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._closing.set()

    @contextlib.contextmanager
    def at_most(self, seconds: float, problem: str) -> Iterator[None]:
        """Give a step a limit that the library does not give it."""
        self._due = (time.monotonic() + seconds, problem)
        try:
            yield
        finally:
            self._due = None

    def _ask(self) -> None:
        while not self._closing.wait(self._watch.every_s):
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                # Any answer will do, also the usual refusal; without one the call waits until the close.
                self._session.global_request("keepalive@openssh.com", wait=True)

    def _judge(self) -> None:
        while not self._closing.wait(min(_LOOK_S, self._watch.every_s)):
            silent_s = self._life.silent_s()
            due = self._due
            if silent_s > self._watch.patience_s:
                self.found = f"gave no sign of life for {silent_s:.3g} s"
            elif due is not None and time.monotonic() > due[0]:
                self.found = due[1]
            else:
                continue
            self._closing.set()
            self._session.close()
