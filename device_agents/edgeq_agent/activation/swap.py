"""Activate a release or roll back: at every instant the device has a working release."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeq_agent.activation import candidates, counters, gate, health, recovery, soak, state_record
from edgeq_agent.activation.gate import GateRequest
from edgeq_agent.activation.soak import SoakStatus
from edgeq_agent.activation.state_record import Attempts, SoakPolicy, StateRecord
from edgeq_agent.activation.states import ModelState
from edgeq_agent.blobs import blob_store
from edgeq_agent.calls.call import Progress
from edgeq_agent.errors import BOTH_UNHEALTHY, NOTHING_TO_ROLL_BACK_TO, AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import trust_store
from edgeq_agent.wire import Json


@dataclass(frozen=True)
class SwapResult:
    """The result of an activation or a rollback.

    Attributes:
        previous: the release that a rollback leads to now.
        changed: False when nothing had to be done.
        states: the states that were reached, in their order.
        soak: None when the release is not soaking.
        problems: what failed without failing the call, such as a journal that could not be written.
    """

    record: StateRecord
    release: str
    previous: str | None
    changed: bool
    states: list[str]
    soak: SoakStatus | None
    problems: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the result as the response has it."""
        body: Json = {
            "model": self.record.model,
            "release": self.release,
            "previous": self.previous,
            "changed": self.changed,
            "health": self.record.health,
            "states": self.states,
            "state": self.record.state,
        }
        if self.soak is not None:
            body["soak"] = self.soak.to_json()
        return dict(body, **self.problems)


@dataclass(frozen=True)
class _Swap:
    """One swap: the release to serve, its runtime and its soak time."""

    manifest: Manifest
    runtime: str
    history: tuple[str, ...]
    attempts: Attempts
    soak: SoakPolicy | None
    timeout_s: float


def activate(home: Home, request: GateRequest, policy: SoakPolicy | None, progress: Progress) -> SwapResult:
    """Let a release serve once it has passed the gate and its health check (lock held).

    Args:
        policy: the release soaks for that long before it is committed; None commits at once.

    Raises:
        AgentError: as `gate.admit`, `gate.check` and `health.check`; in all cases the previous release
            still serves.
    """
    manifest = gate.admit(home, request).manifest
    state = recovery.recover(home, request.model)
    before = release_store.current(home, request.model)
    if (
        before == request.release
        and state.record.runtime_of(request.release) == request.runtime
        and release_store.complete(home, manifest)
    ):
        return _result(home, state, request.release, None)
    gate.check(home, state, manifest, request)
    if state.state == state_record.SOAKING:
        # Its soak is cut short, so it never becomes the release that a rollback leads to.
        recovery.roll_back(home, state, f"{request.release[:12]} was activated during the soak")
        before = release_store.current(home, request.model)
    history = (
        state.record.history if before in (None, request.release) else (*state.record.history, str(before))
    )
    attempts = state.record.attempts
    swap = _Swap(
        manifest=manifest,
        runtime=request.runtime,
        history=tuple(release for release in history if release != request.release),
        attempts=attempts.without(request.release) if request.ignore_attempts else attempts,
        soak=policy,
        timeout_s=request.timeout_s,
    )
    steps = _run(home, state, swap, progress)
    return _result(home, state, request.release, steps, before)


def roll_back(
    home: Home, model: str, expected: str | None, timeout_s: float, progress: Progress
) -> SwapResult:
    """Let the previous release serve again, after a new health check (lock held).

    A release in its soak is replaced at once.

    Args:
        expected: when another release than this one serves, nothing is done; makes the call idempotent.

    Raises:
        AgentError: EQ507 no release served before, or it was withdrawn, EQ510 unknown model, EQ521 neither
            release is healthy, else as `activate`.
    """
    state = recovery.recover(home, model)
    before = release_store.need_current(home, model)
    if expected not in (None, before):
        return _result(home, state, before, None)
    target = state.record.previous
    runtime = state.record.runtimes.get(target) if target else None
    if target is None or runtime is None:
        raise AgentError(
            NOTHING_TO_ROLL_BACK_TO,
            model,
            "no release served before " + before[:12],
            hint="deploy another release",
        )
    if state.state == state_record.SOAKING:
        return _end_soak(home, state, target, before)
    if trust_store.withdrawn(home, model, target):
        raise AgentError(
            NOTHING_TO_ROLL_BACK_TO,
            model,
            f"a counter reset withdrew {target[:12]}, which served before",
            hint="deploy another release",
        )
    manifest = release_store.read(home, target)
    release_store.check_blobs(home, manifest)
    blob_store.check_space(home, model, 0)
    swap = _Swap(
        manifest=manifest,
        runtime=runtime,
        history=state.record.history[:-1],
        attempts=state.record.attempts,
        soak=None,
        timeout_s=timeout_s,
    )
    steps = _run(home, state, swap, progress)
    return _result(home, state, target, steps, before)


def _end_soak(home: Home, state: ModelState, target: str, before: str) -> SwapResult:
    recovery.roll_back(home, state, "a rollback was requested")
    if state.state == state_record.SAFE:
        raise AgentError(
            BOTH_UNHEALTHY,
            state.model,
            str(state.record.reason),
            hint="deploy another release; the device changes nothing until then",
        )
    return _result(home, state, target, [state_record.ROLLING_BACK, state_record.ROLLED_BACK], before)


def _run(home: Home, state: ModelState, swap: _Swap, progress: Progress) -> list[str]:
    """Go through the states of an activation and return them; undo it when a step fails."""
    manifest = swap.manifest
    before = release_store.current(home, state.model)
    steps: list[str] = []

    def reached(step: str) -> None:
        steps.append(step)
        progress(step, model=state.model, release=manifest.release)

    try:
        state.begin(
            manifest.release,
            swap.runtime,
            swap.history,
            attempts=swap.attempts,
            fallback=before,
            soak=swap.soak,
            timeout_s=swap.timeout_s,
        )
        release_store.build(home, manifest)
        reached(state_record.STAGED)
        state.verified(health.check(home, manifest, swap.runtime, swap.timeout_s))
        reached(state_record.VERIFIED)
        counters.clear(home, state.model, manifest.release)
        state.activating()
        reached(state_record.ACTIVATING)
        release_store.point(home, state.model, manifest.release)
        recovery.finish(state)
        reached(state.state)
    except BaseException as error:
        _undo(home, state, before, error)
        raise
    try:
        candidates.settle(home, state.record)
    except OSError as error:
        # No runtime applies the split any more; the next call removes it.
        state.problems["split_problem"] = f"the split that has ended is still on disk: {error.strerror}"
    return steps


def _undo(home: Home, state: ModelState, before: str | None, error: BaseException) -> None:
    """Go back to the previous release; when the disk refuses even that, the next call recovers it."""
    if state.state not in (state_record.STAGED, state_record.VERIFIED, state_record.ACTIVATING):
        return
    problem = getattr(error, "problem", "") or str(error) or type(error).__name__
    reason = "{} {}".format(getattr(error, "code", "interrupted:"), problem)
    if release_store.current(home, state.model) != before:
        # Recorded before it is done: if the disk refuses the record, link and record still agree.
        state.rolling_back(reason)
        release_store.point(home, state.model, before)
    state.roll_back(reason)


def _result(
    home: Home, state: ModelState, release: str, steps: list[str] | None, before: str | None = None
) -> SwapResult:
    changed = steps is not None
    return SwapResult(
        record=state.record,
        release=release,
        previous=before if changed else state.record.previous,
        changed=changed,
        states=steps or [],
        soak=soak.status(home, state.record),
        problems=state.problems,
    )
