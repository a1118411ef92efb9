"""Verb `infer`: samples through the serving release, and their telemetry into the outbox."""

from __future__ import annotations

import sqlite3

from edgeq_agent.activation import active_release, counters
from edgeq_agent.blobs import blob_store
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import DEADLINE, UNHEALTHY, AgentError
from edgeq_agent.inference import model_process
from edgeq_agent.runtimes import native
from edgeq_agent.storage import disk, scratch
from edgeq_agent.telemetry import outbox
from edgeq_agent.telemetry.window import WindowError, parse_unnumbered
from edgeq_agent.wire import Json


def infer(call: Call) -> Json:
    """Verb `infer`: the payload is an .npz with `input_0`.., samples first.

    Raises:
        AgentError: EQ510 unknown model, EQ512 the payload is none or does not fit the model, EQ511 it hangs,
            EQ504 the model's process died, EQ501 the payload does not fit on the device.
    """
    model = request.model_name(call.request)
    size_bytes = request.integer(call.request, "payload_bytes", 1, 1 << 32)
    job: Json = {
        "window": request.integer(call.request, "window", 1, 1000000, default=50),
        "outputs": request.flag(call.request, "outputs", False),
        "threads": request.integer(call.request, "threads", 1, 256, default=1),
    }
    timeout_s = request.timeout_s(call.request)
    serves = active_release.find(call.home, model)
    native.refuse_answers(serves.runtime, model)
    path = scratch.path(call.home, "infer.npz")
    scratch.sweep(call.home)
    blob_store.check_space(call.home, "payload", size_bytes)
    try:
        with disk.create(path) as target:
            for chunk in blob_store.payload(call.payload, size_bytes, "of infer"):
                target.write(chunk)
        job.update(serves.job("infer"), payload_path=path)
        with outbox.opened(call.home) as box:
            stored = _Windows(box, model, serves.manifest.release)
            result = _run(serves, job, timeout_s, stored)
    finally:
        scratch.remove(path)
    result.update(model=model, release=serves.manifest.release, windows=stored.count)
    if stored.problems:
        result["telemetry_problem"] = stored.problems[-1]
    return result


def _run(serves: active_release.Serving, job: Json, timeout_s: float, stored: _Windows) -> Json:
    """Run the job; a release on trial has its calls and failures counted."""
    try:
        result = model_process.run(str(serves.runtime["interpreter"]), job, timeout_s, stored.take)
    except AgentError as error:
        if serves.on_trial and error.code in (UNHEALTHY, DEADLINE):
            late = int(error.code == DEADLINE)
            _count(serves, calls=1, deadline_misses=late, crashes=1 - late)
        raise
    if serves.on_trial:
        # Inputs that are not finite are the caller's fault, not the release's.
        failed = sum(count for kind, count in result["errors"].items() if kind != "input_not_finite")
        _count(serves, calls=int(result["samples"]), errors=failed)
    return result


def _count(serves: active_release.Serving, **counts: int) -> None:
    counters.add(serves.home, serves.manifest.model, serves.manifest.release, **counts)


class _Windows:
    """Puts the child's windows into the outbox; a full disk costs telemetry, never the answer."""

    def __init__(self, box: outbox.Outbox, model: str, release: str) -> None:
        self._box = box
        self._model = model
        self._release = release
        self.count = 0
        self.problems: list[str] = []

    def take(self, message: Json) -> None:
        if message["event"] != "window":
            return
        try:
            self._box.append(self._model, self._release, parse_unnumbered(message["window"]))
            self.count += 1
        except (sqlite3.DatabaseError, WindowError) as error:
            # Told in the result: the caller asked for predictions, and those are there.
            self.problems.append(f"a window was not stored: {error}")
