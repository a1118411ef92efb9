"""Make a release a candidate: it passes the same gate and health check as an activation, but does not serve.

It stays for an A/B split or a later activation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgeq_agent.activation import candidates, gate, health, recovery, state_record
from edgeq_agent.activation.candidates import CandidateRelease
from edgeq_agent.activation.gate import GateRequest
from edgeq_agent.calls.call import Progress
from edgeq_agent.errors import IN_SPLIT, TOO_MANY_STAGED, AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import SplitUnusable
from edgeq_agent.storage import clock, journal
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


@dataclass(frozen=True)
class StagingResult:
    """The result of staging a release.

    Attributes:
        current: the release that serves.
        health: as the response has it.
        problems: what failed without failing the call.
    """

    model: str
    release: str
    current: str
    changed: bool
    health: Json
    problems: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the result as the response has it."""
        return dict(
            self.problems,
            model=self.model,
            release=self.release,
            current=self.current,
            changed=self.changed,
            serves=self.release == self.current,
            health=self.health,
        )


def stage(home: Home, request: GateRequest, progress: Progress) -> StagingResult:
    """Check a release and keep it as a candidate; idempotent (lock held).

    Raises:
        AgentError: EQ510 no release of the model serves here, EQ554 too many candidates, EQ559 the runtime
            gives no outputs, else as `gate.admit`, `gate.check` and `health.check`.
    """
    model, release = request.model, request.release
    manifest, signers = gate.admit(home, request)
    state = recovery.recover(home, model)
    current = release_store.need_current(home, model)
    known = candidates.read(home, model)
    if release == current:
        return StagingResult(model, release, current, changed=False, health=state.record.health)
    serving = registry.find(home, state.record.runtime_of(current))
    if serving is not None:
        serving.require_comparison(model)
    candidate = known.get(release)
    if candidate and candidate.runtime == request.runtime and release_store.complete(home, manifest):
        if state.record.attempts.count(release):
            state.forget_attempts(release)
        if candidate.signed_by != signers:
            candidates.write(home, model, dict(known, **{release: replace(candidate, signed_by=signers)}))
        return StagingResult(model, release, current, changed=False, health=candidate.health)
    if candidate is None and len(known) >= candidates.LIMIT:
        raise AgentError(
            TOO_MANY_STAGED,
            model,
            f"{len(known)} releases are staged on this device",
            expected=f"at most {candidates.LIMIT}",
            hint="end an experiment with `edgeq ab stop`: it releases its candidate",
        )
    if request.ignore_attempts:
        state.forget_attempts(release)
    gate.check(home, state, manifest, request).require_comparison(model)
    # Counted before the model runs, so that a model that restarts the device is not attempted without end.
    state.count_attempt(release)
    release_store.build(home, manifest)
    measured = health.check(home, manifest, request.runtime, request.timeout_s).to_json()
    progress(state_record.VERIFIED, model=model, release=release)
    added = CandidateRelease(request.runtime, manifest.counter, measured, clock.wall_ns(), signers)
    # From here on `prune` keeps it; nothing refers to it before the response.
    candidates.write(home, model, dict(known, **{release: added}))
    state.forget_attempts(release)
    noted = journal.note(home, "stage", model=model, release=release)
    return StagingResult(model, release, current, changed=True, health=measured, problems=noted)


@dataclass(frozen=True)
class UnstagingResult:
    """The result of dropping a candidate.

    Attributes:
        problems: what failed without failing the call.
    """

    model: str
    release: str
    changed: bool
    problems: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the result as the response has it."""
        return dict(self.problems, model=self.model, release=self.release, changed=self.changed)


def unstage(home: Home, model: str, release: str) -> UnstagingResult:
    """Drop a candidate (lock held); `prune` removes it once nothing refers to it.

    Raises:
        AgentError: EQ552, the split names it.
    """
    recovery.recover(home, model)
    known = candidates.read(home, model)
    if release not in known:
        return UnstagingResult(model, release, changed=False)
    try:
        split = ab_split.read(home, model)
    except SplitUnusable:
        split = None
    if split is not None and any(release.startswith(arm.release) for arm in split.arms):
        raise AgentError(
            IN_SPLIT,
            f"{model} {release[:12]}",
            "the A/B split names it",
            hint="end the experiment with `edgeq ab stop`",
        )
    candidates.write(home, model, {name: each for name, each in known.items() if name != release})
    noted = journal.note(home, "unstage", model=model, release=release)
    return UnstagingResult(model, release, changed=True, problems=noted)
