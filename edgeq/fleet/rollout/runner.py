"""The runner: does what the state asks for, and writes down what came of it before it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeq.errors import DeviceTimeout
from edgeq.fleet.rollout import device_ops
from edgeq.fleet.rollout.journal import Journal
from edgeq.fleet.rollout.outcomes import SILENCE, DeviceOutcome, Outcome
from edgeq.fleet.rollout.protocols import Clock, Deployer, NoAnswer, Pool
from edgeq.fleet.rollout.scheduler import Step, Stop, Work, alarm, decide, may_start
from edgeq.fleet.rollout.state import Event, Rollout, State

# What is done to which device: `look`, `deploy`, `soak`, `reconcile` or `restore`.
Task = tuple[str, str]

# How often a request to pause is looked for while nothing else happens.
_LISTEN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The runner's times, in seconds.

    Attributes:
        change_s: when a deploy or a rollback that has not answered is given up. The transport's own deadlines
            come first; this one holds where they do not.
        ask_s: the same for a question.
        check_s: how often a soaking device is asked.
        again_s: how long after a silent answer at the end of the soak it is asked again.
        last_tries: how often it is asked at the end of the soak before silence is its outcome, at least 1.
    """

    change_s: float = 3600
    ask_s: float = 180
    check_s: float = 60
    again_s: float = 10
    last_tries: int = 3


@dataclass(kw_only=True)
class Runner:
    """Drives one rollout; it may be killed at any moment and another one made from the journal.

    Attributes:
        request: says `pause` or `abort` when somebody asked for it.
        tell: called with each event once it is on disk.
    """

    rollout: Rollout
    journal: Journal
    deployer: Deployer
    pool: Pool
    clock: Clock
    pace: Pace = Pace()
    request: Callable[[], str | None] = lambda: None
    tell: Callable[[Event], None] = lambda _event: None

    def run(self) -> None:
        """Go on until nothing is left to do without somebody's word.

        Raises:
            RolloutError: the journal cannot be written.
        """
        while True:
            self._heed()
            todo = decide(self.rollout)
            if isinstance(todo, Stop):
                return
            if isinstance(todo, Step):
                self._record([todo.event])
            else:
                self._work(todo)

    def _work(self, work: Work) -> None:
        if work.kind == "soak":
            self._soak()
        else:
            kind = "look" if work.kind == "deploy" else work.kind
            self._each([(kind, name) for name in work.devices], read=self._events)

    def _each(self, tasks: Iterable[Task], *, read: Callable[[Task, Any], list[Event]]) -> None:
        """Work on devices beside each other until all were, or none may be started any more.

        What was started is waited for in any case: a device that is worked on is never left unheard.
        """
        waiting, running, at_once = deque(tasks), dict[str, Task](), self.rollout.terms.at_once
        while True:
            while waiting and self.pool.busy < at_once and may_start(self.rollout, waiting[0][0]):
                task = waiting.popleft()
                running[task[1]] = task
                self._submit(task)
            if not self.pool.busy:
                return
            events: list[Event] = []
            for name, value in self.pool.wait(_LISTEN_S):
                kind, _ = task = running.pop(name)
                got = self._no_answer(task) if isinstance(value, NoAnswer) else read(task, value)
                if kind == "look" and self.rollout.state is not State.RUNNING:
                    # Nothing will be done there: only that it could not be asked is worth a line.
                    got = [event for event in got if event["event"] == "outcome"]
                if [event["event"] for event in got] == ["looked"]:
                    waiting.appendleft(("deploy", name))
                events += got
            self._record(events)
            step = alarm(self.rollout)
            if step is not None:
                self._record([step.event])
            self._heed()

    def _submit(self, task: Task) -> None:
        kind, name = task
        release, deployer = self.rollout.terms.release, self.deployer
        job: Callable[[], Any]
        if kind == "look":
            job = partial(device_ops.look, deployer, name, release)
        elif kind == "deploy":
            job = partial(device_ops.deploy, deployer, name, release)
        elif kind == "soak":
            job = partial(device_ops.soak, deployer, name)
        elif kind == "reconcile":
            job = partial(device_ops.reconcile, deployer, name, release)
        else:
            job = partial(device_ops.restore, deployer, name, self.rollout.records[name], release)
        self.pool.submit(name, job, deadline_s=self._deadline_s(kind))

    def _events(self, _task: Task, value: Any) -> list[Event]:
        events: list[Event] = value
        return events

    def _no_answer(self, task: Task) -> list[Event]:
        kind, name = task
        reason = f"no answer within {self._deadline_s(kind):g} s"
        if kind == "restore":
            return [{"event": "restored", "device": name, "result": "failed", "reason": reason}]
        result = DeviceOutcome(outcome=Outcome.TIMED_OUT, reason=reason, code=DeviceTimeout.code)
        if kind == "soak":
            return self._soaked(task, result, last=False)
        return [device_ops.ended(name, result, phase=kind)]

    def _deadline_s(self, kind: str) -> float:
        return self.pace.change_s if kind in ("deploy", "restore") else self.pace.ask_s

    def _soak(self) -> None:
        end_s = self.clock.now_s() + self.rollout.terms.soak_s
        while self._sleep_until(min(end_s, self.clock.now_s() + self.pace.check_s)) < end_s:
            self._sweep(partial(self._soaked, ended=False))
            if self.rollout.state is not State.SOAKING:
                return
        for tries in range(self.pace.last_tries, 0, -1):
            self._sweep(partial(self._soaked, last=tries == 1))
            if self.rollout.state is not State.SOAKING or not self._soaking():
                return
            self._sleep_until(self.clock.now_s() + self.pace.again_s)

    def _sweep(self, read: Callable[[Task, Any], list[Event]]) -> None:
        if self.rollout.state is State.SOAKING:
            self._each([("soak", name) for name in self._soaking()], read=read)

    def _soaking(self) -> list[str]:
        devices = self.rollout.terms.stages[self.rollout.stage].devices
        return [name for name in devices if not self.rollout.records[name].final]

    def _soaked(
        self, task: Task, result: DeviceOutcome, *, ended: bool = True, last: bool = False
    ) -> list[Event]:
        """Return the event of an answer during a soak, if it decides something.

        Silence decides nothing before the soak's last question, and then it is a failure; that the release
        serves decides nothing before the soak has ended.
        """
        if result.outcome is Outcome.PENDING:
            reason = "it has not ended its own soak"
            result = DeviceOutcome(outcome=Outcome.TIMED_OUT, reason=reason, code=DeviceTimeout.code)
        if (result.outcome is Outcome.SUCCEEDED and not ended) or (result.outcome in SILENCE and not last):
            return []
        return [device_ops.ended(task[1], result, phase="soak")]

    def _sleep_until(self, moment_s: float) -> float:
        while self.rollout.state is State.SOAKING and self.clock.now_s() < moment_s:
            self.clock.sleep(min(_LISTEN_S, moment_s - self.clock.now_s()))
            self._heed()
        return moment_s

    def _heed(self) -> None:
        asked, state = self.request(), self.rollout.state
        if asked == "pause" and state in (State.RUNNING, State.SOAKING):
            self._record([{"event": "paused", "reason": "asked for", "gate": None}])
        elif asked == "abort" and state in (State.RUNNING, State.SOAKING, State.PAUSED):
            self._record([{"event": "aborted", "reason": "asked for"}])

    def _record(self, events: list[Event]) -> None:
        for event in events:
            self.rollout.apply(event)
        self.journal.append(events)
        for event in events:
            self.tell(event)
