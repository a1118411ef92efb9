"""What one release did in this process: rings that the calls fill, and the telemetry window made of them.

A call writes into the ring of the interpreter that it holds, so that no two calls ever write the same one and
the call path needs no lock. A full ring goes to the recorder's thread, which alone folds it into the window.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Deque, NamedTuple

from edgeq_agent.inference.model import Model
from edgeq_agent.sdk.tensors import Drain, Feed
from edgeq_agent.telemetry import windows
from edgeq_agent.wire import Json

_RING_BYTES = 1 << 20
_RING_SAMPLES = 256
# With so many rings under way the recorder is behind; further samples are counted, not kept.
_RINGS_UNDER_WAY = 8


class Side(NamedTuple):
    """Where in an A/B split an engine stands: its arm, and the experiment that the split is of."""

    arm: str | None
    experiment: str


ALONE = Side(None, "")


class Ring:
    """Room for the telemetry of some calls, allocated once."""

    def __init__(self, size: int, feeds: list[Feed], output: Any) -> None:
        import numpy as np

        self.size = size
        self.latencies = np.zeros(size, np.int64)
        self.sums = [np.zeros((size, feed.channels), np.float32) for feed in feeds]
        self.rows = [[sums[position] for sums in self.sums] for position in range(size)]
        self.outputs = np.zeros((size, *output.shape), output.dtype)


class Tally:
    """The counts of one interpreter; written by the call that holds it, read by the recorder."""

    __slots__ = ("calls", "errors", "keyed", "late", "position", "ring", "unrecorded")

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.position = 0
        self.calls = 0
        self.late = 0
        self.keyed = 0
        self.unrecorded = 0
        self.errors: dict[str, int] = {}

    def error(self, kind: str) -> None:
        """Count one call that gave no answer."""
        self.errors[kind] = self.errors.get(kind, 0) + 1


class Totals:
    """Counts since the release was loaded in this process; they only grow."""

    def __init__(self, calls: int = 0, late: int = 0, errors: dict[str, int] | None = None) -> None:
        self.calls = calls
        self.late = late
        self.errors = dict(errors or {})


class Ledger:
    """Everything that one release's calls leave behind.

    Args:
        window_inferences, window_s, least_s: a window is due after that many inferences, but not before it is
            `least_s` old, and in any case once it is `window_s` old.
    """

    def __init__(
        self,
        release: str,
        side: Side,
        loaded: Model,
        reference: windows.Reference,
        window_inferences: int = 1000,
        window_s: float = 60.0,
        least_s: float = 5.0,
    ) -> None:
        self.release = release
        self.side = side
        self._reference = reference
        channels = [len(edges) for edges in reference.edges] + [1] * len(loaded.inputs)
        self.feeds = [Feed(tensor, channels[number]) for number, tensor in enumerate(loaded.inputs)]
        self._drain = Drain(loaded.outputs[0])
        self._output = loaded.interpreter.get_tensor(loaded.outputs[0].position)
        sample_bytes = self._output.nbytes + 8 + sum(4 * feed.channels for feed in self.feeds)
        self._ring_samples = max(1, min(_RING_SAMPLES, _RING_BYTES // max(1, sample_bytes)))
        self._limits = (window_inferences, window_s, least_s)
        self._spare: Deque[Ring] = deque()
        self._rings = 0
        self._tallies: list[Tally] = []
        self._not_finite = 0
        self._told = Totals()
        self._told_unrecorded = 0
        self._told_keyed = 0
        self._feedback = {"labelled": 0, "correct": 0, "expired": 0}
        self._shadow: dict[str, dict[str, float]] = {}
        self._no_slot = 0
        self._lock = threading.Lock()  # of the three above, which several threads write
        self._begin()

    def _begin(self) -> None:
        self._window = windows.Window(self._reference)
        self._began_s = time.monotonic()
        self._late = 0
        self._keyed = 0
        self._unrecorded = 0

    def tally(self) -> Tally:
        """Return the counts for one more interpreter."""
        tally = Tally(self._ring())
        self._tallies.append(tally)
        return tally

    def _ring(self) -> Ring:
        self._rings += 1
        return Ring(self._ring_samples, self.feeds, self._output)

    def exchange(self, tally: Tally) -> tuple[Ring, int] | None:
        """Return an interpreter's filled ring and how much is in it, and give it an empty one.

        Only for who holds the interpreter. None: there is nothing in it, or no ring is left for now and what
        was in it was dropped and counted.
        """
        ring, count = tally.ring, tally.position
        if not count:
            return None
        tally.position = 0
        try:
            tally.ring = self._spare.pop()
        except IndexError:
            if self._rings - len(self._tallies) >= _RINGS_UNDER_WAY:
                tally.unrecorded += count
                return None
            tally.ring = self._ring()
        return ring, count

    def fold(self, ring: Ring, count: int) -> None:
        """Count what is in a ring, and keep the ring for the next call that needs one (recorder only)."""
        window = self._window
        window.latencies(ring.latencies[:count])
        for number, feed in enumerate(self.feeds[: len(self._reference.edges)]):
            window.means(number, feed.means(ring.sums[number][:count]))
        values = self._drain.real(ring.outputs[:count]).reshape(count, -1)
        good, predicted, confidence = windows.judge(values, self._reference)
        window.outputs(predicted[good], confidence[good])
        bad = count - int(good.sum())
        if bad:
            self._not_finite += bad
            window.error("output_not_finite", bad, counted=True)
        self._spare.append(ring)

    def fold_rest(self) -> None:
        """Count what is left in all rings: nobody calls this release any more (recorder only)."""
        for tally in self._tallies:
            filled = self.exchange(tally)
            if filled is not None:
                self.fold(*filled)
        self._spare.clear()  # a ticket may keep the ledger; the rings go

    def totals(self) -> Totals:
        """Return the counts up to now; what the recorder has not folded yet is in them, too."""
        found = Totals(late=self._no_slot)
        for kind, count in (("output_not_finite", self._not_finite), ("deadline", self._no_slot)):
            if count:
                found.errors[kind] = count
        for tally in list(self._tallies):
            found.calls += tally.calls
            found.late += tally.late
            for kind, count in list(tally.errors.items()):
                found.errors[kind] = found.errors.get(kind, 0) + count
        return found

    def no_slot(self) -> None:
        """Count one call that found no free interpreter until its deadline; any thread may."""
        with self._lock:
            self._no_slot += 1

    def shadowed(self, name: str, **counts: float) -> None:
        """Add to the counts of a shadow; any thread may."""
        with self._lock:
            known = self._shadow.setdefault(name, {})
            for what, count in counts.items():
                known[what] = known.get(what, 0) + count

    def judged(self, correct: bool | None) -> None:
        """Count what the application says of one answer; None: it said nothing in time. Any thread may."""
        with self._lock:
            if correct is None:
                self._feedback["expired"] += 1
                return
            self._feedback["labelled"] += 1
            self._feedback["correct"] += int(correct)

    def due(self) -> bool:
        """Tell whether the window is to be closed (recorder only)."""
        inferences, window_s, least_s = self._limits
        age_s = time.monotonic() - self._began_s
        return age_s >= window_s or (age_s >= least_s and self._window.inferences >= inferences)

    def overdue(self) -> bool:
        """Tell whether the window's time is over, so that half-filled rings belong into it, too."""
        return time.monotonic() - self._began_s >= self._limits[1]

    def body(self) -> Json | None:
        """Return the window as it stands, or None when nothing happened in it (recorder only)."""
        self._catch_up()
        if not self._window.inferences and not self._shadow and not any(self._feedback.values()):
            return None
        body = self._window.body()
        body.update(deadline_misses=self._late, unrecorded=self._unrecorded)
        if self.side.arm is not None:
            body["arm"] = self.side.arm
            if self._keyed:
                body["keyed"] = self._keyed
        if self.side.experiment:
            body["experiment"] = self.side.experiment
        with self._lock:
            if any(self._feedback.values()):
                body["feedback"] = dict(self._feedback)
            if self._shadow:
                body["shadow"] = {name: dict(counts) for name, counts in self._shadow.items()}
        return body

    def _catch_up(self) -> None:
        """Take errors and late calls since the last look from the tallies into the window."""
        now = self.totals()
        for kind, count in now.errors.items():
            new = count - self._told.errors.get(kind, 0)
            if new and kind != "output_not_finite":  # that was counted when its ring was folded
                self._window.error(kind, new)
        self._late += now.late - self._told.late
        unrecorded = sum(tally.unrecorded for tally in self._tallies)
        self._unrecorded += unrecorded - self._told_unrecorded
        keyed = sum(tally.keyed for tally in self._tallies)
        self._keyed += keyed - self._told_keyed
        self._told, self._told_unrecorded, self._told_keyed = now, unrecorded, keyed

    def stored(self, body: Json) -> None:
        """Begin the next window: this one is in the outbox (recorder only)."""
        with self._lock:
            # A shadow may have answered since `body`, or feedback come; that stays for the next window.
            for what, count in body.get("feedback", {}).items():
                self._feedback[what] -= count
            for name, counts in body.get("shadow", {}).items():
                rest = {what: self._shadow[name][what] - count for what, count in counts.items()}
                self._shadow[name] = rest
            self._shadow = {name: counts for name, counts in self._shadow.items() if any(counts.values())}
        self._begin()

    def restart(self) -> None:
        """Begin the window anew where nothing happened, so that its time is not that of an idle hour."""
        self._begin()
