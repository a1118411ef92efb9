"""The runner: do what the state requires next, and journal the result before going on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeq.errors import DeviceTimeout
from edgeq.fleet.clock import Clock
from edgeq.fleet.rollout import device_ops
from edgeq.fleet.rollout.events import REQUESTED, Aborted, Ended, Event, Looked, Paused, Restored
from edgeq.fleet.rollout.journal import Journal
from edgeq.fleet.rollout.outcomes import SILENCE, DeviceOutcome, Outcome
from edgeq.fleet.rollout.protocols import Deployer, NoAnswer, Pool
from edgeq.fleet.rollout.scheduler import Stop, Transition, Work, alarm, decide, may_start
from edgeq.fleet.rollout.state import Rollout, RolloutState

# An operation and the device's name: `look`, `deploy`, `soak`, `reconcile` or `restore`.
Task = tuple[str, str]

# How often the runner checks for a request to pause while it waits.
_LISTEN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerTimes:
    """The runner's deadlines and intervals, in seconds.

    Attributes:
        change_s: deadline of a deploy or a rollback, for cases that the transport's own deadlines do not
            cover.
        query_s: deadline of a status query.
        check_s: interval of status queries during a soak.
        again_s: wait before a silent device is queried again at the end of the soak.
        last_tries: number of queries at the end of the soak before a device counts as silent, at least 1.
    """

    change_s: float = 3600
    query_s: float = 180
    check_s: float = 60
    again_s: float = 10
    last_tries: int = 3


@dataclass(kw_only=True)
class Runner:
    """Drives one rollout; it may be killed at any moment, and a new one continues from the journal.

    Attributes:
        request: returns `pause` or `abort` when that was requested.
        on_event: called with each event once it is on disk.
    """

    rollout: Rollout
    journal: Journal
    deployer: Deployer
    pool: Pool
    clock: Clock
    times: RunnerTimes = RunnerTimes()
    request: Callable[[], str | None] = lambda: None
    on_event: Callable[[Event], None] = lambda _event: None

    def run(self) -> None:
        """Run until the rollout is done or needs a decision of the operator.

        Raises:
            RolloutError: the journal cannot be written.
        """
        while True:
            self._handle_request()
            todo = decide(self.rollout)
            if isinstance(todo, Stop):
                return
            if isinstance(todo, Transition):
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
        """Run tasks concurrently until all are done, or no further one may start.

        Started tasks are always waited for, so that no result is lost.
        """
        waiting, running, at_once = deque(tasks), dict[str, Task](), self.rollout.spec.at_once
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
                got = self._no_response(task) if isinstance(value, NoAnswer) else read(task, value)
                if kind == "look" and self.rollout.state is not RolloutState.RUNNING:
                    # The device will not be deployed to: only a failure to read its status is an event.
                    got = [event for event in got if isinstance(event, Ended)]
                if len(got) == 1 and isinstance(got[0], Looked):
                    waiting.appendleft(("deploy", name))
                events += got
            self._record(events)
            step = alarm(self.rollout)
            if step is not None:
                self._record([step.event])
            self._handle_request()

    def _submit(self, task: Task) -> None:
        kind, name = task
        release = self.rollout.spec.release
        deployer = device_ops.IsolatedDeployer(deployer=self.deployer)
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

    def _no_response(self, task: Task) -> list[Event]:
        kind, name = task
        reason = f"no response within {self._deadline_s(kind):g} s"
        if kind == "restore":
            return [Restored(device=name, result="failed", reason=reason)]
        result = DeviceOutcome(outcome=Outcome.TIMED_OUT, reason=reason, code=DeviceTimeout.code)
        if kind == "soak":
            return self._soaked(task, result, last=False)
        return [device_ops.ended(name, result, phase=kind)]

    def _deadline_s(self, kind: str) -> float:
        return self.times.change_s if kind in ("deploy", "restore") else self.times.query_s

    def _soak(self) -> None:
        end_s = self.clock.now_s() + self.rollout.spec.soak_s
        while self._sleep_until(min(end_s, self.clock.now_s() + self.times.check_s)) < end_s:
            self._sweep(partial(self._soaked, ended=False))
            if self.rollout.state is not RolloutState.SOAKING:
                return
        for tries in range(self.times.last_tries, 0, -1):
            self._sweep(partial(self._soaked, last=tries == 1))
            if self.rollout.state is not RolloutState.SOAKING or not self._soaking():
                return
            self._sleep_until(self.clock.now_s() + self.times.again_s)

    def _sweep(self, read: Callable[[Task, Any], list[Event]]) -> None:
        if self.rollout.state is RolloutState.SOAKING:
            self._each([("soak", name) for name in self._soaking()], read=read)

    def _soaking(self) -> list[str]:
        devices = self.rollout.spec.stages[self.rollout.stage].devices
        return [name for name in devices if not self.rollout.records[name].final]

    def _soaked(
        self, task: Task, result: DeviceOutcome, *, ended: bool = True, last: bool = False
    ) -> list[Event]:
        """Return the event for a result during a soak, if it is final.

        Silence is final only at the last query, and is a failure then. Success is final only after the soak.
        """
        if result.outcome is Outcome.PENDING:
            reason = "the device has not finished its soak"
            result = DeviceOutcome(outcome=Outcome.TIMED_OUT, reason=reason, code=DeviceTimeout.code)
        if (result.outcome is Outcome.SUCCEEDED and not ended) or (result.outcome in SILENCE and not last):
            return []
        return [device_ops.ended(task[1], result, phase="soak")]

    def _sleep_until(self, moment_s: float) -> float:
        while self.rollout.state is RolloutState.SOAKING and self.clock.now_s() < moment_s:
            self.clock.sleep(min(_LISTEN_S, moment_s - self.clock.now_s()))
            self._handle_request()
        return moment_s

    def _handle_request(self) -> None:
        request, state = self.request(), self.rollout.state
        if request == "pause" and state in (RolloutState.RUNNING, RolloutState.SOAKING):
            self._record([Paused(reason=REQUESTED)])
        elif request == "abort" and state in (
            RolloutState.RUNNING,
            RolloutState.SOAKING,
            RolloutState.PAUSED,
        ):
            self._record([Aborted(reason=REQUESTED)])

    def _record(self, events: list[Event]) -> None:
        for event in events:
            self.rollout.apply(event)
        self.journal.append([event.to_json() for event in events])
        for event in events:
            self.on_event(event)
