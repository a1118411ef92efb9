"""The keeper: one thread that looks what is to serve and swaps it in, off the callers' path.

It compares one link and one file's stamp every `poll_s`; the calls themselves read one attribute. A release
that does not load here or fails its golden inputs is not taken: what served goes on, and the journal tells.
"""

from __future__ import annotations

import threading
from typing import Callable

from edgeq_agent.activation import states
from edgeq_agent.errors import AgentError, one_line
from edgeq_agent.sdk import engine as sdk_engine
from edgeq_agent.sdk.call_metrics import ALONE, Side
from edgeq_agent.sdk.engine import Engine, Options
from edgeq_agent.sdk.errors import ReleaseRefused, StorageFailed
from edgeq_agent.sdk.recorder import Recorder
from edgeq_agent.sdk.routing import Plan, Sources, alone
from edgeq_agent.sdk.shadow import Shadows
from edgeq_agent.storage import journal, lock
from edgeq_agent.storage.home import Home

Report = Callable[[str, AgentError], None]
_JOURNAL_WAIT_S = 2.0


class Keeper:
    """Keeps `plan` at what is to serve.

    Attributes:
        plan: what serves; None once the keeper was closed.
        refused: release -> why it was not taken.
    """

    def __init__(
        self,
        sources: Sources,
        options: Options,
        recorder: Recorder,
        shadows: Shadows | None,
        report: Report,
        poll_s: float,
    ) -> None:
        self._sources = sources
        self._options = options
        self._recorder = recorder
        self._shadows = shadows
        self._report = report
        self._poll_s = poll_s
        self._mark: tuple[object, ...] = ()
        self._woken = threading.Event()
        self._ended = False
        self.refused: dict[str, str] = {}
        self.plan: Plan | None = None
        self._thread = threading.Thread(target=self._work, name="edgeq-keep-" + sources.model, daemon=True)

    def first(self) -> None:
        """Load what is to serve.

        When that cannot be, the newest release before it that still loads serves instead.

        Raises:
            AgentError: EQ510, none serves; EQ544, none loads: that of the current one.
        """
        self._mark = self._sources.mark()
        try:
            self.plan = self._sources.plan(self._load, None)
        except AgentError as error:
            self.plan = self._second_best(error)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def wake(self) -> None:
        """Let the keeper see at once that calls wait for an interpreter."""
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """End the thread and let go of all engines."""
        self._ended = True
        self._woken.set()
        self._thread.join(timeout_s)
        self.plan = None

    def _work(self) -> None:
        while not self._ended:
            self._woken.wait(self._poll_s)
            self._woken.clear()
            if self._ended:
                return
            self._grow()
            try:
                self._look()
            except (OSError, ValueError) as error:
                # A disk that fails for a moment must not end the looking; the next look may succeed.
                self._mark = ()
                self._report(
                    "", StorageFailed(self._sources.model, f"what serves could not be read: {error}")
                )

    def _grow(self) -> None:
        for engine in self.plan.all() if self.plan else ():
            try:
                engine.grow()
            except (AgentError, MemoryError) as error:
                engine.no_growth()
                if isinstance(error, AgentError):
                    self._report(engine.release, error)

    def _look(self) -> None:
        mark = self._sources.mark()
        if mark == self._mark:
            return
        moved = mark[:1] != self._mark[:1]
        self._mark = mark
        try:
            self.plan = self._sources.plan(self._load, self.plan)
        except AgentError as error:
            if not isinstance(error, ReleaseRefused):  # that one was told when it was refused
                self._tell("", error)
            # A split that cannot be served must not keep a release back that was just committed.
            if moved and mark[0] is not None and str(mark[0]) not in self.refused:
                self._serve_alone(str(mark[0]))

    def _serve_alone(self, release: str) -> None:
        before = self.plan.all() if self.plan else ()
        kept = [engine for engine in before if (engine.release, engine.side) == (release, ALONE)]
        try:
            self.plan = alone(kept[0] if kept else self._load(release, ALONE))
        except ReleaseRefused:
            return  # told when it was refused; what served goes on

    def _second_best(self, error: AgentError) -> Plan:
        if not isinstance(error, ReleaseRefused):
            self._tell("", error)
        place, model = self._sources.home, self._sources.model
        history = states.load(place, model).history
        current = self._mark[0]
        for release in [str(current)] * bool(current) + history[::-1]:
            if release in self.refused:
                continue
            try:
                return alone(self._load(release, ALONE))
            except ReleaseRefused:
                continue  # told already
        raise error

    def _load(self, release: str, side: Side) -> Engine:
        self.refused.pop(release, None)
        try:
            engine = sdk_engine.load(self._sources.home, self._sources.model, release, side, self._options)
            hand_over = self._recorder.hand_over if self._options.telemetry else None
            engine.start(hand_over, self._shadows, self.wake)
        except AgentError as error:
            self.refused[release] = one_line(error)
            self._tell(release, error)
            raise
        self._recorder.follow(engine)
        return engine

    def _tell(self, release: str, error: AgentError) -> None:
        self._report(release, error)
        place: Home = self._sources.home
        try:
            with lock.hold(place, _JOURNAL_WAIT_S):
                journal.append(
                    place,
                    "refused",
                    model=self._sources.model,
                    release=release or None,
                    problem=one_line(error),
                )
        except AgentError as busy:
            self._report(release, busy)
        except OSError as problem:  # a full disk: the report and the counters have the refusal all the same
            self._report(release, StorageFailed("journal", f"not written: {problem}"))
