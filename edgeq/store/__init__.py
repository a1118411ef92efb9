"""Local store: the workspace's records and their lineage, in one SQLite file."""

from __future__ import annotations

from edgeq.store.database import Store
from edgeq.store.records import (
    AuditRecord,
    BenchRecord,
    ExperimentRecord,
    Ingested,
    QuarantineRecord,
    ReceivedWindow,
    RefusedRecord,
    ReleaseRecord,
    RunRecord,
    WindowRecord,
)
from edgeq.store.workspace import default_workspace, recording_store

__all__ = [
    "AuditRecord",
    "BenchRecord",
    "ExperimentRecord",
    "Ingested",
    "QuarantineRecord",
    "ReceivedWindow",
    "RefusedRecord",
    "ReleaseRecord",
    "RunRecord",
    "Store",
    "WindowRecord",
    "default_workspace",
    "recording_store",
]
