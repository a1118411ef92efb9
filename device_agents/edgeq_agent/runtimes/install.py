"""Puts a runtime that was built and proved into its place; what was there before stays usable until then."""

from __future__ import annotations

import os

from edgeq_agent.runtimes import registry
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


def place(home: Home, digest: str, folder: str, entry: Json, parts: list[str]) -> None:
    """Move what is in `folder` to `runtime/<digest>/`, and let `entry` be its record.

    Where a record is there already, something may be served by what it names, and that it did not prove
    itself may have been a busy moment: the new parts get names of their own beside the old ones, the record
    is replaced in one step, and only then the old parts go.

    Args:
        parts: names in `folder`; where `entry["interpreter"]` begins with one, it follows its new name.
    """
    target = home.runtime(digest)
    if not os.path.exists(os.path.join(target, registry.RECORD)):
        files.write_json(os.path.join(folder, registry.RECORD), entry, durable=False)
        # Hundreds of files: one sync of everything is quicker than one each.
        disk.sync_all()
        scratch.remove(target)
        disk.replace(folder, target)
        disk.sync_folder(home.runtimes)
        return
    disk.sync_all()
    named = {part: _free(target, part) for part in parts}
    for part, name in named.items():
        disk.replace(os.path.join(folder, part), os.path.join(target, name))
    disk.sync_folder(target)
    first, slash, rest = str(entry["interpreter"]).partition("/")
    files.write_json(
        os.path.join(target, registry.RECORD), dict(entry, interpreter=named.get(first, first) + slash + rest)
    )
    for name in sorted(os.listdir(target)):
        if name != registry.RECORD and name not in named.values():
            scratch.remove(os.path.join(target, name))


def _free(folder: str, name: str) -> str:
    """Return the first of `name`, `name-1`, `name-2`... that is not taken."""
    number, found = 0, name
    while os.path.lexists(os.path.join(folder, found)):
        number += 1
        found = f"{name}-{number}"
    return found
