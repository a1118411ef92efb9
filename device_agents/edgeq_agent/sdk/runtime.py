"""`Runtime`: a model of this device inside an application's process.

    with Runtime("kws") as rt:
        scores = rt.infer(samples)          # real values in, real values out

Threads may share one; processes make their own (after `os.fork` only the parent's goes on).
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from typing import Any, Deque, Mapping, NamedTuple

from edgeq_agent.calls import request
from edgeq_agent.errors import AgentError, one_line
from edgeq_agent.platforms import identity
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.engine import Engine, Options
from edgeq_agent.sdk.errors import DeadlineMissed, InferenceError, NoSuchRelease, RuntimeClosed
from edgeq_agent.sdk.feedback import Tickets
from edgeq_agent.sdk.recorder import Recorder
from edgeq_agent.sdk.reloader import Keeper
from edgeq_agent.sdk.routing import Plan, Sources
from edgeq_agent.sdk.shadow import Shadows
from edgeq_agent.sdk.tensors import TensorInfo
from edgeq_agent.split import ab_split
from edgeq_agent.storage import home

POLL_S = 1.0
_MOST_INTERPRETERS = 4
_PROBLEMS = 20
_PAUSE_S = 0.005
_log = logging.getLogger("edgeq_agent")
_clock = time.perf_counter_ns


class Problem(NamedTuple):
    """Something that went wrong off the callers' path.

    Attributes:
        release: the id of the one that it is about; empty when it is about none.
        text: one line.
    """

    release: str
    code: str
    text: str


class Answer(NamedTuple):
    """What one call got, and from which release.

    Attributes:
        outputs: by name, also where there is but one.
        arm: of the split; None without one.
        ticket: for `feedback`, where one was asked for.
    """

    outputs: dict[str, Any]
    release: str
    arm: str | None
    ticket: str | None = None


class Runtime:
    """Answers with the release that serves a model on this device, and follows it when it changes.

    Args:
        model: its name on the device.
        home: the agent's home; default `$EDGEQ_HOME` or `~/.edgeq`.
        threads: of each interpreter.
        telemetry: whether windows go to the outbox; counters are kept in any case.
        pool: how many interpreters at most, that is, calls at the same time; default: the
            processors, at most 4.
        split: None takes the device's split.json where there is one; `{arm or release: weight}` is the
            application's own; False is none. See ab_split.
        shadow: a release (`previous`, or the beginning of its id) or a model file of the release, which
            answers a fraction of the calls a second time, off the caller's path, for comparison.
        shadow_fraction: above 0 and at most 1.
        deadline_s: of a call, from `infer` to its answer; later ones are counted.
        strict: raise when an answer is late.
        poll_s: how often to look for another release.
        window, window_s, window_least_s: a telemetry window ends after `window` inferences, but is at least
            `window_least_s` and at most `window_s` seconds long.
        feedback: how many answers may wait for `feedback` at the same time.

    Raises:
        AgentError: EQ510, no release of the model serves here; EQ544, none of its releases loads; EQ546,
            weights that are none. A split of releases that are not here is reported, and `current` serves.
    """

    def __init__(
        self,
        model: str,
        home: str | None = None,
        threads: int = 1,
        telemetry: bool = True,
        *,
        pool: int | None = None,
        split: Mapping[str, float] | bool | None = None,
        shadow: str | None = None,
        shadow_fraction: float = 0.01,
        deadline_s: float | None = None,
        strict: bool = False,
        poll_s: float = POLL_S,
        window: int = 1000,
        window_s: float = 60.0,
        window_least_s: float = 5.0,
        feedback: int = 10_000,
    ) -> None:
        place = _home(home)
        self.model = request.model_name({"model": model})
        self._home = place
        if isinstance(split, Mapping):
            ab_split.weighted(None, split, model)  # what is no weight is refused here, not told later
        self._deadline_ns = _deadline_ns(deadline_s)
        self._strict = strict
        self._tickets = Tickets(request.integer({"feedback": feedback}, "feedback", 1, 1 << 24))
        self._problems: Deque[Problem] = deque(maxlen=_PROBLEMS)
        self._closing = threading.Lock()
        self._closed = False
        release_store.need_current(place, model)
        options = Options(
            threads, pool or min(os.cpu_count() or 1, _MOST_INTERPRETERS), telemetry, window, window_s,
            window_least_s,
        )  # fmt: skip
        sources = Sources(place, model, split, identity.device_id(place))
        self._recorder = Recorder(place, model, telemetry, self._serves, self._report)
        self._shadows = Shadows(place, model, shadow, shadow_fraction, self._report) if shadow else None
        self._keeper = Keeper(sources, options, self._recorder, self._shadows, self._report, poll_s)
        try:
            self._keeper.first()
        except BaseException:
            if self._shadows is not None:
                self._shadows.close(1.0)
            raise
        self._recorder.start()
        self._keeper.start()
        self._at_exit = _close_at_exit(self)

    def infer(self, x: Any, key: object = None, raw: bool = False, deadline_s: float | None = None) -> Any:
        """Return the model's answer to one sample.

        Args:
            x: an array for a model of one input, else a dict by input name; of the input's shape, with the
                batch axis of 1 or without (the answer then is without as well). Real values are quantized
                where the model takes integers; integers of the model's own type are taken as they are.
            key: whose call it is, for the split: the same key always gets the same arm. Default: the device.
            raw: give the model's own types instead of real values.
            deadline_s: instead of the runtime's.

        Returns:
            A new array, float32 unless `raw`; a dict by output name where there are several.

        Raises:
            InputMismatch: EQ540. InputNotFinite: EQ541. DeadlineMissed: EQ542, when strict.
            RuntimeClosed: EQ543. InvokeFailed: EQ545.
        """
        limit_ns = self._deadline_ns if deadline_s is None else _deadline_ns(deadline_s)
        return self._answer(self._keeper.plan, None, key, x, raw, limit_ns)

    def run(
        self, x: Any, key: object = None, raw: bool = False, deadline_s: float | None = None,
        release: str | None = None, ticket: bool = False,
    ) -> Answer:  # fmt: skip
        """Answer as `infer` does, and tell which release it was.

        Args:
            release: the id of the one that shall answer, which must serve.
            ticket: give one, so that `feedback` can say later whether the answer was right.

        Raises:
            NoSuchRelease: EQ549, it does not; else as `infer`.
        """
        limit_ns = self._deadline_ns if deadline_s is None else _deadline_ns(deadline_s)
        engine: Any = self._plan().engine(key) if release is None else self._engine_of(release)
        named, arm, first, metrics = engine.release, engine.arm, engine.outputs[0].name, engine.metrics
        try:
            outputs = self._answer(None, engine, key, x, raw, limit_ns)
        finally:
            engine = None  # see the end of `_answer`
        issued = self._tickets.issue(metrics) if ticket else None
        return Answer(outputs if isinstance(outputs, dict) else {first: outputs}, named, arm, issued)

    def feedback(self, ticket: str, correct: bool) -> None:
        """Say whether an answer was right; counted for its release and arm, once, and never with its input.

        Args:
            ticket: of the answer (`run(x, ticket=True).ticket`).

        Raises:
            FeedbackRefused: EQ550, the answer does not wait for it: told already, too old, or of another
                process. RuntimeClosed: EQ543. AgentError: EQ512, `correct` is no boolean.
        """
        correct = request.flag({"correct": correct}, "correct", False)
        self._plan()
        metrics = self._tickets.redeem(ticket)
        metrics.add_feedback(correct)
        self._recorder.feedback_added(metrics)

    def _answer(self, plan: Any, engine: Any, key: object, x: Any, raw: bool, limit_ns: int | None) -> Any:
        if engine is None:
            if plan is None:
                raise self._is_closed()
            engine = plan.default if key is None and not plan.drawn else plan.engine(key)
        began = _clock()
        slot: Any = None
        try:
            slot = engine.free.pop()
        except IndexError:
            slot = engine.wait(began + limit_ns if self._strict and limit_ns is not None else None)
            if slot is None:
                busy = f"all {engine.size} interpreters were busy until its deadline"
                plan = engine = None
                raise DeadlineMissed("the call", busy) from None
        try:
            if key is not None:
                slot.tally.keyed += 1
            answer = slot.run(x, raw)
            if limit_ns is not None and _clock() - began > limit_ns:
                slot.tally.late += 1
                if self._strict:
                    raise DeadlineMissed(
                        "the call",
                        expected=f"within {limit_ns / 1e9:g} s",
                        got=f"{(_clock() - began) / 1e9:.6f} s",
                    )
            return answer
        except DeadlineMissed:
            raise  # counted as late
        except InferenceError as error:
            slot.tally.error(error.kind)
            raise
        finally:
            engine.give(slot)
            # A traceback that the application keeps must not keep the engine: its end is how its last call is
            # known to be over.
            plan = engine = slot = None

    def describe(self, release: str | None = None) -> tuple[list[TensorInfo], list[TensorInfo]]:
        """Return the inputs and outputs of a release that serves; default: the one of calls without a key.

        Raises:
            NoSuchRelease: EQ549, it does not serve.
        """
        engine = self._plan().default if release is None else self._engine_of(release)
        return engine.inputs, engine.outputs

    def _engine_of(self, release: str) -> Engine:
        serving = {engine.release: engine for engine in self._plan().all()}
        if release not in serving:
            raise NoSuchRelease(
                f"{self.model} {release[:12]}", "does not serve", expected="one of " + ", ".join(serving)
            )
        return serving[release]

    def _plan(self) -> Plan:
        plan = self._keeper.plan
        if plan is None:
            raise self._is_closed()
        return plan

    def _is_closed(self) -> RuntimeClosed:
        return RuntimeClosed(self.model, "the runtime was closed", hint="make another one")

    @property
    def release(self) -> str:
        """The id of the release that answers calls without a key."""
        return self._plan().default.release

    @property
    def releases(self) -> dict[str, str]:
        """Arm -> release; without a split the only arm is called `default`."""
        plan = self._plan()
        return {engine.arm or "default": engine.release for engine in plan.all()}

    @property
    def inputs(self) -> list[TensorInfo]:
        """The inputs of that release, in the model's order."""
        return self._plan().default.inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """The outputs of that release, in the model's order."""
        return self._plan().default.outputs

    @property
    def kernels(self) -> str:
        """Whose kernels run: xnnpack, builtin or unknown."""
        return self._plan().default.kernels

    @property
    def problems(self) -> list[Problem]:
        """The last of what went wrong off the callers' path, oldest first."""
        return list(self._problems)

    def close(self, timeout_s: float = 5.0) -> None:
        """Let running calls end, store the window and the counters, free the model; calls then fail (EQ543).

        Args:
            timeout_s: for running calls; a call that hangs does not keep the process from ending.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
            atexit.unregister(self._at_exit)
            self._keeper.close(timeout_s)
            until_s = time.monotonic() + timeout_s
            while not self._recorder.idle() and time.monotonic() < until_s:
                time.sleep(_PAUSE_S)
            if self._shadows is not None:
                self._shadows.close(timeout_s)
            self._recorder.close(timeout_s)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _serves(self) -> tuple[str | None, str | None, dict[str, str]]:
        plan = self._keeper.plan
        return (
            release_store.current(self._home, self.model),
            plan.default.release if plan else None,
            dict(self._keeper.refused),
        )

    def _report(self, release: str, error: AgentError) -> None:
        # Its text, not the error: its traceback would keep a refused model in memory.
        self._problems.append(Problem(release, error.code, one_line(error)))
        _log.warning("%s: %s", self.model, one_line(error))


def _home(option: str | None) -> home.Home:
    return home.locate(option)


def _deadline_ns(deadline_s: float | None) -> int | None:
    if deadline_s is None:
        return None
    return int(request.seconds({"deadline_s": deadline_s}, "deadline_s", 0.0) * 1e9)


def _close_at_exit(runtime: Runtime) -> Any:
    """Let an application that forgets `close` lose no window: threads must not run into the exit."""
    reference = weakref.ref(runtime)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    atexit.register(close)
    return close
