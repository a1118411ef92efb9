"""Recording of the Python API: in the caller's store, in that of the current workspace, or nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from edgeq.store.database import Store


class Recorder(Protocol):
    """Keeps the records of an operation; a `Store` is one."""

    def record_run(self, kind: str, subject: str, body: Mapping[str, Any]) -> object:
        """Record a finished run."""

    def put_release(
        self, release: str, manifest: Mapping[str, Any], reference: Mapping[str, Any] | None
    ) -> object:
        """Record a release."""


class _NoRecords:
    """Keeps no record."""

    def record_run(self, kind: str, subject: str, body: Mapping[str, Any]) -> None:
        """Return without a record."""

    def put_release(
        self, release: str, manifest: Mapping[str, Any], reference: Mapping[str, Any] | None
    ) -> None:
        """Return without a record."""


UNRECORDED: Final[Recorder] = _NoRecords()
"""The `store` of a caller that keeps its own record of an operation."""

R = TypeVar("R", bound=Recorder)


def default_workspace() -> Path:
    """Return the workspace of this process: `EDGEQ_WORKSPACE`, else the current folder."""
    return Path(os.environ.get("EDGEQ_WORKSPACE") or ".")


@contextmanager
def recording_store(store: R | None, workspace: Path | None = None) -> Iterator[R | Store]:
    """Yield `store`; without one, open that of `workspace` (else the default one) and close it afterwards.

    Raises:
        StoreError: the workspace's store cannot be opened.
    """
    if store is not None:
        yield store
        return
    with Store.open(workspace or default_workspace()) as opened:
        yield opened
