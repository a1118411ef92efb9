"""The reloader: one thread that polls for a release to serve and swaps it in, off the callers' path.

It compares one link and one file's stamp every `poll_s`; a call only reads one attribute. A release that does
not load here or fails its golden inputs is refused: the previous one goes on serving, and the journal has
the reason.
"""

from __future__ import annotations

import threading
from typing import Callable

from edgeq_agent.activation import states
from edgeq_agent.errors import AgentError, one_line
from edgeq_agent.sdk import engine as engines
from edgeq_agent.sdk.call_metrics import ALONE, Side
from edgeq_agent.sdk.engine import Engine, Options
from edgeq_agent.sdk.errors import ReleaseRefused, StorageFailed
from edgeq_agent.sdk.recorder import Recorder
from edgeq_agent.sdk.routing import Router, Routing, single
from edgeq_agent.sdk.session import Sessions
from edgeq_agent.sdk.shadow import Shadows
from edgeq_agent.storage import journal, lock

Report = Callable[[str, AgentError], None]
_JOURNAL_WAIT_S = 2.0


class Reloader:
    """Keeps `routing` up to date.

    Attributes:
        routing: the routing in use; None once the reloader is closed.
        refused: release -> why it was refused.
    """

    def __init__(
        self,
        router: Router,
        options: Options,
        recorder: Recorder,
        shadows: Shadows | None,
        sessions: Sessions,
        report: Report,
        poll_s: float,
    ) -> None:
        self._router = router
        self._options = options
        self._recorder = recorder
        self._shadows = shadows
        self._sessions = sessions
        self._report = report
        self._poll_s = poll_s
        self._fingerprint: tuple[object, ...] = ()
        self._woken = threading.Event()
        self._closing = False
        self.refused: dict[str, str] = {}
        self.routing: Routing | None = None
        self._thread = threading.Thread(target=self._work, name="edgeq-reload-" + router.model, daemon=True)

    def load_first(self) -> None:
        """Load the release to serve; when that fails, the newest earlier release that still loads.

        Raises:
            AgentError: EQ510, no release serves; EQ544, none loads: the error of the current one.
        """
        self._fingerprint = self._router.fingerprint()
        try:
            self.routing = self._router.route(self._load, None)
        except AgentError as error:
            self.routing = self._fall_back(error)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def wake(self) -> None:
        """Make the reloader look at once, because calls wait for an interpreter."""
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """End the thread and drop all engines."""
        self._closing = True
        self._woken.set()
        self._thread.join(timeout_s)
        self.routing = None

    def _work(self) -> None:
        while not self._closing:
            self._woken.wait(self._poll_s)
            self._woken.clear()
            if self._closing:
                return
            self._recorder.ensure_running()
            try:
                self._grow()
                self._poll()
                self._sessions.check()
            except Exception as error:  # noqa: BLE001 - the boundary of the thread: it must go on
                # A temporary failure of the disk must not end the polling: compare again next time.
                self._fingerprint = ()
                problem = f"what serves could not be read: {error}"
                self._report("", StorageFailed(self._router.model, problem))

    def _grow(self) -> None:
        for engine in self.routing.all() if self.routing else ():
            try:
                engine.grow()
            except (AgentError, MemoryError) as error:
                engine.stop_growing()
                if isinstance(error, AgentError):
                    self._report(engine.release, error)

    def _poll(self) -> None:
        fingerprint = self._router.fingerprint()
        if fingerprint == self._fingerprint:
            return
        current = fingerprint[0]
        link_moved = self._fingerprint[:1] != (current,)
        self._fingerprint = fingerprint
        try:
            self.routing = self._router.route(self._load, self.routing)
        except AgentError as error:
            if not isinstance(error, ReleaseRefused):  # a refusal was recorded when it happened
                self._record("", error)
            # A split that cannot be applied must not keep back a release that was just committed.
            if link_moved and current is not None and str(current) not in self.refused:
                self._serve_alone(str(current))

    def _serve_alone(self, release: str) -> None:
        before = self.routing.all() if self.routing else ()
        kept = [engine for engine in before if (engine.release, engine.side) == (release, ALONE)]
        try:
            self.routing = single(kept[0] if kept else self._load(release, ALONE))
        except ReleaseRefused:
            return  # recorded already; the previous routing stays

    def _fall_back(self, error: AgentError) -> Routing:
        if not isinstance(error, ReleaseRefused):
            self._record("", error)
        history = states.read(self._router.home, self._router.model).history
        current = self._fingerprint[0]
        for release in [*([str(current)] if current else []), *reversed(history)]:
            if release in self.refused:
                continue
            try:
                return single(self._load(release, ALONE))
            except ReleaseRefused:
                continue  # recorded already
        raise error

    def _load(self, release: str, side: Side) -> Engine:
        self.refused.pop(release, None)
        try:
            engine = engines.load(self._router.home, self._router.model, release, side, self._options)
            hand_over = self._recorder.hand_over if self._options.telemetry else None
            engine.start(hand_over, self._shadows, self.wake)
        except AgentError as error:
            self.refused[release] = one_line(error)
            self._record(release, error)
            raise
        self._recorder.follow(engine)
        return engine

    def _record(self, release: str, error: AgentError) -> None:
        self._report(release, error)
        try:
            with lock.hold(self._router.home, _JOURNAL_WAIT_S):
                journal.append(
                    self._router.home,
                    "refused",
                    model=self._router.model,
                    release=release or None,
                    problem=one_line(error),
                )
        except AgentError as busy:
            self._report(release, busy)
        except OSError as problem:  # a full disk: the report and the counters still have the refusal
            self._report(release, StorageFailed("journal", f"not written: {problem}"))
