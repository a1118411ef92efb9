"""Half-made things: named by the process that makes them, swept once that process is gone."""

from __future__ import annotations

import os

from edgeq_agent.storage import disk, process_token
from edgeq_agent.storage.home import Home


def path(home: Home, name: str) -> str:
    """Return a path of this process's own for something half-made."""
    return os.path.join(home.temporary, f"{process_token.token()}-{name}")


def remove(target: str) -> None:
    """Remove a file or a folder that may be gone already."""
    try:
        if os.path.isdir(target) and not os.path.islink(target):
            disk.remove_tree(target)
        else:
            disk.unlink(target)
    except OSError:
        # Gone already; or the disk refuses, and then what led here matters more: the next call sweeps again.
        return


def sweep(home: Home) -> None:
    """Remove what calls that died left behind; what a running call makes stays."""
    for name in os.listdir(home.temporary):
        if not process_token.alive(name.lstrip(".").partition("-")[0]):
            remove(os.path.join(home.temporary, name))
    for folder in [home.root, home.path("service"), *(home.model(name) for name in os.listdir(home.models))]:
        if os.path.isdir(folder):
            sweep_beside(folder)


def sweep_beside(folder: str, ending: str = "") -> None:
    """Remove what dead calls left in a folder beside what they were to replace (names with that ending)."""
    for name in os.listdir(folder):
        maker = beside_maker(name)
        if maker is not None and name.endswith(ending) and not process_token.alive(maker):
            remove(os.path.join(folder, name))


def beside(target: str) -> str:
    """Return a path of this process's own for what will replace `target`, in the same folder."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{process_token.token()}-{name}")


def beside_maker(name: str) -> str | None:
    """Return whose `beside` name this is, or None when it is no such name."""
    head, dash, _ = name.partition("-")
    return head[1:] if dash and head.startswith(".") and head[1:2].isdigit() else None
