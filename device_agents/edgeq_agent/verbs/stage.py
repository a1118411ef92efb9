"""Verbs `stage` and `unstage`: a second release on the device, proved like any other, that nobody is served.

It goes through the whole gate of `activate` (signature, counter, class of device, space, golden inputs,
limits) up to the swap of the link, and stays for an A/B split (see `split_verb`) or a later activation.
"""

from __future__ import annotations

from edgeq_agent.activation import candidates, health, recovery, states
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import BAD_REQUEST, IN_SPLIT, TOO_MANY_STAGED, AgentError
from edgeq_agent.releases import manifest, release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import SplitUnusable
from edgeq_agent.storage import clock, journal, lock, scratch
from edgeq_agent.trust import trust_store
from edgeq_agent.verbs import activate
from edgeq_agent.wire import Json


def stage(call: Call) -> Json:
    """Verb `stage`: prove a release here and keep it; what serves goes on serving. Twice changes nothing.

    A release that serves already is left as it is. With `retry` one that failed too often is tried again.

    Raises:
        AgentError: EQ510 no release of the model serves here, EQ554 too many are staged, EQ559 a runtime that
            gives no outputs, else as `activate`.
    """
    model = request.model_name(call.request)
    release = request.sha256(call.request, "release")
    runtime = request.sha256(call.request, "runtime")
    timeout_s = request.timeout_s(call.request)
    with lock.hold(call.home):
        trust_store.admit(call.home, trust_store.parse_release(call.fields))
        wanted = manifest.parse(request.mapping(call.request, "manifest"), release)
        if wanted.model != model:
            raise AgentError(BAD_REQUEST, "manifest.model", expected=model, got=wanted.model)
        state = recovery.recover(call.home, model)
        current = release_store.need_current(call.home, model)
        entries = candidates.read(call.home, model)
        known = entries.get(release)
        answer: Json = {"model": model, "release": release, "current": current, "changed": False}
        if release == current:
            return dict(answer, serves=True, health=state.health)
        serving = registry.find(call.home, state.runtime_of(current))
        if serving is not None:
            serving.require_comparison(model)
        if known and known["runtime"] == runtime and release_store.complete(call.home, wanted):
            if state.attempts.of(release):
                state.proved(release)
            return dict(answer, serves=False, health=known["health"])
        if known is None and len(entries) >= candidates.MOST:
            raise AgentError(
                TOO_MANY_STAGED,
                model,
                f"{len(entries)} releases are staged on this device",
                expected=f"at most {candidates.MOST}",
                hint="end an experiment with `edgeq ab stop`: it lets its release go",
            )
        if request.flag(call.request, "retry", False):
            state.proved(release)
        state.attempts.check(model, release, state.reason)
        scratch.sweep(call.home)
        activate.check_device(call, wanted)
        registry.need(call.home, runtime).require_comparison(model)
        release_store.check_blobs(call.home, wanted)
        # Counted before the model runs: one that takes the device down is not tried for ever.
        state.trying(release)
        release_store.build(call.home, wanted)
        measured = health.check(call.home, wanted, runtime, timeout_s).to_json()
        call.response.progress(states.VERIFIED, model=model, release=release)
        entry: Json = {
            "runtime": runtime,
            "counter": wanted.counter,
            "health": measured,
            "since_ns": clock.wall_ns(),
        }
        # From here on `prune` keeps it; nothing names it before the answer.
        candidates.write(call.home, model, dict(entries, **{release: entry}))
        state.proved(release)
        noted = journal.note(call.home, "stage", model=model, release=release)
        return dict(answer, changed=True, serves=False, health=measured, **noted)


def unstage(call: Call) -> Json:
    """Verb `unstage`: let a staged release go; `prune` removes it once nothing else refers to it.

    Raises:
        AgentError: EQ552 the split names it.
    """
    model = request.model_name(call.request)
    release = request.sha256(call.request, "release")
    with lock.hold(call.home):
        recovery.recover(call.home, model)
        entries = candidates.read(call.home, model)
        answer: Json = {"model": model, "release": release, "changed": release in entries}
        if release not in entries:
            return answer
        try:
            found = ab_split.read(call.home, model)
        except SplitUnusable:
            found = None
        if found is not None and any(release.startswith(arm.release) for arm in found.arms):
            raise AgentError(
                IN_SPLIT,
                f"{model} {release[:12]}",
                "the A/B split names it",
                hint="end the experiment with `edgeq ab stop`",
            )
        candidates.write(
            call.home, model, {name: entry for name, entry in entries.items() if name != release}
        )
        return dict(answer, **journal.note(call.home, "unstage", model=model, release=release))
