"""The call path: one interpreter with its buffers, used only by the thread that holds it.

Calls outside of a session are independent: a model that keeps state is reset before each of them.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping

from edgeq_agent.errors import AgentError, one_line
from edgeq_agent.inference import model
from edgeq_agent.inference.model import Model
from edgeq_agent.sdk.call_metrics import CallMetrics, Ring
from edgeq_agent.sdk.errors import DeadlineMissed, InferenceError, InputMismatch, InvokeFailed
from edgeq_agent.sdk.tensors import Drain, Feed

if TYPE_CHECKING:
    from edgeq_agent.sdk.shadow import Sampler

HandOver = Callable[[CallMetrics, Ring, int], None]

_clock = time.perf_counter_ns


class Slot:
    """Runs one sample at a time.

    Args:
        hand_over: takes a full ring; None without telemetry: the ring is overwritten.
        keeps_state: whether the model's state goes on from each call to the next, as in a session.

    Attributes:
        lock: held by a session while it uses the slot; the pool's slots are passed on without it.
    """

    __slots__ = (
        "_array", "_drains", "_feeds", "_get", "_hand_over", "_invoke", "_loaded", "_metrics", "_ndarray",
        "_outputs", "_positions", "_resets", "_sampler", "_set", "_shadow_in", "lock", "tally",
    )  # fmt: skip

    def __init__(
        self,
        loaded: Model,
        metrics: CallMetrics,
        hand_over: HandOver | None,
        sampler: Sampler | None = None,
        keeps_state: bool = False,
    ) -> None:
        import numpy as np

        self._array, self._ndarray = np.asarray, np.ndarray
        self._bind(loaded)
        self._resets = loaded.state.kept and not keeps_state
        self.lock = threading.Lock()
        # Feeds of its own: slots must not share buffers.
        self._feeds = [Feed(tensor, feed.channels) for tensor, feed in zip(loaded.inputs, metrics.feeds)]
        self._drains = [Drain(tensor) for tensor in loaded.outputs]
        self._positions = [tensor.position for tensor in loaded.inputs]
        self._outputs = [tensor.position for tensor in loaded.outputs]
        self._metrics = metrics
        self._hand_over = hand_over
        self._sampler = sampler
        self._shadow_in = sampler.draw() if sampler is not None else 0
        self.tally = metrics.tally()

    def _bind(self, loaded: Model) -> None:
        self._loaded = loaded
        self._set = loaded.interpreter.set_tensor
        self._get = loaded.interpreter.get_tensor
        self._invoke = loaded.interpreter.invoke

    def reset(self) -> None:
        """Forget what earlier calls left in the model's variables.

        Raises:
            InvokeFailed: EQ545, the model cannot be reset or loaded again.
        """
        try:
            loaded = model.fresh(self._loaded)
        except AgentError as error:
            raise InvokeFailed("the model", "its state cannot be reset: " + one_line(error)) from error
        if loaded is not self._loaded:
            self._bind(loaded)

    def answer(
        self, x: Any, raw: bool, keyed: bool, began_ns: int, limit_ns: int | None, strict: bool
    ) -> Any:
        """Run one sample as `run` does, and count a failure or a late answer.

        Raises:
            DeadlineMissed: EQ542, the answer is late and `strict`; else as `run`.
        """
        try:
            if keyed:
                self.tally.keyed += 1
            answer = self.run(x, raw)
        except InferenceError as error:
            self.tally.error(error.kind)
            raise
        if limit_ns is not None and _clock() - began_ns > limit_ns:
            self.tally.late += 1
            if strict:
                raise DeadlineMissed(
                    "the call",
                    expected=f"within {limit_ns / 1e9:g} s",
                    got=f"{(_clock() - began_ns) / 1e9:.6f} s",
                )
        return answer

    def run(self, x: Any, raw: bool) -> Any:
        """Run one sample and return an array, or a dict by name when there are several outputs.

        Raises:
            InputMismatch: EQ540. InputNotFinite: EQ541. InvokeFailed: EQ545.
        """
        if self._resets:
            self.reset()
        tally = self.tally
        position = tally.position
        ring = tally.ring
        feeds = self._feeds
        if len(feeds) == 1 and type(x) is self._ndarray:
            feed = feeds[0]
            batched = feed.batched(x)
            self._set(self._positions[0], feed.take(x, ring.rows[position][0]))
            given = (x,)
        else:
            given, batched = self._given(x)
            for number, feed in enumerate(feeds):
                self._set(self._positions[number], feed.take(given[number], ring.rows[position][number]))
        began = _clock()
        try:
            self._invoke()
        except (ValueError, RuntimeError) as error:
            raise InvokeFailed("the model", "failed: " + " ".join(str(error).split())[:300]) from error
        ring.latencies[position] = _clock() - began
        first = self._get(self._outputs[0])
        ring.outputs[position] = first
        tally.calls += 1
        position += 1
        tally.position = position
        if position == ring.size:
            self._full()
        if self._sampler is not None:
            self._shadow_in -= 1
            if self._shadow_in <= 0:
                self._shadow_in = self._sampler.draw()
                self._sampler.offer([feed.real(array) for feed, array in zip(feeds, given)],
                                    self._drains[0].real(first).copy())  # fmt: skip
        if len(self._outputs) > 1:
            return self._all(first, raw, batched)
        answer = first if raw else self._drains[0].real(first)
        return answer if batched else answer[0]

    def _full(self) -> None:
        if self._hand_over is None:
            self.tally.position = 0
            return
        filled = self._metrics.exchange(self.tally)
        if filled is not None:
            self._hand_over(self._metrics, *filled)

    def flush(self) -> None:
        """Hand over the content of the ring (only by the thread that holds the slot)."""
        self._full()

    def _all(self, first: Any, raw: bool, batched: bool) -> dict[str, Any]:
        values = [first] + [self._get(position) for position in self._outputs[1:]]
        answers = {}
        for drain, value in zip(self._drains, values):
            answer = value if raw else drain.real(value)
            answers[drain.info.name] = answer if batched else answer[0]
        return answers

    def _given(self, x: Any) -> tuple[Any, bool]:
        """Return the input arrays in the model's order, and whether they have the batch axis."""
        given = [self._array(value) for value in self._ordered(x)]
        batched = [feed.batched(array) for feed, array in zip(self._feeds, given)]
        if len(set(batched)) > 1:
            raise InputMismatch(
                "the inputs", expected="all with the batch axis, or none", got="some with it, others without"
            )
        return given, batched[0]

    def _ordered(self, x: Any) -> list[Any]:
        names = [feed.info.name for feed in self._feeds]
        if not isinstance(x, Mapping):
            if len(names) > 1:
                raise InputMismatch(
                    "the inputs", expected="a dict of " + ", ".join(names), got=type(x).__name__
                )
            return [x]
        missing = [name for name in names if name not in x]
        unknown = [str(name) for name in x if name not in names]
        if missing or unknown:
            raise InputMismatch(
                "the inputs", expected=", ".join(names), got=", ".join(map(str, x)) or "an empty dict"
            )
        return [x[name] for name in names]
