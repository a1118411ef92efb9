"""The recorder: one thread that stores telemetry windows in the outbox and counters in their file.

No failure ends it: each is reported and counted, and what could not be stored is stored later. A window gets
its number in the outbox before the first call is counted in it, and once a second the counts of the open
windows go into a file, synced. So a kill or a power cut loses at most the last second, and the host sees each
window that is missing.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Callable, Deque

from edgeq_agent.activation.counters import Trouble
from edgeq_agent.errors import AgentError, from_os, one_line
from edgeq_agent.sdk.call_metrics import CallMetrics, Ring, Totals
from edgeq_agent.sdk.counters import Counters
from edgeq_agent.sdk.errors import StorageFailed
from edgeq_agent.storage import process_token
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import open_windows, outbox
from edgeq_agent.telemetry.outbox import OpenWindow

if TYPE_CHECKING:
    from edgeq_agent.sdk.engine import Engine
    from edgeq_agent.telemetry.window import Window

_TICK_S = 1.0
# The last write waits for other processes of the model to release the counters' lock.
_TRIES, _PAUSE_S = 20, 0.05
# A tick that is so late is a problem: the thread hangs, or the disk does.
_LATE_S = 30.0
_numbers = itertools.count(1)

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
        self._file = f"{process_token.token()}-{next(_numbers)}"
        self._written: list[OpenWindow] = []
        # Metrics whose open window has no number, because the outbox could not be written.
        self._unnumbered: set[CallMetrics] = set()
        self._failed = 0
        self._restarts = 0
        # Why the last tick did not store everything; empty when it did.
        self._problem = ""
        self._failing = ""
        self._ticked_s = time.monotonic()
        self._alive = threading.Lock()  # guards the replacement of the thread
        self._queue: Deque[tuple[CallMetrics, Ring, int]] = deque()
        self._due = threading.Event()
        self._ended = False
        # Only its calls hold a replaced engine: when the reference is dead, the last call has ended.
        self._followed: list[tuple[weakref.ref[Engine], CallMetrics]] = []
        self._past: dict[str, Totals] = {}
        # Releases that have been replaced, but whose answers still get feedback.
        self._late: set[CallMetrics] = set()
        self._late_lock = threading.Lock()
        self._thread = self._new_thread()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._work, name="edgeq-record-" + self._model, daemon=True)

    def start(self) -> None:
        """Start the thread, after storing what killed processes had counted."""
        if self._windows:
            self._guarded(self._recover)
        self._thread.start()

    def ensure_running(self) -> None:
        """Start the thread again if it has ended; another thread of the runtime calls this every second."""
        with self._alive:
            if self._ended or self._thread.is_alive():
                return
            self._restarts += 1
            self._report("", StorageFailed("telemetry", "the recorder's thread had ended: it was restarted"))
            self._thread = self._new_thread()
            self._thread.start()

    @property
    def problem(self) -> str:
        """Why calls are not recorded at present; empty when they are."""
        if self._problem or self._ended:
            return self._problem
        if not self._thread.is_alive():
            return "the recorder's thread has ended"
        idle_s = time.monotonic() - self._ticked_s
        return f"nothing was stored for {idle_s:.0f} s" if idle_s > _LATE_S else ""

    def follow(self, engine: Engine) -> None:
        """Record an engine's calls until the engine is gone; to be called before the first one."""
        if self._windows:
            self._unnumbered.add(engine.metrics)
            self._guarded(partial(self._begin, engine.metrics))
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
        with self._alive:
            self._ended = True
            self._due.set()
            ended = not self._thread.is_alive()
        if ended:  # the thread was lost: this one stores the rest
            self._guarded(lambda: self.tick(last=True))
        else:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        next_tick_s = time.monotonic() + _TICK_S
        while not self._ended:
            self._due.wait(max(0.0, next_tick_s - time.monotonic()))
            self._due.clear()
            self._fold()
            if time.monotonic() >= next_tick_s:
                next_tick_s = time.monotonic() + _TICK_S
                self.tick()
        self.tick(last=True)

    def _guarded(self, step: Callable[[], object]) -> bool:
        """Run one step; a failure is reported and counted, and the thread and the other steps go on."""
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - the boundary of the thread: it must go on
            known = error if isinstance(error, AgentError) else _storage(_one_line(error), error)
            self._fail("", known)
            return False
        return True

    def _fail(self, release: str, error: AgentError) -> None:
        self._failed += 1
        self._failing = one_line(error)
        self._report(release, error)

    def _fold(self) -> None:
        while self._queue:
            metrics, ring, count = self._queue.popleft()
            added = False
            try:
                added = self._guarded(partial(metrics.fold, ring, count))
            finally:
                if not added:
                    metrics.lost(ring, count)

    def tick(self, last: bool = False) -> None:
        """Store what is due (recorder only)."""
        self._failing = ""
        for pair in list(self._followed):
            self._guarded(partial(self._visit, pair, last))
        for step in (self.close_late, self._begin_all, self._write_ahead, partial(self.store_counters, last)):
            self._guarded(step)
        self._problem = self._failing
        self._ticked_s = time.monotonic()

    def _visit(self, pair: tuple[weakref.ref[Engine], CallMetrics], last: bool) -> None:
        """Store the window of one engine if it is due, and forget an engine that is gone."""
        reference, metrics = pair
        engine = reference()
        gone = engine is None
        if engine is not None and (last or metrics.overdue()):
            engine.flush()
        del engine
        self._fold()
        try:
            if gone:
                metrics.fold_rest()
            self._close_window(metrics, force=gone or last)
        finally:
            if gone or last:
                _add(self._past, metrics)
                self._followed.remove(pair)

    def _begin(self, metrics: CallMetrics) -> None:
        """Give the open window of a release its number."""
        with outbox.opened(self._home) as box:
            box.begin(self._open(metrics, metrics.number, metrics.new_window()))
        self._unnumbered.discard(metrics)

    def _begin_all(self) -> None:
        """Number the open windows that could not be numbered when they began."""
        followed = {metrics for _, metrics in self._followed}
        self._unnumbered &= followed
        for metrics in list(self._unnumbered):
            self._begin(metrics)

    def _open(self, metrics: CallMetrics, number: int, window: Window) -> OpenWindow:
        return OpenWindow(self._model, metrics.release, self._mark(metrics, number), window)

    def _recover(self) -> None:
        with outbox.opened(self._home) as box:
            open_windows.recover(self._home, box)

    def _write_ahead(self) -> None:
        """Replace the file with the counts of the open windows."""
        if not self._windows:
            return
        windows = [
            self._open(metrics, metrics.number, metrics.open_window()) for _, metrics in self._followed
        ]
        if [_counts(each) for each in windows] != [_counts(each) for each in self._written]:
            open_windows.write(self._home, self._file, windows)
            self._written = windows

    def _mark(self, metrics: CallMetrics, number: int) -> str:
        return f"{self._file}/{metrics.release}/{metrics.side.arm or ''}/{metrics.serial}/{number}"

    def close_late(self) -> None:
        """Store the feedback of releases that were replaced (recorder only)."""
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
        try:
            if self._windows and (window is not None or force):
                self._store(metrics, window, last=force)
        except (sqlite3.Error, ValueError, OSError) as error:
            # The window stays open and goes on counting; it is stored later, and nothing is lost.
            self._fail(metrics.release, _storage("a telemetry window was not stored", error))
            return False
        if window is None:
            metrics.restart()
        else:
            metrics.stored(window)
            self._unnumbered.discard(metrics)
        return True

    def _store(self, metrics: CallMetrics, window: Window | None, last: bool) -> None:
        """Put a release's window into the outbox, and number the next one, unless this was the last.

        Args:
            window: None when nothing happened in it.
        """
        mark = self._mark(metrics, metrics.number)
        with outbox.opened(self._home) as box:
            if window is None:
                box.discard(mark)
                return
            following = None if last else self._open(metrics, metrics.number + 1, metrics.new_window())
            box.append(self._model, metrics.release, window, mark, following)

    def store_counters(self, last: bool) -> None:
        """Add what is new to the counters file (recorder only)."""
        totals = {release: Totals(past.calls, past.late, past.errors) for release, past in self._past.items()}
        for _, metrics in self._followed:
            _add(totals, metrics)
        current, serves, refused = self._serves()
        try:
            trouble = Trouble(self._failed, self._restarts, self._failing)
            stored = self._counters.store(current, None if last else serves, totals, refused, trouble)
            for _ in range(_TRIES if last else 0):
                if stored:
                    break
                time.sleep(_PAUSE_S)
                stored = self._counters.store(current, None, totals, refused, trouble)
        except OSError as error:
            self._fail(serves or "", _storage("the counters were not stored", error))


def _counts(each: OpenWindow) -> tuple[object, ...]:
    window = each.window
    return each.mark, window.unrecorded, tuple(window.errors.items()), window.deadline_misses


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _add(totals: dict[str, Totals], metrics: CallMetrics) -> None:
    known = totals.setdefault(metrics.release, Totals())
    new = metrics.totals()
    known.calls += new.calls
    known.late += new.late
    for kind, count in new.errors.items():
        known.errors[kind] = known.errors.get(kind, 0) + count


def _storage(what: str, error: BaseException) -> AgentError:
    known = from_os(error) if isinstance(error, Exception) else None
    return known if known is not None else StorageFailed("telemetry", f"{what}: {error}")
