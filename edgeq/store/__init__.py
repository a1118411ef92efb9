"""Local store: the workspace's records and their lineage, in one SQLite file."""

from __future__ import annotations

from edgeq.store.database import Store
from edgeq.store.records import (
    AuditRecord,
    BenchRecord,
    ExperimentRecord,
    Ingested,
    QuarantineRecord,
    Readmitted,
    ReceivedWindow,
    RefusedRecord,
    ReleaseRecord,
    RunRecord,
    WindowRecord,
)
from edgeq.store.workspace import UNRECORDED, Recorder, default_workspace, recording_store

__all__ = [
    "UNRECORDED",
    "AuditRecord",
    "BenchRecord",
    "ExperimentRecord",
    "Ingested",
    "QuarantineRecord",
    "Readmitted",
    "ReceivedWindow",
    "Recorder",
    "RefusedRecord",
    "ReleaseRecord",
    "RunRecord",
    "Store",
    "WindowRecord",
    "default_workspace",
    "recording_store",
]
