"""Publisher of the lab's releases: one key, which every device of the lab receives at enrolment."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeq.bundle.keys import SigningKey, workspace_key

_FOLDER = tempfile.TemporaryDirectory(prefix="edgeq-lab-publisher-")


def folder() -> Path:
    """Return a workspace that has the key."""
    workspace_key(Path(_FOLDER.name))
    return Path(_FOLDER.name)


def key() -> SigningKey:
    """Return the key."""
    return workspace_key(folder())
