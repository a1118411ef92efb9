"""Default store of the Python API: the caller's, or that of the current workspace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeq.store.database import Store


def default_workspace() -> Path:
    """Return the workspace of this process: `EDGEQ_WORKSPACE`, else the current folder."""
    return Path(os.environ.get("EDGEQ_WORKSPACE") or ".")


@contextmanager
def recording_store(store: Store | None, workspace: Path | None = None) -> Iterator[Store]:
    """Yield `store`, or open the store of `workspace` (else of the default one) and close it afterwards.

    Raises:
        StoreError: the workspace's store cannot be opened.
    """
    if store is not None:
        yield store
        return
    with Store.open(workspace or default_workspace()) as opened:
        yield opened
