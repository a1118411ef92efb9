"""The frozen values that the store takes and gives, and how their JSON bodies become text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One finished step of the way of the data: a conversion, an evaluation, a bundle, a deployment.

    Attributes:
        kind: which step: `convert`, `evaluate`, `select`, `bundle`, `deploy`, `demo`, ...
        subject: what the step was about: a file, a model, a device.
    """

    id: int
    kind: str
    subject: str
    created_ns: int
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """What a release id stands for: its manifest, and the drift reference of its bundle."""

    release: str
    created_ns: int
    manifest: Body
    reference: Body | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRecord:
    """One telemetry window; (device_id, boot, seq) is unique in the store."""

    id: int
    device: str
    device_id: str
    boot: str
    seq: int
    model: str
    release: str
    started_ns: int
    ended_ns: int
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRecord:
    """One benchmark on one device, as the agent measured it."""

    id: int
    device: str
    model: str
    release: str
    created_ns: int
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """One event of an experiment: what happened, when, and at whose word."""

    id: int
    experiment: str
    event: str
    at_ns: int
    actor: str
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Who did what to which subject."""

    id: int
    at_ns: int
    actor: str
    action: str
    subject: str
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A telemetry record that cannot be used, and why; it is kept aside, not lost."""

    reason: str
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineRecord:
    """A refused telemetry record as the store keeps it."""

    id: int
    device: str
    reason: str
    received_ns: int
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What one ingestion changed.

    Attributes:
        new: windows that were not in the store.
        duplicates: windows that were there already, and were left alone.
        quarantined: records newly put aside.
    """

    new: int
    duplicates: int
    quarantined: int = 0


def to_text(body: Any) -> str:
    """Return a body as JSON text.

    Figures that are not finite become null, since JSON has none. ASCII only: a broken device may send
    half a surrogate pair, which no UTF-8 database takes.
    """
    return json.dumps(_plain(body), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_text(text: str) -> Any:
    """Return the body of a JSON text."""
    return json.loads(text)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value
