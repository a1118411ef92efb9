"""Verb `split`: set, clear or show the A/B split of a model; the runtimes take it up by themselves."""

from __future__ import annotations

from edgeq_agent.activation import candidates, recovery, states
from edgeq_agent.activation.states import ModelState
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import IN_SPLIT, NOT_STAGED, ON_TRIAL, AgentError
from edgeq_agent.releases import release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Split, SplitUnusable
from edgeq_agent.storage import journal, lock
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import trust_store
from edgeq_agent.wire import Json


def answer(call: Call) -> Json:
    """Verb `split`: with `arms` set it, with `clear` end it, else show it. Twice changes nothing.

    Every arm names a release by its whole id: the one that serves, or one that is staged here. The split
    counts as long as that release serves; committing another one ends it.

    Raises:
        AgentError: EQ510 no release serves, EQ546 it is no split, EQ551 an arm's release is not staged here,
            EQ552 another experiment divides the calls, EQ553 a release is on trial, or another one serves
            than the request expects, EQ559 an arm's runtime gives no outputs.
    """
    model = request.model_name(call.request)
    clear = request.flag(call.request, "clear", False)
    with lock.hold(call.home):
        state = recovery.recover(call.home, model)
        if clear:
            return _clear(call, model)
        if "arms" in call.request:
            return _set(call, state)
        release_store.need_current(call.home, model)
        return dict(candidates.told(call.home, model), model=model, changed=False)


def _set(call: Call, state: ModelState) -> Json:
    home, model = call.home, state.model
    current = release_store.need_current(home, model)
    if state.state in states.PENDING:
        raise AgentError(
            ON_TRIAL,
            model,
            f"its release is {state.state.replace('_', ' ')}",
            hint="wait for the end of its soak (`edgeq status`), then start the experiment again",
        )
    if "base" in call.request and request.sha256(call.request, "base") != current:
        raise AgentError(
            ON_TRIAL,
            model,
            "another release serves than the split is for",
            expected=str(call.request["base"])[:12],
            got=current[:12],
            hint="start the experiment again: it compares with what serves now",
        )
    fields = ("arms", "salt", "experiment", "draw")
    body = {name: call.request[name] for name in fields if name in call.request}
    wanted = ab_split.parse(dict(body, schema=ab_split.SCHEMA, base=current), "split of " + model)
    for arm in wanted.arms:
        _check_arm(home, model, request.sha256(arm._asdict(), "release"), current)
    try:
        before = ab_split.read(home, model)
    except SplitUnusable:
        before = None
    if before is not None and before.counts_under(current) and before.experiment != wanted.experiment:
        raise AgentError(
            IN_SPLIT,
            model,
            "its calls are divided already, by experiment {}".format(before.experiment or "without a name"),
            hint="`edgeq ab stop` in the workspace that began it; deploying any other release ends it, too",
        )
    changed = wanted != before
    if changed:
        ab_split.write(home, model, wanted)
    found = dict(candidates.told(home, model), model=model, changed=changed)
    return dict(found, **_noted(home, "split", wanted)) if changed else found


def _check_arm(home: Home, model: str, release: str, current: str) -> None:
    backend = registry.find(home, candidates.runtime_of(home, model, release))
    if backend is not None:
        backend.require_comparison(model)
    if release == current:
        return
    entry = candidates.read(home, model).get(release)
    subject = f"{model} {release[:12]}"
    if entry is None:
        here = ", ".join(name[:12] for name in (current, *candidates.read(home, model)))
        raise AgentError(
            NOT_STAGED, subject, "neither serves nor is staged here", expected="one of " + here,
            hint="`edgeq ab start` stages it first",
        )  # fmt: skip
    release_store.check_blobs(home, release_store.read(home, release))
    store = trust_store.load(home)
    floor = (store or trust_store.EMPTY).counters.get(model)
    if floor and release != floor.release and int(entry["counter"]) <= floor.counter:
        raise AgentError(
            NOT_STAGED,
            subject,
            "a newer release was committed here since it was staged",
            expected=f"a release counter above {floor.counter}",
            got=str(entry["counter"]),
            hint="`edgeq bundle` makes a new release with the next counter",
        )


def _clear(call: Call, model: str) -> Json:
    before = candidates.told(call.home, model)["split"]
    body: Json = {"model": model, "changed": before is not None}
    if before is not None:
        ab_split.remove(call.home, model)
        body.update(journal.note(call.home, "split", model=model, arms=None))
    return dict(candidates.told(call.home, model), **body)


def _noted(home: Home, event: str, split: Split) -> Json:
    arms = {arm.name: {"release": arm.release, "weight": arm.weight} for arm in split.arms}
    return journal.note(home, event, experiment=split.experiment, arms=arms)
