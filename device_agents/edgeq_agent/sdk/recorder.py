"""The recorder: one thread that turns full rings into windows in the outbox, and counters into their file."""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque

from edgeq_agent.errors import AgentError, from_os
from edgeq_agent.sdk.call_metrics import Ledger, Ring, Totals
from edgeq_agent.sdk.counters import Counters
from edgeq_agent.sdk.errors import StorageFailed
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import outbox

if TYPE_CHECKING:
    from edgeq_agent.sdk.engine import Engine

_TICK_S = 1.0
# The last count waits for other runtimes of the model to let go of the file.
_TRIES, _PAUSE_S = 20, 0.05

Report = Callable[[str, AgentError], None]
Serves = Callable[[], "tuple[str | None, str | None, dict[str, str]]"]


class Recorder:
    """Windows and counters of all engines that a runtime ever had.

    Args:
        serves: returns (the release that the link names, the one that serves, the refused ones).
        report: hears of what could not be stored.
    """

    def __init__(self, place: Home, model: str, windows: bool, serves: Serves, report: Report) -> None:
        self._home = place
        self._model = model
        self._windows = windows
        self._serves = serves
        self._report = report
        self._counters = Counters(place, model)
        self._queue: Deque[tuple[Ledger, Ring, int]] = deque()
        self._due = threading.Event()
        self._ended = False
        # An engine is held by its calls alone: once the last one is over, nothing more can come.
        self._followed: list[tuple[weakref.ref[Engine], Ledger]] = []
        self._past: dict[str, Totals] = {}
        # Of releases that do not serve any more, but whose answers still get feedback.
        self._late: set[Ledger] = set()
        self._late_lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="edgeq-record-" + model, daemon=True)

    def start(self) -> None:
        """Begin to record."""
        self._thread.start()

    def follow(self, engine: Engine) -> None:
        """Record what an engine's calls leave behind, as long as there can be any."""
        self._followed.append((weakref.ref(engine), engine.ledger))

    def hand_over(self, ledger: Ledger, ring: Ring, count: int) -> None:
        """Take a full ring; a call's thread does this, so it costs a microsecond and no more."""
        self._queue.append((ledger, ring, count))
        self._due.set()

    def judged(self, ledger: Ledger) -> None:
        """Hear that there is feedback in a ledger, which may be of a release that does not serve any more."""
        with self._late_lock:
            self._late.add(ledger)

    def idle(self) -> bool:
        """Tell whether no engine is alive any more, that is, no call runs."""
        return all(engine() is None for engine, _ in self._followed)

    def close(self, timeout_s: float) -> None:
        """Store what there is and end the thread."""
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
            ledger, ring, count = self._queue.popleft()
            ledger.fold(ring, count)

    def _tick(self, last: bool = False) -> None:
        for pair in list(self._followed):
            reference, ledger = pair
            engine = reference()
            gone = engine is None
            if engine is not None and (last or ledger.overdue()):
                _flush(engine)
            del engine
            self._fold()
            if gone:
                ledger.fold_rest()
            self._close_window(ledger, force=gone or last)
            if gone or last:
                _add(self._past, ledger)
                self._followed.remove(pair)
        self._close_late()
        self._tell(last)

    def _close_late(self) -> None:
        with self._late_lock:
            late, self._late = self._late, set()
        followed = {id(ledger) for _, ledger in self._followed}
        for ledger in late:
            if id(ledger) not in followed and not self._close_window(ledger, force=True):
                self.judged(ledger)  # the disk refuses: the next look tries again

    def _close_window(self, ledger: Ledger, force: bool) -> bool:
        """Store the window where it is time to; tell whether nothing is left that must be stored."""
        if not (force or ledger.due()):
            return True
        body = ledger.body()
        if body is None:
            ledger.restart()
            return True
        if not self._windows:
            ledger.stored(body)
            return True
        try:
            with outbox.opened(self._home) as box:
                box.append(self._model, ledger.release, body)
        except (sqlite3.DatabaseError, OSError) as error:
            # The window stays open and goes on to count: nothing is lost but its end comes later.
            self._report(ledger.release, _storage("a telemetry window was not stored", error))
            return False
        ledger.stored(body)
        return True

    def _tell(self, last: bool) -> None:
        totals = {release: Totals(past.calls, past.late, past.errors) for release, past in self._past.items()}
        for _, ledger in self._followed:
            _add(totals, ledger)
        current, serves, refused = self._serves()
        try:
            told = self._counters.tell(current, None if last else serves, totals, refused)
            for _ in range(_TRIES if last else 0):
                if told:
                    break
                time.sleep(_PAUSE_S)
                told = self._counters.tell(current, None, totals, refused)
        except OSError as error:
            self._report(serves or "", _storage("the counters were not stored", error))


def _flush(engine: Engine) -> None:
    """Hand over what is in the rings of idle slots; a slot in use fills its own."""
    for _ in range(len(engine.free)):
        try:
            slot = engine.free.popleft()
        except IndexError:
            return
        slot.flush()
        engine.give(slot)


def _add(totals: dict[str, Totals], ledger: Ledger) -> None:
    known = totals.setdefault(ledger.release, Totals())
    new = ledger.totals()
    known.calls += new.calls
    known.late += new.late
    for kind, count in new.errors.items():
        known.errors[kind] = known.errors.get(kind, 0) + count


def _storage(what: str, error: Exception) -> AgentError:
    known = from_os(error)
    return known if known is not None else StorageFailed("telemetry", f"{what}: {error}")
