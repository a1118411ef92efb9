"""Start and end the A/B split of a model: every arm must be able to serve before calls are divided."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeq_agent.activation import candidates, states
from edgeq_agent.activation.candidates import SplitStatus
from edgeq_agent.activation.states import ModelState
from edgeq_agent.errors import IN_SPLIT, NOT_STAGED, SOAKING_RELEASE, AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Split, SplitUnusable
from edgeq_agent.storage import journal
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import trust_store
from edgeq_agent.wire import Json


@dataclass(frozen=True)
class SplitChange:
    """A model's split after a request.

    Attributes:
        changed: False when nothing had to be done.
        problems: what failed without failing the call.
    """

    model: str
    changed: bool
    status: SplitStatus
    problems: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the change as the response has it."""
        return dict(self.status.to_json(), model=self.model, changed=self.changed, **self.problems)


def start(home: Home, state: ModelState, split: Split, expected_base: str | None) -> SplitChange:
    """Divide the calls of a model; idempotent (lock held).

    Args:
        split: every arm names a release by its whole id.
        expected_base: the release that the request expects to serve; None for any.

    Raises:
        AgentError: EQ510 no release serves, EQ551 an arm's release is not a candidate here, EQ552 another
            experiment divides the calls, EQ553 a release is soaking or another one serves than expected,
            EQ559 an arm's runtime gives no outputs.
    """
    model = state.model
    current = release_store.need_current(home, model)
    if state.state in states.PENDING:
        raise AgentError(
            SOAKING_RELEASE,
            model,
            f"its release is {state.state.replace('_', ' ')}",
            hint="wait for the end of its soak (`edgeq status`), then start the experiment again",
        )
    if expected_base is not None and expected_base != current:
        raise AgentError(
            SOAKING_RELEASE,
            model,
            "another release serves than the split is for",
            expected=expected_base[:12],
            got=current[:12],
            hint="start the experiment again: it compares with the release that serves now",
        )
    split = split._replace(base=current)
    for arm in split.arms:
        _check_arm(home, model, arm.release, current)
    try:
        before = ab_split.read(home, model)
    except SplitUnusable:
        before = None
    if before is not None and before.in_force(current) and before.experiment != split.experiment:
        raise AgentError(
            IN_SPLIT,
            model,
            "its calls are already divided, by experiment {}".format(before.experiment or "without a name"),
            hint="run `edgeq ab stop` in the workspace that started it, or deploy another release",
        )
    changed = split != before
    noted: dict[str, str] = {}
    if changed:
        ab_split.write(home, model, split)
        arms = {arm.name: {"release": arm.release, "weight": arm.weight} for arm in split.arms}
        noted = journal.note(home, "split", experiment=split.experiment, arms=arms)
    return SplitChange(model, changed, candidates.status(home, model), noted)


def _check_arm(home: Home, model: str, release: str, current: str) -> None:
    backend = registry.find(home, candidates.runtime_of(home, model, release))
    if backend is not None:
        backend.require_comparison(model)
    if release == current:
        return
    known = candidates.read(home, model)
    candidate = known.get(release)
    subject = f"{model} {release[:12]}"
    if candidate is None:
        raise AgentError(
            NOT_STAGED,
            subject,
            "neither serves nor is staged here",
            expected="one of " + ", ".join(name[:12] for name in (current, *known)),
            hint="`edgeq ab start BUNDLE --to DEVICE` stages it first",
        )
    release_store.check_blobs(home, release_store.read(home, release))
    trust = trust_store.load(home) or trust_store.EMPTY
    trusted = set(candidate.signed_by) & set(trust.active)
    if trust_store.is_void(trust, model, release) or len(trusted) < min(
        trust.threshold, len(candidate.signed_by)
    ):
        raise AgentError(
            NOT_STAGED,
            subject,
            "its keys were revoked, or a counter reset withdrew it, since it was staged",
            expected=f"signatures of {trust.threshold} keys that the device trusts",
            got=str(len(trusted)),
            hint="start the experiment again with a release that a trusted key signed: "
            "`edgeq ab start BUNDLE --to DEVICE`",
        )
    floor = trust.counters.get(model)
    if floor and release != floor.release and candidate.counter <= floor.counter:
        raise AgentError(
            NOT_STAGED,
            subject,
            "a newer release was committed here since it was staged",
            expected=f"a release counter above {floor.counter}",
            got=str(candidate.counter),
            hint="`edgeq bundle MODEL -o FILE` makes a new release with the next counter",
        )


def end(home: Home, model: str) -> SplitChange:
    """End the split of a model; idempotent (lock held)."""
    changed = candidates.status(home, model).present
    noted: dict[str, str] = {}
    if changed:
        ab_split.remove(home, model)
        noted = journal.note(home, "split", model=model, arms=None)
    return SplitChange(model, changed, candidates.status(home, model), noted)
