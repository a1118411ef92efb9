"""Verbs `activate` and `rollback`: the device has a working release at every instant."""

from __future__ import annotations

from edgeq_agent.activation import candidates, counters, health, recovery, soak, states
from edgeq_agent.activation.states import ModelState
from edgeq_agent.blobs import blob_store
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import (
    BAD_REQUEST,
    BOTH_UNHEALTHY,
    NOTHING_TO_ROLL_BACK_TO,
    UNSUPPORTED,
    AgentError,
    no_space,
)
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.releases import manifest, release_store
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.runtimes import registry
from edgeq_agent.storage import home, lock, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.trust import trust_store
from edgeq_agent.wire import Json


def activate(call: Call) -> Json:
    """Verb `activate`: let a release serve, once it proved healthy here.

    With `soak_s` it serves on trial for that long (see `soak`) before it is committed. With `retry` a release
    that failed too often here is tried again.

    Raises:
        AgentError: EQ501 space, EQ503 device or runtime, EQ504 not healthy, EQ505 another manifest, EQ508
            busy, EQ509 a blob is missing, EQ511 the model hangs, EQ520 it failed too often here, EQ530 to
            EQ537 its signature or age. In all cases
            what served before still serves.
    """
    model = request.model_name(call.request)
    release = request.sha256(call.request, "release")
    runtime = request.sha256(call.request, "runtime")
    asked = soak.wanted(call.request)
    with lock.hold(call.home):
        trust_store.admit(call.home, trust_store.parse_release(call.fields))
        wanted = manifest.parse(request.mapping(call.request, "manifest"), release)
        if wanted.model != model:
            raise AgentError(BAD_REQUEST, "manifest.model", expected=model, got=wanted.model)
        state = recovery.recover(call.home, model)
        before = release_store.current(call.home, model)
        if (
            before == release
            and state.runtime_of(release) == runtime
            and release_store.complete(call.home, wanted)
        ):
            return _answer(call.home, state, release, before, changed=False, steps=[])
        if request.flag(call.request, "retry", False):
            state.attempts = state.attempts.without(release)
        state.attempts.check(model, release, state.reason)
        scratch.sweep(call.home)
        check_device(call, wanted)
        registry.need(call.home, runtime)
        release_store.check_blobs(call.home, wanted)
        if state.state == states.SOAKING:
            # Its trial is cut short, so it never becomes what a rollback leads to.
            recovery.go_back(call.home, state, f"{release[:12]} was activated during the soak")
            before = release_store.current(call.home, model)
        history = state.history if before in (None, release) else [*state.history, str(before)]
        history = [name for name in history if name != release]
        steps = _switch(call, state, wanted, runtime, history, asked)
        return _answer(call.home, state, release, before, changed=True, steps=steps)


def rollback(call: Call) -> Json:
    """Verb `rollback`: let the release before serve again, after a new look at its health.

    With `from` in the request the call is idempotent: when another release than that one serves, nothing is
    done. A release on trial goes back at once.

    Raises:
        AgentError: EQ507 there is none before, EQ510 unknown model, EQ521 neither release is healthy, else as
            `activate`.
    """
    model = request.model_name(call.request)
    expected = request.sha256(call.request, "from") if "from" in call.request else None
    with lock.hold(call.home):
        state = recovery.recover(call.home, model)
        before = release_store.need_current(call.home, model)
        if expected not in (None, before):
            return _answer(call.home, state, before, before, changed=False, steps=[])
        target = state.previous
        runtime = state.runtimes.get(target) if target else None
        if target is None or runtime is None:
            raise AgentError(
                NOTHING_TO_ROLL_BACK_TO,
                model,
                "no release served before " + before[:12],
                hint="deploy another release",
            )
        if state.state == states.SOAKING:
            return _end_trial(call, state, target, before)
        wanted = release_store.read(call.home, target)
        release_store.check_blobs(call.home, wanted)
        blob_store.check_space(call.home, model, 0)
        steps = _switch(call, state, wanted, runtime, state.history[:-1], {})
        return _answer(call.home, state, target, before, changed=True, steps=steps)


def _end_trial(call: Call, state: ModelState, target: str, before: str) -> Json:
    recovery.go_back(call.home, state, "a rollback was asked for")
    if state.state == states.SAFE:
        raise AgentError(
            BOTH_UNHEALTHY,
            state.model,
            str(state.reason),
            hint="deploy another release; nothing moves by itself until then",
        )
    steps = [states.ROLLING_BACK, states.ROLLED_BACK]
    return _answer(call.home, state, target, before, changed=True, steps=steps)


def _switch(
    call: Call, state: ModelState, wanted: Manifest, runtime: str, history: list[str], asked: Json
) -> list[str]:
    before = release_store.current(call.home, state.model)
    steps: list[str] = []

    def reached(step: str) -> None:
        steps.append(step)
        call.response.progress(step, model=state.model, release=wanted.release)

    try:
        timeout_s = request.timeout_s(call.request)
        state.begin(wanted.release, runtime, history, before, asked, timeout_s)
        release_store.build(call.home, wanted)
        reached(states.STAGED)
        state.verified(health.check(call.home, wanted, runtime, timeout_s).to_json())
        reached(states.VERIFIED)
        counters.clear(call.home, state.model, wanted.release)
        state.activating()
        reached(states.ACTIVATING)
        release_store.point(call.home, state.model, wanted.release)
        recovery.finish(state)
        reached(state.state)
    except BaseException as error:
        _undo(call.home, state, before, error)
        raise
    _settle(call.home, state)
    return steps


def _settle(place: Home, state: ModelState) -> None:
    """End a split that was set under what served before.

    Nobody serves it any more: a disk that refuses to let it go is told of, and the next call does it.
    """
    try:
        candidates.settle(place, state)
    except OSError as error:
        state.problems["split_problem"] = f"the split that is over is still there: {error.strerror}"


def _undo(place: Home, state: ModelState, before: str | None, error: BaseException) -> None:
    """Go back to what served before; when the disk refuses even that, the next call's `recover` does it."""
    if state.state not in (states.STAGED, states.VERIFIED, states.ACTIVATING):
        return
    problem = getattr(error, "problem", "") or str(error) or type(error).__name__
    reason = "{} {}".format(getattr(error, "code", "interrupted:"), problem)
    if release_store.current(place, state.model) != before:
        # Said before it is done: a disk that refuses the record leaves link and record as they agree.
        state.rolling_back(reason)
        release_store.point(place, state.model, before)
    state.roll_back(reason)


def check_device(call: Call, wanted: Manifest) -> None:
    """Refuse a release that is not for this kind of device, or has no room here.

    Raises:
        AgentError: EQ503, EQ501.
    """
    # What the board itself says counts; only a plain "linux" is narrowed by what the inventory calls it.
    kind = str(platforms.kind_of())
    if kind == "linux" and "kind" in call.request:
        kind = request.text(call.request, "kind")
    if wanted.kinds and kind not in wanted.kinds:
        raise AgentError(
            UNSUPPORTED,
            wanted.model,
            "made for another kind of device",
            expected=" or ".join(wanted.kinds),
            got=kind,
            hint="make a bundle for this kind of device",
        )
    free = home.free_bytes(call.home.root)
    if free < wanted.free_bytes:
        raise no_space(wanted.model, wanted.free_bytes, free)
    # The release's folder, its links and its manifest.
    blob_store.check_space(call.home, wanted.model, 0, len(wanted.files) + 2)


def _answer(
    place: Home, state: ModelState, release: str, before: str | None, changed: bool, steps: list[str]
) -> Json:
    body: Json = {
        "model": state.model,
        "release": release,
        "previous": before if changed else state.previous,
        "changed": changed,
        "health": state.health,
        "states": steps,
        "state": state.state,
    }
    if state.state == states.SOAKING:
        body["soak"] = soak.told(place, state)
    body.update(state.problems)
    return body
