"""Records of the store as frozen values, and the JSON text of their bodies.

A body is the JSON document that a step or a device produced. The store keeps it as it is and reads only the
keys that it indexes. The packages above the store know the documents and parse them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_agent.telemetry import window
from edgeq_agent.telemetry.window import Window
from edgeq_agent.wire import MAX_DEPTH

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One finished step: a conversion, an evaluation, a bundle, a deployment.

    Attributes:
        kind: `convert`, `evaluate`, `select`, `bundle`, `deploy`, `demo`, ...
        subject: what the step worked on: a file, a model or a device.
    """

    id: int
    kind: str
    subject: str
    created_ns: int
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """A release: its id, its manifest, and the drift reference of its bundle."""

    release: str
    created_ns: int
    manifest: Body
    reference: Body | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRecord:
    """One telemetry window. (device_id, boot, seq) is unique in the store.

    Attributes:
        device: the device's name in the inventory when the window was collected.
        device_id: the device's own id.
        sha256: digest of the window's JSON text as the store keeps it.
    """

    id: int
    device: str
    device_id: str
    window: Window
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRecord:
    """One benchmark of a model on a device, as the agent measured it."""

    id: int
    device: str
    model: str
    release: str
    created_ns: int
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """One event of an experiment: what happened, when, and who caused it."""

    id: int
    experiment: str
    event: str
    at_ns: int
    actor: str
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One entry of the audit log: who did what to which subject.

    Attributes:
        host: the machine that it was done from.
        command: the command line, without secrets.
        result: `started` before a change; after it `done`, or why it failed.
        previous, sha256: the hash of the entry before, and of this one; None from before there was a chain.
    """

    id: int
    at_ns: int
    actor: str
    action: str
    subject: str
    body: Body
    host: str | None = None
    command: str | None = None
    result: str | None = None
    previous: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedWindow:
    """A valid telemetry window on its way into the store.

    Attributes:
        body: the JSON value as the device sent it. The store keeps it whole, so that fields which only a
            newer edgeq knows are not lost.
    """

    window: Window
    body: Body

    @classmethod
    def parse(cls, body: Any) -> ReceivedWindow:
        """Return the window of a JSON value.

        Raises:
            WindowError: it is not a valid `edgeq.window/1`.
        """
        if _deeper_than(body, MAX_DEPTH):
            raise window.WindowError("window", f"at most {MAX_DEPTH} levels of nesting", "more")
        return cls(window=window.parse(body), body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRecord:
    """A telemetry record that failed the validation, with the reason. The store quarantines it."""

    reason: str
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineRecord:
    """A quarantined telemetry record."""

    id: int
    device: str
    reason: str
    received_ns: int
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """Counts of one ingestion.

    Attributes:
        new: windows added to the store.
        duplicates: windows that the store already had.
        quarantined: records added to the quarantine.
    """

    new: int
    duplicates: int
    quarantined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmitted:
    """The outcome of a quarantined record that is valid now.

    Attributes:
        stored: it left the quarantine: the store has it. False: the store has other content under its number.
    """

    record: QuarantineRecord
    stored: bool


def _deeper_than(value: Any, most: int) -> bool:
    level = _containers([value])
    for _ in range(most):
        level = [
            inner
            for each in level
            for inner in _containers(each.values() if isinstance(each, Mapping) else each)
        ]
        if not level:
            return False
    return True


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (Mapping, list, tuple))]


def to_text(body: Any) -> str:
    """Return a body as JSON text: sorted keys, no spaces, ASCII.

    NaN and infinities become null, because JSON has neither. ASCII, because a broken device may send a lone
    surrogate, which UTF-8 cannot encode. What is nested too deep to be read again becomes a note.
    """
    return json.dumps(_plain(body), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_text(text: str) -> Any:
    """Return the body that `to_text` wrote."""
    return json.loads(text)


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > 2 * MAX_DEPTH:
        return "(nested too deep to be stored)"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value
