"""The clock of one command: how long it may be silent, and how long it may take."""

from __future__ import annotations

import time

from edgeq.errors import DeviceTimeout
from edgeq.fleet.transport import Limits


class Pace:
    """Notes when bytes moved, and says when a limit is passed.

    Attributes:
        has_answered: whether the device said anything yet.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self._name = name
        self._limits = limits
        self._started_s = self._moved_s = time.monotonic()
        self.has_answered = False

    def moved(self) -> None:
        """Bytes moved, in either direction."""
        self._moved_s = time.monotonic()

    def answered(self) -> None:
        """The device said something: from now on a silence has the shorter limit."""
        self.has_answered = True
        self.moved()

    def passed(self) -> DeviceTimeout | None:
        """Return the error for a limit that is passed; None while none is."""
        now_s = time.monotonic()
        silence_s = self._limits.silence_s if self.has_answered else self._limits.first_s
        if now_s - self._moved_s > silence_s:
            problem = f"no answer for {now_s - self._moved_s:.0f} s"
        elif now_s - self._started_s > self._limits.total_s:
            problem = f"not done after {now_s - self._started_s:.0f} s"
        else:
            return None
        return DeviceTimeout(self._name, problem, hint="look at the device's load, then try again")
