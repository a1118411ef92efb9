"""The local store: SQL records with lineage in one SQLite file of the workspace."""

from __future__ import annotations

from edgeq.store.database import Store
from edgeq.store.records import (
    AuditRecord,
    BenchRecord,
    ExperimentRecord,
    Ingested,
    QuarantineRecord,
    Refused,
    ReleaseRecord,
    RunRecord,
    WindowRecord,
)

__all__ = [
    "AuditRecord",
    "BenchRecord",
    "ExperimentRecord",
    "Ingested",
    "QuarantineRecord",
    "Refused",
    "ReleaseRecord",
    "RunRecord",
    "Store",
    "WindowRecord",
]
