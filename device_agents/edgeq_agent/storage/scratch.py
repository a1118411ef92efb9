"""Temporary files, named after the process that writes them and removed once that process has ended."""

from __future__ import annotations

import os

from edgeq_agent.storage import disk, process_token
from edgeq_agent.storage.home import Home


def path(home: Home, name: str) -> str:
    """Return a path that no other process uses, for an unfinished file or folder."""
    return os.path.join(home.temporary, f"{process_token.token()}-{name}")


def remove(target: str) -> None:
    """Remove a file or a folder, if it exists."""
    try:
        if os.path.isdir(target) and not os.path.islink(target):
            disk.remove_tree(target)
        else:
            disk.unlink(target)
    except OSError:
        # It does not exist, or the disk refuses: the first error matters more, and the next call sweeps.
        return


def sweep(home: Home) -> None:
    """Remove what calls that died left behind; the files of running calls stay."""
    for name in os.listdir(home.temporary):
        if not process_token.alive(name.lstrip(".").partition("-")[0]):
            remove(os.path.join(home.temporary, name))
    for folder in [home.root, home.path("service"), *(home.model(name) for name in home.model_names())]:
        if os.path.isdir(folder):
            sweep_beside(folder)


def sweep_beside(folder: str, ending: str = "") -> None:
    """Remove what dead calls left beside the files they were replacing, if its name has the ending."""
    for name in os.listdir(folder):
        owner = beside_owner(name)
        if owner is not None and name.endswith(ending) and not process_token.alive(owner):
            remove(os.path.join(folder, name))


def beside(target: str) -> str:
    """Return a path in the same folder, unique to this process, for the file that replaces `target`."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{process_token.token()}-{name}")


def beside_owner(name: str) -> str | None:
    """Return the token of the process that made a `beside` name; None for any other name."""
    head, dash, _ = name.partition("-")
    return head[1:] if dash and head.startswith(".") and head[1:2].isdigit() else None
