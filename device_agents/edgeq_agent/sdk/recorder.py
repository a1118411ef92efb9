"""The recorder: one thread that stores telemetry windows in the outbox and counters in their file."""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque

from edgeq_agent.errors import AgentError, from_os
from edgeq_agent.sdk.call_metrics import CallMetrics, Ring, Totals
from edgeq_agent.sdk.counters import Counters
from edgeq_agent.sdk.errors import StorageFailed
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import outbox

if TYPE_CHECKING:
    from edgeq_agent.sdk.engine import Engine

_TICK_S = 1.0
# The last write waits for other processes of the model to release the counters' lock.
_TRIES, _PAUSE_S = 20, 0.05

Report = Callable[[str, AgentError], None]
Serves = Callable[[], "tuple[str | None, str | None, dict[str, str]]"]


class Recorder:
    """Stores windows and counters of all engines of one runtime, current and former.

    Args:
        windows: whether to store windows; counters are always stored.
        serves: returns (the release that the link names, the one that serves, the refused ones).
        report: called with the release and the error when something cannot be stored.
    """

    def __init__(self, home: Home, model: str, windows: bool, serves: Serves, report: Report) -> None:
        self._home = home
        self._model = model
        self._windows = windows
        self._serves = serves
        self._report = report
        self._counters = Counters(home, model)
        self._queue: Deque[tuple[CallMetrics, Ring, int]] = deque()
        self._due = threading.Event()
        self._ended = False
        # Only its calls hold a replaced engine: when the reference is dead, the last call has ended.
        self._followed: list[tuple[weakref.ref[Engine], CallMetrics]] = []
        self._past: dict[str, Totals] = {}
        # Releases that have been replaced, but whose answers still get feedback.
        self._late: set[CallMetrics] = set()
        self._late_lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="edgeq-record-" + model, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def follow(self, engine: Engine) -> None:
        """Record an engine's calls until the engine is gone."""
        self._followed.append((weakref.ref(engine), engine.metrics))

    def hand_over(self, metrics: CallMetrics, ring: Ring, count: int) -> None:
        """Queue a full ring for the recorder; runs in a call's thread, so it only appends to a queue."""
        self._queue.append((metrics, ring, count))
        self._due.set()

    def feedback_added(self, metrics: CallMetrics) -> None:
        """Note that feedback came for a release, so that it is stored even if the release was replaced."""
        with self._late_lock:
            self._late.add(metrics)

    def idle(self) -> bool:
        """Return whether all engines are gone, that is, no call runs."""
        return all(engine() is None for engine, _ in self._followed)

    def close(self, timeout_s: float) -> None:
        """Store the open windows and the counters, and end the thread."""
        self._ended = True
        self._due.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        next_tick_s = time.monotonic() + _TICK_S
        while not self._ended:
            self._due.wait(max(0.0, next_tick_s - time.monotonic()))
            self._due.clear()
            self._fold()
            if time.monotonic() >= next_tick_s:
                next_tick_s = time.monotonic() + _TICK_S
                self._tick()
        self._tick(last=True)

    def _fold(self) -> None:
        while self._queue:
            metrics, ring, count = self._queue.popleft()
            metrics.fold(ring, count)

    def _tick(self, last: bool = False) -> None:
        for pair in list(self._followed):
            reference, metrics = pair
            engine = reference()
            gone = engine is None
            if engine is not None and (last or metrics.overdue()):
                _flush(engine)
            del engine
            self._fold()
            if gone:
                metrics.fold_rest()
            self._close_window(metrics, force=gone or last)
            if gone or last:
                _add(self._past, metrics)
                self._followed.remove(pair)
        self._close_late()
        self._store_counters(last)

    def _close_late(self) -> None:
        with self._late_lock:
            late, self._late = self._late, set()
        followed = {id(metrics) for _, metrics in self._followed}
        for metrics in late:
            if id(metrics) not in followed and not self._close_window(metrics, force=True):
                self.feedback_added(metrics)  # not stored: the next tick tries again

    def _close_window(self, metrics: CallMetrics, force: bool) -> bool:
        """Store the window if it is due; return False when it was due and could not be stored."""
        if not (force or metrics.due()):
            return True
        window = metrics.window()
        if window is None:
            metrics.restart()
            return True
        if not self._windows:
            metrics.stored(window)
            return True
        try:
            with outbox.opened(self._home) as box:
                box.append(self._model, metrics.release, window)
        except (sqlite3.DatabaseError, OSError) as error:
            # The window stays open and goes on counting; it is stored later, and nothing is lost.
            self._report(metrics.release, _storage("a telemetry window was not stored", error))
            return False
        metrics.stored(window)
        return True

    def _store_counters(self, last: bool) -> None:
        totals = {release: Totals(past.calls, past.late, past.errors) for release, past in self._past.items()}
        for _, metrics in self._followed:
            _add(totals, metrics)
        current, serves, refused = self._serves()
        try:
            stored = self._counters.store(current, None if last else serves, totals, refused)
            for _ in range(_TRIES if last else 0):
                if stored:
                    break
                time.sleep(_PAUSE_S)
                stored = self._counters.store(current, None, totals, refused)
        except OSError as error:
            self._report(serves or "", _storage("the counters were not stored", error))


def _flush(engine: Engine) -> None:
    """Hand over the rings of idle slots; a busy slot hands over its own when it is full."""
    for _ in range(len(engine.free)):
        try:
            slot = engine.free.popleft()
        except IndexError:
            return
        slot.flush()
        engine.give(slot)


def _add(totals: dict[str, Totals], metrics: CallMetrics) -> None:
    known = totals.setdefault(metrics.release, Totals())
    new = metrics.totals()
    known.calls += new.calls
    known.late += new.late
    for kind, count in new.errors.items():
        known.errors[kind] = known.errors.get(kind, 0) + count


def _storage(what: str, error: Exception) -> AgentError:
    known = from_os(error)
    return known if known is not None else StorageFailed("telemetry", f"{what}: {error}")
