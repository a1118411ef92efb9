"""Verbs `activate` and `rollback`: the device has a working release at every instant."""

from __future__ import annotations

from edgeq_agent import (
    blobs,
    device,
    health,
    home,
    lock,
    manifest,
    releases,
    request,
    runtimes,
    scratch,
    states,
    trust,
)
from edgeq_agent.call import Call
from edgeq_agent.errors import BAD_REQUEST, NOTHING_TO_ROLL_BACK_TO, UNSUPPORTED, AgentError, no_space
from edgeq_agent.home import Home
from edgeq_agent.manifest import Manifest
from edgeq_agent.states import ModelState
from edgeq_agent.wire import Json


def activate(call: Call) -> Json:
    """Verb `activate`: let a release serve, once it proved healthy here.

    Raises:
        AgentError: EQ501 space, EQ503 device or runtime, EQ504 not healthy, EQ505 another manifest, EQ508
            busy,
            EQ509 a blob is missing, EQ511 the model hangs, EQ530 to EQ537 its signature or age. In all cases
            what served before still serves.
    """
    model = request.model_name(call.request)
    release = request.sha256(call.request, "release")
    runtime = request.sha256(call.request, "runtime")
    with lock.hold(call.home):
        trust.admit(call.home, call.request)
        wanted = manifest.parse(request.mapping(call.request, "manifest"), release)
        if wanted.model != model:
            raise AgentError(BAD_REQUEST, "manifest.model", expected=model, got=wanted.model)
        state = recover(call.home, model)
        before = releases.current(call.home, model)
        if (
            before == release
            and state.runtime_of(release) == runtime
            and releases.complete(call.home, wanted)
        ):
            return _answer(state, release, before, changed=False, steps=[])
        scratch.sweep(call.home)
        _check_device(call, wanted)
        runtimes.need(call.home, runtime)
        releases.check_blobs(call.home, wanted)
        history = state.history if before in (None, release) else [*state.history, str(before)]
        steps = _switch(call, state, wanted, runtime, [name for name in history if name != release])
        return _answer(state, release, before, changed=True, steps=steps)


def rollback(call: Call) -> Json:
    """Verb `rollback`: let the release before serve again, after a new look at its health.

    With `from` in the request the call is idempotent: when another release than that one serves, nothing is
    done.

    Raises:
        AgentError: EQ507 there is none before, EQ510 unknown model, else as `activate`.
    """
    model = request.model_name(call.request)
    expected = request.sha256(call.request, "from") if "from" in call.request else None
    with lock.hold(call.home):
        state = recover(call.home, model)
        before = releases.need_current(call.home, model)
        if expected not in (None, before):
            return _answer(state, before, before, changed=False, steps=[])
        target = state.previous
        runtime = state.runtimes.get(target) if target else None
        if target is None or runtime is None:
            raise AgentError(
                NOTHING_TO_ROLL_BACK_TO,
                model,
                "no release served before " + before[:12],
                hint="deploy another release",
            )
        wanted = releases.read(call.home, target)
        releases.check_blobs(call.home, wanted)
        steps = _switch(call, state, wanted, runtime, state.history[:-1])
        return _answer(state, target, before, changed=True, steps=steps)


def recover(place: Home, model: str) -> ModelState:
    """Return the state, after finishing what a call that died left unfinished (the lock must be held).

    A target that was healthy and already serves is committed; anything else is rolled back, which needs no
    step at all because the link was not swapped.
    """
    state = states.load(place, model)
    if state.state in states.UNFINISHED:
        swapped = releases.current(place, model) == state.target
        if state.state == states.ACTIVATING and swapped:
            state.commit()
        else:
            state.roll_back("interrupted")
    return state


def _switch(call: Call, state: ModelState, wanted: Manifest, runtime: str, history: list[str]) -> list[str]:
    before = releases.current(call.home, state.model)
    steps: list[str] = []

    def reached(step: str) -> None:
        steps.append(step)
        call.answer.progress(step, model=state.model, release=wanted.release)

    try:
        state.begin(wanted.release, runtime, history)
        releases.build(call.home, wanted)
        reached(states.STAGED)
        state.verified(health.check(call.home, wanted, runtime, request.timeout_s(call.request)))
        reached(states.VERIFIED)
        state.activating()
        reached(states.ACTIVATING)
        releases.point(call.home, state.model, wanted.release)
        state.commit()
        reached(states.COMMITTED)
    except BaseException as error:
        _undo(call.home, state, before, error)
        raise
    return steps


def _undo(place: Home, state: ModelState, before: str | None, error: BaseException) -> None:
    """Go back to what served before; when the disk refuses even that, the next call's `recover` does it."""
    if state.state not in states.UNFINISHED:
        return
    if releases.current(place, state.model) != before:
        releases.point(place, state.model, before)
    problem = getattr(error, "problem", "") or str(error) or type(error).__name__
    state.roll_back("{} {}".format(getattr(error, "code", "interrupted:"), problem))


def _check_device(call: Call, wanted: Manifest) -> None:
    # What the board itself says counts; only a plain "linux" is narrowed by what the inventory calls it.
    kind = device.kind()
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
    blobs.check_space(call.home, wanted.model, 0)


def _answer(state: ModelState, release: str, before: str | None, changed: bool, steps: list[str]) -> Json:
    return {
        "model": state.model,
        "release": release,
        "previous": before if changed else state.previous,
        "changed": changed,
        "health": state.health,
        "states": steps,
    }
