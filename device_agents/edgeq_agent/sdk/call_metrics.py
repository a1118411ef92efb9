"""Call metrics of one release in one process: lock-free rings that calls fill, added up to windows.

A call writes into the ring of the interpreter that it holds. An interpreter serves one call at a time, so no
two calls write the same ring. A full ring goes to the recorder's thread, the only one that adds rings to the
window.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from dataclasses import fields, replace
from typing import Any, Deque, NamedTuple

from edgeq_agent.inference.model import Model
from edgeq_agent.sdk.tensors import Drain, Feed
from edgeq_agent.telemetry.window import Feedback, Shadow, Window
from edgeq_agent.telemetry.window_builder import Reference, WindowBuilder, classify

_RING_BYTES = 1 << 20
_RING_SAMPLES = 256
# With so many rings waiting for the recorder, further samples are counted as unrecorded and dropped.
_MOST_WAITING_RINGS = 8
_serials = itertools.count(1)


class Side(NamedTuple):
    """The arm that an engine serves in an A/B split, and the split's experiment."""

    arm: str | None
    experiment: str


ALONE = Side(None, "")


class Ring:
    """Preallocated room for the telemetry of `size` calls."""

    def __init__(self, size: int, feeds: list[Feed], output: Any) -> None:
        import numpy as np

        self.size = size
        self.latencies = np.zeros(size, np.int64)
        self.sums = [np.zeros((size, feed.channels), np.float32) for feed in feeds]
        self.rows = [[sums[position] for sums in self.sums] for position in range(size)]
        self.outputs = np.zeros((size, *output.shape), output.dtype)


class SlotCounts:
    """The counts of one interpreter; the call that holds it writes them, the recorder reads them."""

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
        """Count one call that failed."""
        self.errors[kind] = self.errors.get(kind, 0) + 1


class Totals:
    """Counts since the release was loaded in this process; they only grow."""

    def __init__(self, calls: int = 0, late: int = 0, errors: dict[str, int] | None = None) -> None:
        self.calls = calls
        self.late = late
        self.errors = dict(errors or {})


class CallMetrics:
    """Counts of all calls of one release in this process.

    Args:
        window_inferences, window_s, least_s: a window is due after that many inferences, but not before it is
            `least_s` old, and in any case once it is `window_s` old.

    Attributes:
        serial: tells apart the metrics of one process.
        number: of the open window, from 0.
    """

    def __init__(
        self,
        release: str,
        side: Side,
        loaded: Model,
        reference: Reference,
        window_inferences: int = 1000,
        window_s: float = 60.0,
        least_s: float = 5.0,
    ) -> None:
        self.release = release
        self.side = side
        self.serial = next(_serials)
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
        self._tallies: list[SlotCounts] = []
        self._idle_tallies: list[SlotCounts] = []
        self._not_finite = 0
        # What the tallies held at the last look; the difference belongs to the current window.
        self._seen = Totals()
        self._seen_unrecorded = 0
        self._seen_keyed = 0
        self._feedback = {"labelled": 0, "correct": 0, "expired": 0}
        self._shadow: dict[str, dict[str, float]] = {}
        self._no_slot = 0
        # What the stored windows hold of the tallies; the difference is in no window yet.
        self._stored_calls = 0
        self._stored = Totals()
        self.number = 0
        self._lock = threading.Lock()  # guards the three above, which several threads write
        self._begin()

    def _begin(self) -> None:
        self._builder = WindowBuilder(self._reference)
        self._began_s = time.monotonic()
        self._late = 0
        self._keyed = 0
        self._unrecorded = 0

    def tally(self) -> SlotCounts:
        """Return the counts for one more interpreter."""
        try:
            return self._idle_tallies.pop()
        except IndexError:
            pass
        tally = SlotCounts(self._ring())
        self._tallies.append(tally)
        return tally

    def retire(self, tally: SlotCounts) -> None:
        """Keep the counts of an interpreter that has gone for the next one; its ring must be empty."""
        self._idle_tallies.append(tally)

    def _ring(self) -> Ring:
        self._rings += 1
        return Ring(self._ring_samples, self.feeds, self._output)

    def exchange(self, tally: SlotCounts) -> tuple[Ring, int] | None:
        """Give an interpreter an empty ring; return its filled one and the number of calls in it.

        Only the holder of the interpreter may call this.

        Returns:
            None when the ring was empty, or when too many rings wait for the recorder: its calls are then
            counted as unrecorded.
        """
        ring, count = tally.ring, tally.position
        if not count:
            return None
        tally.position = 0
        try:
            tally.ring = self._spare.pop()
        except IndexError:
            if self._rings - len(self._tallies) >= _MOST_WAITING_RINGS:
                tally.unrecorded += count
                return None
            tally.ring = self._ring()
        return ring, count

    def fold(self, ring: Ring, count: int) -> None:
        """Add the first `count` calls of a ring to the window and make the ring available (recorder only)."""
        builder = self._builder
        builder.add_latencies(ring.latencies[:count])
        for number, feed in enumerate(self.feeds[: len(self._reference.edges)]):
            builder.add_means(number, feed.means(ring.sums[number][:count]))
        values = self._drain.real(ring.outputs[:count]).reshape(count, -1)
        finite, predicted, confidence = classify(values, self._reference)
        builder.add_outputs(predicted[finite], confidence[finite])
        bad = count - int(finite.sum())
        if bad:
            self._not_finite += bad
            builder.add_error("output_not_finite", bad, counted=True)
        self._spare.append(ring)

    def fold_rest(self) -> None:
        """Add what is left in all rings; the release must not be called any more (recorder only)."""
        for tally in self._tallies:
            filled = self.exchange(tally)
            if filled is not None:
                self.fold(*filled)
        self._spare.clear()  # a feedback ticket may keep this object alive; the rings are not needed

    def totals(self) -> Totals:
        """Return the counts up to now, including calls that the recorder has not added to the window yet."""
        totals = Totals(late=self._no_slot)
        for kind, count in (("output_not_finite", self._not_finite), ("deadline", self._no_slot)):
            if count:
                totals.errors[kind] = count
        for tally in list(self._tallies):
            totals.calls += tally.calls
            totals.late += tally.late
            for kind, count in list(tally.errors.items()):
                totals.errors[kind] = totals.errors.get(kind, 0) + count
        return totals

    def no_slot(self) -> None:
        """Count one call that got no interpreter before its deadline; any thread may call this."""
        with self._lock:
            self._no_slot += 1

    def add_shadow(self, name: str, **counts: float) -> None:
        """Add to the counts of a shadow (fields of `Shadow`); any thread may call this."""
        with self._lock:
            known = self._shadow.setdefault(name, {})
            for field, count in counts.items():
                known[field] = known.get(field, 0) + count

    def add_feedback(self, correct: bool | None) -> None:
        """Count the application's feedback on one answer; any thread may call this.

        Args:
            correct: None when no feedback came in time.
        """
        with self._lock:
            if correct is None:
                self._feedback["expired"] += 1
                return
            self._feedback["labelled"] += 1
            self._feedback["correct"] += int(correct)

    def due(self) -> bool:
        """Return whether the window is to be closed (recorder only)."""
        inferences, window_s, least_s = self._limits
        age_s = time.monotonic() - self._began_s
        return age_s >= window_s or (age_s >= least_s and self._builder.inferences >= inferences)

    def overdue(self) -> bool:
        """Return whether the window's time is over, so that half-filled rings belong into it as well."""
        return time.monotonic() - self._began_s >= self._limits[1]

    def window(self) -> Window | None:
        """Return the window as it stands, or None when nothing happened in it (recorder only)."""
        self._catch_up()
        counted = self._builder.inferences or self._unrecorded
        if not counted and not self._shadow and not any(self._feedback.values()):
            return None
        with self._lock:
            feedback = Feedback(**self._feedback) if any(self._feedback.values()) else None
            shadow = {name: Shadow(**counts) for name, counts in self._shadow.items()}  # type: ignore[arg-type]
        return replace(
            self._builder.build(),
            deadline_misses=self._late,
            unrecorded=self._unrecorded,
            arm=self.side.arm,
            experiment=self.side.experiment or None,
            keyed=self._keyed if self.side.arm is not None else 0,
            feedback=feedback,
            shadow=shadow,
        )

    def _catch_up(self) -> None:
        """Move errors and late calls since the last look from the tallies into the window."""
        now = self.totals()
        for kind, count in now.errors.items():
            new = count - self._seen.errors.get(kind, 0)
            if new and kind != "output_not_finite":  # `fold` has counted those
                self._builder.add_error(kind, new)
        self._late += now.late - self._seen.late
        unrecorded = sum(tally.unrecorded for tally in self._tallies)
        self._unrecorded += unrecorded - self._seen_unrecorded
        keyed = sum(tally.keyed for tally in self._tallies)
        self._keyed += keyed - self._seen_keyed
        self._seen, self._seen_unrecorded, self._seen_keyed = now, unrecorded, keyed

    def new_window(self) -> Window:
        """Return a window that begins now: nothing is counted in it."""
        return self._only_counted(WindowBuilder(self._reference), {}, 0, late=0)

    def open_window(self) -> Window:
        """Return the counts that are in no stored window (recorder only)."""
        now = self.totals()
        calls = now.calls - self._stored_calls
        errors = {
            kind: count - self._stored.errors.get(kind, 0)
            for kind, count in now.errors.items()
            if kind != "output_not_finite" and count > self._stored.errors.get(kind, 0)
        }
        return self._only_counted(self._builder, errors, calls, late=now.late - self._stored.late)

    def _only_counted(self, builder: WindowBuilder, errors: dict[str, int], calls: int, late: int) -> Window:
        return replace(
            builder.counted(errors, calls),
            deadline_misses=late,
            arm=self.side.arm,
            experiment=self.side.experiment or None,
        )

    def lost(self, ring: Ring, count: int) -> None:
        """Count the calls of a ring that could not be added as unrecorded (recorder only)."""
        self._unrecorded += count
        self._spare.append(ring)

    def stored(self, window: Window) -> None:
        """Begin the next window: this one is in the outbox (recorder only)."""
        self.number += 1
        self._stored_calls += window.latency.count + (window.unrecorded or 0)
        self._stored = self._seen
        with self._lock:
            # A shadow may have answered since `window()`, or feedback come; that belongs to the next window.
            if window.feedback is not None:
                for field in self._feedback:
                    self._feedback[field] -= getattr(window.feedback, field)
            for name, counts in window.shadow.items():
                left = {
                    each.name: self._shadow[name].get(each.name, 0) - getattr(counts, each.name)
                    for each in fields(Shadow)
                }
                self._shadow[name] = {field: count for field, count in left.items() if count}
            self._shadow = {name: counts for name, counts in self._shadow.items() if counts}
        self._begin()

    def restart(self) -> None:
        """Begin a new window in place of an empty one, so that its time does not include an idle hour."""
        self._begin()
