"""A thread pool with a deadline per job: a device that never responds costs a thread, not the rollout."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from edgeq.fleet.rollout.protocols import NoAnswer


class ThreadPool:
    """One thread per job. A job that misses its deadline is abandoned, and its result is ignored."""

    def __init__(self) -> None:
        self._ended: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self._running: dict[int, tuple[str, float]] = {}
        self._next = 0

    @property
    def busy(self) -> int:
        """The number of jobs that `wait` has not returned yet."""
        return len(self._running)

    def submit(self, key: str, job: Callable[[], Any], *, deadline_s: float) -> None:
        """Start a job."""
        number = self._next
        self._next += 1
        self._running[number] = (key, time.monotonic() + deadline_s)

        def work() -> None:
            try:
                self._ended.put((number, job(), None))
            except BaseException as error:  # noqa: BLE001 - raised again by `wait` in the caller's thread
                self._ended.put((number, None, error))

        # A daemon thread: a device that hangs must not keep the command from ending.
        threading.Thread(target=work, name=f"rollout {key}", daemon=True).start()

    def wait(self, timeout_s: float) -> list[tuple[str, Any]]:
        """Return the jobs that ended, waiting up to the timeout."""
        if not self._running:
            return []
        now_s = time.monotonic()
        earliest_s = min(deadline_s for _, deadline_s in self._running.values())
        outcomes: list[tuple[str, Any]] = []
        wait_s = max(0.0, min(timeout_s, earliest_s - now_s))
        while True:
            try:
                number, value, error = self._ended.get(timeout=wait_s) if wait_s else self._ended.get_nowait()
            except queue.Empty:
                break
            wait_s = 0.0
            if number not in self._running:
                continue
            key, _ = self._running.pop(number)
            if error is not None:
                raise error
            outcomes.append((key, value))
        now_s = time.monotonic()
        for number, (key, deadline_s) in list(self._running.items()):
            if deadline_s <= now_s:
                del self._running[number]
                outcomes.append((key, NoAnswer()))
        return outcomes
