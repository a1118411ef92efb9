"""Verb `infer`: run samples through the active release, and store their telemetry in the outbox."""

from __future__ import annotations

import sqlite3

from edgeq_agent.activation import active_release
from edgeq_agent.blobs import blob_store
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import AgentError, from_os, one_line
from edgeq_agent.inference.job import InferOptions
from edgeq_agent.storage import disk, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import outbox
from edgeq_agent.telemetry.window import WindowError, parse_unnumbered
from edgeq_agent.wire import Json

_MAX_PAYLOAD_BYTES = 1 << 32


def infer(call: Call) -> Json:
    """Verb `infer`: the payload is an .npz with `input_0`, `input_1`, ...; samples are the first axis.

    An array `sequence_id` gives the sequence of each sample; the flag `sequence` makes all samples one
    sequence.

    Raises:
        AgentError: EQ510 unknown model, EQ512 the payload is not valid or does not fit the model, EQ511 at
            the deadline, EQ504 the model's process died, EQ501 the payload does not fit on the device, EQ559
            the runtime gives no outputs.
    """
    fields = call.fields
    model = fields.model_name()
    size_bytes = fields.integer("payload_bytes", 1, _MAX_PAYLOAD_BYTES)
    options = InferOptions(
        window=fields.integer("window", 1, 1000000, default=50),
        outputs=fields.flag("outputs"),
        threads=fields.integer("threads", 1, 256, default=1),
        sequence=fields.flag("sequence"),
    )
    timeout_s = fields.timeout_s()
    active = active_release.find(call.home, model)
    active.backend.require_outputs(model)
    path = scratch.path(call.home, "infer.npz")
    scratch.sweep(call.home)
    blob_store.check_space(call.home, "payload", size_bytes)
    try:
        with disk.create(path) as target:
            for chunk in blob_store.payload(call.payload, size_bytes, "of infer"):
                target.write(chunk)
        windows = _WindowStore(call.home, model, active.manifest.release)
        result = active.infer(options, path, timeout_s, windows.take)
    finally:
        scratch.remove(path)
    body = result.to_json()
    body.update(model=model, release=active.manifest.release, windows=windows.count)
    if windows.problems:
        body["telemetry_problem"] = windows.problems[-1]
    return body


class _WindowStore:
    """Stores the child's telemetry windows in the outbox; a full disk loses telemetry, not the result."""

    def __init__(self, home: Home, model: str, release: str) -> None:
        self._home = home
        self._model = model
        self._release = release
        self.count = 0
        self.problems: list[str] = []

    def take(self, message: Json) -> None:
        """Store the window of a `window` event."""
        if message["event"] != "window":
            return
        try:
            with outbox.opened(self._home) as box:
                box.append(self._model, self._release, parse_unnumbered(message["window"]))
            self.count += 1
        except (sqlite3.Error, OSError, AgentError, WindowError) as error:
            # Reported in the result: the caller asked for predictions, and those are there.
            known = from_os(error)
            self.problems.append(f"a window was not stored: {one_line(known) if known else error}")
