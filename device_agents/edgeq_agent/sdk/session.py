"""Sessions: sequences of calls with an interpreter of their own, so that no other call changes their state.

    with rt.session() as session:
        for chunk in stream:
            scores = session.infer(chunk)

A session stays on the release, and the arm of a split, on which it began. When that release is replaced, what
happens is configured: `finish` lets the session go on for a time, `end` ends it, `restart` continues it on
the new release with a new state.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.sdk.answer import Answer
from edgeq_agent.sdk.errors import (
    DeadlineMissed,
    InvokeFailed,
    NoSuchRelease,
    RuntimeClosed,
    SessionEnded,
    SessionsFull,
)

if TYPE_CHECKING:
    from edgeq_agent.sdk.call_metrics import CallMetrics
    from edgeq_agent.sdk.engine import Engine
    from edgeq_agent.sdk.routing import Routing
    from edgeq_agent.sdk.slot import Slot
    from edgeq_agent.sdk.tensors import TensorInfo

FINISH, END, RESTART = "finish", "end", "restart"
_MAX_SESSIONS = 10_000
_MAX_IDLE_S = 7 * 86400.0
# How many ended sessions are remembered, so that their next call learns why.
_REMEMBERED = 1000
_clock = time.perf_counter_ns


class Rules(NamedTuple):
    """How many sessions may be open, and when they end.

    Attributes:
        limit: how many may be open at the same time.
        idle_s: a session without a call for so long ends.
        on_swap: what happens to a session whose release is replaced: `finish`, `end` or `restart`.
        finish_s: how long `finish` lets it go on.
    """

    limit: int
    idle_s: float
    on_swap: str
    finish_s: float

    @classmethod
    def checked(cls, limit: int, idle_s: float, on_swap: str, finish_s: float) -> Rules:
        """Return the rules.

        Raises:
            AgentError: EQ512, one of them is not valid.
        """
        fields = Fields(
            {"sessions": limit, "session_idle_s": idle_s, "on_swap": on_swap, "session_finish_s": finish_s}
        )
        return cls(
            fields.integer("sessions", 0, _MAX_SESSIONS),
            fields.seconds("session_idle_s", 60.0, _MAX_IDLE_S),
            fields.one_of("on_swap", (FINISH, END, RESTART)),
            fields.seconds("session_finish_s", 60.0, _MAX_IDLE_S),
        )


class Session:
    """A sequence of calls on one interpreter; calls of several threads run one after another.

    Attributes:
        id: its name.
        restarts: how often it restarted because its release was replaced.
    """

    def __init__(self, sessions: Sessions, name: str, key: object, pinned: str | None) -> None:
        self.id = name
        self.restarts = 0
        self._sessions = sessions
        self._key = key
        self._pinned = pinned
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._engine: Engine | None = None
        self._slot: Slot | None = None
        self._routing: Routing | None = None
        self._reason = ""
        self.used_s = time.monotonic()
        self._replaced_s: float | None = None

    @property
    def release(self) -> str:
        """The id of the release that answers its calls; empty once it has ended."""
        engine = self._engine
        return engine.release if engine else ""

    @property
    def outputs(self) -> list[TensorInfo]:
        """The outputs of that release; none once it has ended, or before it restarts on another release."""
        engine = self._engine
        return engine.outputs if engine else []

    def infer(self, x: Any, raw: bool = False, deadline_s: float | None = None) -> Any:
        """Run the model on the next sample of the sequence; arguments and result as `Runtime.infer`.

        An answer that comes late (EQ542) has changed the state all the same. A model that fails (EQ545) ends
        the session.

        Raises:
            SessionEnded: EQ563; else as `Runtime.infer`.
        """
        return self._call(x, raw, deadline_s)[0]

    def run(self, x: Any, raw: bool = False, deadline_s: float | None = None, ticket: bool = False) -> Answer:
        """Run the next sample as `infer` does, and say which release answered.

        Args:
            ticket: issue a ticket for `Runtime.feedback`.
        """
        outputs, engine, restarted = self._call(x, raw, deadline_s)
        named = outputs if isinstance(outputs, dict) else {engine.outputs[0].name: outputs}
        issued = self._sessions.issue(engine.metrics) if ticket else None
        return Answer(named, engine.release, engine.arm, issued, restarted)

    def _call(self, x: Any, raw: bool, deadline_s: float | None) -> tuple[Any, Engine, bool]:
        if self._pid != os.getpid():
            raise SessionEnded(
                f"session {self.id}", "was opened before the fork", hint="open one in the child"
            )
        began = _clock()
        limit_ns, strict = self._sessions.deadline(deadline_s)
        left_s = limit_ns / 1e9 if strict and limit_ns is not None else -1
        if not self._turn.acquire(timeout=left_s):
            self._count_late()
            raise DeadlineMissed("the call", "another call of its session ran until its deadline")
        try:
            restarted = self._ready()
            engine, slot = self._engine, self._slot
            if engine is None or slot is None:
                raise self._ended()
            try:
                with slot.lock:
                    answer = slot.answer(x, raw, self._key is not None, began, limit_ns, strict)
            except InvokeFailed:
                self._sessions.end(self, "the model failed, so that its state is not known")
                raise
            return answer, engine, restarted
        finally:
            self.used_s = time.monotonic()
            self._leave()
            # A traceback that the application keeps must not keep the engine; see `Runtime`.
            engine = slot = None

    def _count_late(self) -> None:
        engine = self._engine
        if engine is not None:
            engine.metrics.no_slot()

    def _leave(self) -> None:
        """Give the turn back, and free the interpreter of a session that has ended."""
        self._turn.release()
        # Whoever sets the reason while another thread has the turn relies on that thread to come here.
        if self._reason and self._turn.acquire(False):
            try:
                self._free()
            finally:
                self._turn.release()

    def _ready(self) -> bool:
        """Follow the routing; return whether the session restarts (only by the call whose turn it is)."""
        routing: Any = self._sessions.routing()
        try:
            if not self._reason and routing is not self._routing:
                self.follow(routing)
            if self._reason:
                raise self._ended()
            if self._slot is not None:
                return False
            self.begin(routing)
            self.restarts += 1
            return True
        finally:
            routing = None  # as in `_call`

    def begin(self, routing: Any) -> None:
        """Take an interpreter of the release that the routing assigns.

        Raises:
            NoSuchRelease: EQ549, the release that was asked for does not serve; else as
            `Engine.begin_session`.
        """
        engine: Any = routing.engine(self._key) if self._pinned is None else _serving(routing, self._pinned)
        try:
            self._slot = engine.begin_session()
            self._engine, self._routing = engine, routing
        finally:
            engine = routing = None

    def follow(self, routing: Routing) -> None:
        """Apply the rule for a release that was replaced, if the session's was (only by who has its turn)."""
        engine = self._engine
        self._routing = routing
        if engine is None or any(engine is each for each in routing.all()):
            self._replaced_s = None
            return
        rules = self._sessions.rules
        if self._replaced_s is None:
            self._replaced_s = time.monotonic()
        if rules.on_swap == RESTART and self._pinned is None:
            self._replaced_s = None
            self._free()
        elif rules.on_swap != FINISH or time.monotonic() - self._replaced_s > rules.finish_s:
            self._sessions.end(self, f"its release {engine.release[:12]} was replaced")

    def check(self, routing: Routing) -> None:
        """End or restart the session if a rule says so; not while a call runs, which does it itself."""
        if not self._turn.acquire(False):
            return
        try:
            if not self._reason and (routing is not self._routing or self._replaced_s is not None):
                self.follow(routing)
            idle_s = time.monotonic() - self.used_s
            if not self._reason and idle_s > self._sessions.rules.idle_s:
                self._sessions.end(self, f"no call came for {self._sessions.rules.idle_s:g} s")
        finally:
            self._leave()

    def end(self, reason: str) -> None:
        """End the session; a running call finishes and then frees the interpreter."""
        self._reason = self._reason or reason
        if self._turn.acquire(False):
            self._leave()

    def _free(self) -> None:
        engine, slot = self._engine, self._slot
        # The routing, too: it would keep an engine after its last call.
        self._engine = self._slot = self._routing = None
        if engine is not None and slot is not None:
            engine.end_session(slot)

    def _ended(self) -> AgentError:
        return self._sessions.ended_error(self.id, self._reason)

    def reset(self) -> None:
        """Begin a new sequence in the same session.

        Raises:
            SessionEnded: EQ563.
        """
        self._turn.acquire()
        try:
            self._ready()
            slot = self._slot
            if slot is not None:
                with slot.lock:
                    slot.reset()
            self.used_s = time.monotonic()
        finally:
            self._leave()

    def close(self) -> None:
        """End the session and free its interpreter; after it, calls get EQ563."""
        if self._pid == os.getpid():
            self._sessions.close_one(self)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Sessions:
    """The open sessions of one runtime.

    Args:
        routing: returns the present routing.
        deadline: returns (nanoseconds or None, whether late answers are errors) for a call's own
            `deadline_s`.
        issue: returns a ticket for an answer.
    """

    def __init__(
        self,
        rules: Rules,
        routing: Callable[[], Routing],
        deadline: Callable[[float | None], tuple[int | None, bool]],
        issue: Callable[[CallMetrics], str],
    ) -> None:
        self.rules = rules
        self.routing = routing
        self.deadline = deadline
        self.issue = issue
        self._open: dict[str, Session] = {}
        self._past: OrderedDict[str, str] = OrderedDict()
        self._opening = 0
        self._closed = False
        self._lock = threading.Lock()  # guards the four above

    def __len__(self) -> int:
        return len(self._open)

    def open(self, name: str, key: object = None, release: str | None = None) -> Session:
        """Begin a session; one of the same name that is open ends.

        Args:
            key: assigns it to an arm of a split.
            release: that must serve; None follows the split.

        Raises:
            SessionsFull: EQ562. NoSuchRelease: EQ549. AgentError: as `Engine.begin_session`.
        """
        self.routing()  # the runtime must be open
        with self._lock:
            before = self._open.get(name)
        if before is not None:
            self.end(before, "another session of this name began")
        self._make_room()
        session = Session(self, name, key, release)
        try:
            session.begin(self.routing())
            with self._lock:
                if self._closed:
                    raise RuntimeClosed("the runtime", "was closed")
                other = self._open.get(name)
                self._open[name] = session
                self._past.pop(name, None)
        except BaseException:
            session.end("it did not begin")
            raise
        finally:
            with self._lock:
                self._opening -= 1
        if other is not None:  # two threads began it at the same time
            other.end("another session of this name began")
        return session

    def _make_room(self) -> None:
        """Count one session that begins.

        Raises:
            SessionsFull: EQ562.
        """
        for attempt in range(2):
            with self._lock:
                if len(self._open) + self._opening < self.rules.limit:
                    self._opening += 1
                    return
            if not attempt:
                self.check()  # idle ones may have passed their time since the last look
        raise SessionsFull(
            "sessions",
            f"{self.rules.limit} are open, the limit",
            hint=f"end one (`close`, `sequence_end`), wait until one was idle for {self.rules.idle_s:g} s, "
            "or raise the limit: `Runtime(sessions=...)`, `serve --sessions`",
        )

    def named(self, name: str) -> Session:
        """Return an open session.

        Raises:
            SessionEnded: EQ563, it has ended, or never began.
        """
        with self._lock:
            session = self._open.get(name)
            reason = self._past.pop(name, "") if session is None else ""
        if session is None:
            raise self.ended_error(name, reason)
        return session

    def ended_error(self, name: str, reason: str) -> AgentError:
        """Return the error of a call whose session is not open."""
        return SessionEnded(
            f"session {name[:60]}",
            f"has ended: {reason}" if reason else "is not open",
            hint="begin a new one: `Runtime.session`, or `sequence_start` over HTTP",
        )

    def check(self) -> None:
        """End the sessions that are idle, and those whose release was replaced, by the rules."""
        routing = self.routing()
        with self._lock:
            sessions = list(self._open.values())
        for session in sessions:
            session.check(routing)

    def end(self, session: Session, reason: str) -> None:
        """End a session and remember why, for its next call (its turn may be held by this thread)."""
        with self._lock:
            if self._open.get(session.id) is session:
                del self._open[session.id]
                self._past[session.id] = reason
                while len(self._past) > _REMEMBERED:
                    self._past.popitem(last=False)
        session.end(reason)

    def close_one(self, session: Session) -> None:
        """End a session on its owner's request."""
        with self._lock:
            if self._open.get(session.id) is session:
                del self._open[session.id]
        session.end("it was closed")

    def close(self) -> None:
        """End all sessions; running calls finish."""
        with self._lock:
            self._closed = True
            sessions, self._open = list(self._open.values()), {}
        for session in sessions:
            session.end("the runtime was closed")


def _serving(routing: Routing, release: str) -> Engine:
    serving = {engine.release: engine for engine in routing.all()}
    if release not in serving:
        raise NoSuchRelease(release[:12], "does not serve", expected="one of " + ", ".join(serving))
    return serving[release]
