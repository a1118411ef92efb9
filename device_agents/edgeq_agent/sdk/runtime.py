"""`Runtime`: run a model of this device inside an application's process.

    with Runtime("kws") as rt:
        scores = rt.infer(samples)          # real values in, real values out

Threads may share one. In a process that was forked, it opens again at the first call there: it loads the
release that serves, and records its own calls.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, Mapping, NamedTuple

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError, one_line
from edgeq_agent.platforms import identity
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.answer import Answer
from edgeq_agent.sdk.engine import Engine, Options
from edgeq_agent.sdk.errors import DeadlineMissed, NoSuchRelease, RuntimeClosed
from edgeq_agent.sdk.feedback import Tickets
from edgeq_agent.sdk.recorder import Recorder
from edgeq_agent.sdk.reloader import Reloader
from edgeq_agent.sdk.routing import Router, Routing
from edgeq_agent.sdk.session import FINISH, Rules, Session, Sessions
from edgeq_agent.sdk.shadow import Shadows
from edgeq_agent.sdk.tensors import TensorInfo
from edgeq_agent.split import ab_split
from edgeq_agent.storage.home import locate

POLL_S = 1.0
_MAX_INTERPRETERS = 4
_PROBLEMS = 20
_MAX_TICKETS = 1 << 24
_MAX_THREADS = 256
_MAX_POOL = 1024
_LONGEST_WINDOW = 1 << 40
_PAUSE_S = 0.005
_log = logging.getLogger("edgeq_agent")
# Finalizers of multiprocessing with a higher number run first.
_FINALIZER_PRIORITY = 10
_clock = time.perf_counter_ns


class Problem(NamedTuple):
    """A failure off the callers' path.

    Attributes:
        release: the id of the release that it is about, or empty.
        text: one line.
    """

    release: str
    code: str
    text: str


class _Forked:
    """Takes the reloader's place in a forked process until the first call there."""

    def __init__(self) -> None:
        self.routing = None
        self.refused: dict[str, str] = {}


_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
# What forked processes inherited. It is never freed: the threads that it would wait for are the parent's.
_inherited: list[object] = []


def _after_fork() -> None:
    for runtime in list(_runtimes):
        runtime.after_fork()


os.register_at_fork(after_in_child=_after_fork)


class Runtime:
    """Answers calls with the release that serves a model on this device, and follows it when it changes.

    Args:
        model: its name on the device.
        home: the agent's home; default `$EDGEQ_HOME` or `~/.edgeq`.
        threads: of each interpreter.
        telemetry: whether windows go to the outbox; counters are kept in any case.
        pool: the maximum number of interpreters, that is, of concurrent calls; default: the number of
            processors, at most 4.
        split: None uses the device's split.json if there is one; `{arm or release: weight}` is the
            application's own; False uses none. See `split.ab_split`.
        shadow: a release (`previous`, or the beginning of its id) or a model file of the release. It runs a
            fraction of the calls a second time, off the caller's path, for comparison.
        shadow_fraction: above 0 and at most 1.
        deadline_s: of a call, from `infer` to its answer; later answers are counted.
        strict: raise an error when an answer is late.
        poll_s: how often to look for another release.
        window, window_s, window_least_s: a telemetry window ends after `window` inferences, but lasts at
            least `window_least_s` and at most `window_s` seconds.
        feedback: how many answers may wait for `feedback` at the same time.
        sessions: how many sessions may be open at the same time; each has an interpreter of its own.
        session_idle_s: a session without a call for so long ends.
        on_swap: what happens to a session whose release is replaced: `finish` (it goes on with the old
            release for at most `session_finish_s`), `end`, or `restart` (it restarts on the new release).

    Raises:
        AgentError: EQ512, an argument is not valid; EQ510, no release of the model serves here; EQ544, none
            of its releases loads; EQ546, the weights are not valid. When the device's split names releases
            that are not here, that is reported and `current` serves.
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
        sessions: int = 16,
        session_idle_s: float = 60.0,
        on_swap: str = FINISH,
        session_finish_s: float = 60.0,
    ) -> None:
        self._home = locate(home)
        self.model = Fields({"model": model}).model_name()
        if isinstance(split, Mapping):
            ab_split.weighted(None, split, model)  # raises here, not later in the background
        self._deadline_ns = _deadline_ns(deadline_s)
        self._strict = strict
        self._rules = Rules.checked(sessions, session_idle_s, on_swap, session_finish_s)
        self._limit = Fields({"feedback": feedback}).integer("feedback", 1, _MAX_TICKETS)
        self._problems: Deque[Problem] = deque(maxlen=_PROBLEMS)
        self._closing = threading.Lock()
        self._closed = False
        self._forked = False
        self._telemetry = telemetry
        self._poll_s = Fields({"poll_s": poll_s}).seconds("poll_s", POLL_S)
        if not (split is None or isinstance(split, (bool, Mapping))):
            raise Fields({"split": split}).refuse("split", "weights by arm or release, or false")
        if not (shadow is None or isinstance(shadow, str)):
            raise Fields({"shadow": shadow}).refuse("shadow", "a release, or a model file of it")
        fraction = Fields({"shadow_fraction": shadow_fraction})
        if not 0 < fraction.number("shadow_fraction", 0.0) <= 1:
            raise fraction.refuse("shadow_fraction", "above 0 and at most 1")
        self._split, self._shadow = split, (shadow, shadow_fraction)
        self._options = _options(threads, pool, telemetry, window, window_s, window_least_s)
        self._open()
        self._at_exit = _close_at_exit(self)
        _runtimes.add(self)

    def _open(self) -> None:
        """Load the release that serves and start the threads of this process."""
        release_store.need_current(self._home, self.model)
        router = Router(self._home, self.model, self._split, identity.device_id(self._home))
        recorder = Recorder(self._home, self.model, self._telemetry, self._serves, self._report)
        shadow, fraction = self._shadow
        shadows = Shadows(self._home, self.model, shadow, fraction, self._report) if shadow else None
        tickets = Tickets(self._limit)
        held = Sessions(self._rules, self._routing, self._limit_of, tickets.issue)
        reloader = Reloader(router, self._options, recorder, shadows, held, self._report, self._poll_s)
        try:
            reloader.load_first()
        except BaseException:
            if shadows is not None:
                shadows.close(1.0)
            raise
        self._tickets, self._sessions = tickets, held
        self._recorder, self._shadows = recorder, shadows
        self._reloader: Reloader | _Forked = reloader
        recorder.start()
        reloader.start()
        self._finalizer = _close_in_child(self)

    def after_fork(self) -> None:
        """Leave everything that belongs to the parent process; called in the child that was forked."""
        if self._closed:
            return
        _inherited.append((self._reloader, self._recorder, self._shadows, self._tickets, self._sessions))
        self._closing = threading.Lock()
        self._reloader = _Forked()
        self._problems.clear()
        self._forked = True

    def _reopen(self) -> Routing:
        """Open again after a fork; return what serves."""
        with self._closing:
            if self._forked and not self._closed:
                self._open()
                self._forked = False
        routing = self._reloader.routing
        if routing is None:
            raise self._closed_error()
        return routing

    def infer(self, x: Any, key: object = None, raw: bool = False, deadline_s: float | None = None) -> Any:
        """Run the model on one sample.

        Args:
            x: an array for a model with one input, else a dict by input name. Each has the input's shape,
                with a batch axis of 1 or without (then the answer has none either). Real values are quantized
                where the model takes integers; integers of the model's own type are used as they are.
            key: assigns the call to an arm of a split: the same key always gets the same arm. Default: the
                device.
            raw: return the model's own types instead of real values.
            deadline_s: replaces the runtime's.

        Returns:
            A new array, float32 unless `raw`; a dict by output name when there are several outputs.

        Raises:
            InputMismatch: EQ540. InputNotFinite: EQ541. DeadlineMissed: EQ542, when strict.
            RuntimeClosed: EQ543. InvokeFailed: EQ545.
        """
        limit_ns = self._deadline_ns if deadline_s is None else _deadline_ns(deadline_s)
        return self._answer(self._reloader.routing, None, key, x, raw, limit_ns)

    def run(
        self, x: Any, key: object = None, raw: bool = False, deadline_s: float | None = None,
        release: str | None = None, ticket: bool = False,
    ) -> Answer:  # fmt: skip
        """Run the model on one sample as `infer` does, and say which release answered.

        Args:
            release: the id of the release to use; it must serve.
            ticket: issue a ticket, so that `feedback` can report later whether the answer was correct.

        Raises:
            NoSuchRelease: EQ549, the release does not serve; else as `infer`.
        """
        limit_ns = self._deadline_ns if deadline_s is None else _deadline_ns(deadline_s)
        engine: Any = self._routing().engine(key) if release is None else self._engine_of(release)
        named, arm, first, metrics = engine.release, engine.arm, engine.outputs[0].name, engine.metrics
        try:
            outputs = self._answer(None, engine, key, x, raw, limit_ns)
        finally:
            engine = None  # see the end of `_answer`
        issued = self._tickets.issue(metrics) if ticket else None
        return Answer(outputs if isinstance(outputs, dict) else {first: outputs}, named, arm, issued)

    def session(self, name: str | None = None, *, key: object = None, release: str | None = None) -> Session:
        """Begin a sequence of calls on an interpreter of its own, for a model that keeps state.

        Args:
            name: of the session, a text; one of this name that is open ends. Default: a new name.
            key: assigns the session to an arm of a split; default: its name.
            release: the id of the release to use; it must serve.

        Raises:
            SessionsFull: EQ562. NoSuchRelease: EQ549. RuntimeClosed: EQ543.
            AgentError: EQ512, the name is not a text; EQ503, EQ504, EQ560, the model cannot be loaded again.
        """
        self._routing()  # opens again after a fork
        named = os.urandom(8).hex() if name is None else Fields({"name": name}).text("name")
        return self._sessions.open(named, named if key is None else key, release)

    def session_named(self, name: str) -> Session:
        """Return an open session.

        Raises:
            SessionEnded: EQ563, it has ended, or never began. RuntimeClosed: EQ543.
        """
        self._routing()
        return self._sessions.named(name)

    def feedback(self, ticket: str, correct: bool) -> None:
        """Report whether an answer was correct; counted once for its release and arm, without its input.

        Args:
            ticket: of the answer (`run(x, ticket=True).ticket`).

        Raises:
            FeedbackRefused: EQ550, the ticket was redeemed already, has expired, or is of another process.
            RuntimeClosed: EQ543.
            AgentError: EQ512, `correct` is not a boolean.
        """
        correct = Fields({"correct": correct}).flag("correct")
        self._routing()
        metrics = self._tickets.redeem(ticket)
        metrics.add_feedback(correct)
        self._recorder.feedback_added(metrics)

    def _answer(self, routing: Any, engine: Any, key: object, x: Any, raw: bool, limit_ns: int | None) -> Any:
        if engine is None:
            if routing is None:
                routing = self._reopen()
            engine = routing.default if key is None and not routing.by_call else routing.engine(key)
        began = _clock()
        slot: Any = None
        try:
            slot = engine.free.pop()
        except IndexError:
            slot = engine.wait(began + limit_ns if self._strict and limit_ns is not None else None)
            if slot is None:
                busy = f"all {engine.size} interpreters were busy until its deadline"
                routing = engine = None
                raise DeadlineMissed("the call", busy) from None
        try:
            return slot.answer(x, raw, key is not None, began, limit_ns, self._strict)
        finally:
            engine.give(slot)
            # A traceback that the application keeps must not keep the engine: the recorder knows by the
            # engine's end that its last call is over.
            routing = engine = slot = None

    def describe(self, release: str | None = None) -> tuple[list[TensorInfo], list[TensorInfo]]:
        """Return the inputs and outputs of a release that serves; default: that of calls without a key.

        Raises:
            NoSuchRelease: EQ549, it does not serve.
        """
        engine = self._routing().default if release is None else self._engine_of(release)
        return engine.inputs, engine.outputs

    def _engine_of(self, release: str) -> Engine:
        serving = {engine.release: engine for engine in self._routing().all()}
        if release not in serving:
            raise NoSuchRelease(
                f"{self.model} {release[:12]}", "does not serve", expected="one of " + ", ".join(serving)
            )
        return serving[release]

    def _routing(self) -> Routing:
        return self._reloader.routing or self._reopen()

    def _closed_error(self) -> RuntimeClosed:
        return RuntimeClosed(self.model, "the runtime was closed", hint="create another Runtime")

    @property
    def release(self) -> str:
        """The id of the release that answers calls without a key."""
        return self._routing().default.release

    @property
    def releases(self) -> dict[str, str]:
        """Arm -> release; without a split the only arm is called `default`."""
        routing = self._routing()
        return {engine.arm or "default": engine.release for engine in routing.all()}

    @property
    def inputs(self) -> list[TensorInfo]:
        """The inputs of that release, in the model's order."""
        return self._routing().default.inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """The outputs of that release, in the model's order."""
        return self._routing().default.outputs

    @property
    def kernels(self) -> str:
        """Which kernels run: xnnpack, builtin, edgetpu or unknown."""
        return self._routing().default.kernels

    @property
    def recording_problem(self) -> str:
        """Why calls are not recorded at present; empty when they are."""
        return self._recorder.problem

    @property
    def open_sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    @property
    def problems(self) -> list[Problem]:
        """The latest failures off the callers' path, oldest first."""
        return list(self._problems)

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait for running calls, store the window and the counters, free the model; later calls get EQ543.

        Args:
            timeout_s: for running calls; a call that hangs does not keep the process alive.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
            atexit.unregister(self._at_exit)
            if isinstance(self._reloader, _Forked):
                return  # nothing was called in this process
            if self._finalizer is not None:
                self._finalizer.cancel()
            self._sessions.close()
            self._reloader.close(timeout_s)
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

    def _limit_of(self, deadline_s: float | None) -> tuple[int | None, bool]:
        return self._deadline_ns if deadline_s is None else _deadline_ns(deadline_s), self._strict

    def _serves(self) -> tuple[str | None, str | None, dict[str, str]]:
        routing = self._reloader.routing
        return (
            release_store.current(self._home, self.model),
            routing.default.release if routing else None,
            dict(self._reloader.refused),
        )

    def _report(self, release: str, error: AgentError) -> None:
        # The text, not the error: its traceback would keep a refused model in memory.
        self._problems.append(Problem(release, error.code, one_line(error)))
        _log.warning("%s: %s", self.model, one_line(error))


def _options(
    threads: int, pool: int | None, telemetry: bool, window: int, window_s: float, window_least_s: float
) -> Options:
    """Return how releases are loaded.

    Raises:
        AgentError: EQ512, a number is not valid.
    """
    fields = Fields(
        {
            "threads": threads,
            "pool": pool or None,
            "window": window,
            "window_s": window_s,
            "window_least_s": window_least_s,
        }
    )
    usual = min(os.cpu_count() or 1, _MAX_INTERPRETERS)
    return Options(
        fields.integer("threads", 1, _MAX_THREADS),
        fields.integer("pool", 1, _MAX_POOL, usual),
        telemetry,
        fields.integer("window", 1, _LONGEST_WINDOW),
        fields.seconds("window_s", 60.0),
        fields.number("window_least_s", 0.0),
    )


def _close_in_child(runtime: Runtime) -> Any:
    """Close the runtime at the end of a child of multiprocessing as well: it does not run `atexit`."""
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        return None
    return util.Finalize(None, _closer(runtime), exitpriority=_FINALIZER_PRIORITY)


def _deadline_ns(deadline_s: float | None) -> int | None:
    if deadline_s is None:
        return None
    return int(Fields({"deadline_s": deadline_s}).seconds("deadline_s", 0.0) * 1e9)


def _close_at_exit(runtime: Runtime) -> Any:
    """Close the runtime at exit for applications that forget it: no window is lost, no thread is cut off."""
    close = _closer(runtime)
    atexit.register(close)
    return close


def _closer(runtime: Runtime) -> Callable[[], None]:
    """Return a function that closes the runtime if it still exists."""
    reference = weakref.ref(runtime)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    return close
