"""Write and remove the autostart's files and links; those of /etc/systemd/system with root's rights.

Each file is replaced atomically and synced before the link that activates it.
"""

from __future__ import annotations

import json
import os
import re
import sys

from edgeq_agent.autostart import command
from edgeq_agent.autostart.record import Artifacts
from edgeq_agent.autostart.unit_files import SYSTEM_UNITS
from edgeq_agent.errors import BAD_REQUEST, SERVICE_IMPOSSIBLE, AgentError, from_os
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.wire import Json, canonical

_OURS = re.compile(
    re.escape(SYSTEM_UNITS) + r"/(multi-user\.target\.wants/)?edgeq(-[0-9a-f]{8})?(-serve)?\.service"
)


def install(artifacts: Artifacts) -> None:
    """Write the files and links of an autostart.

    Raises:
        AgentError: EQ558, the system's unit folder cannot be written.
    """
    write(_select(artifacts, system=False))
    system = _select(artifacts, system=True)
    if system.files or system.links:
        _run_as_root(system, [])


def remove(paths: list[str]) -> None:
    """Remove files and links, if they exist; links first, so that none dangles.

    Raises:
        AgentError: EQ558, the system's unit folder cannot be written.
    """
    existing = [path for path in paths if os.path.lexists(path)]
    existing.sort(key=lambda path: not os.path.islink(path))
    _unlink([path for path in existing if not _is_system(path)])
    system = [path for path in existing if _is_system(path)]
    if system:
        _run_as_root(Artifacts(), system)


def _select(artifacts: Artifacts, system: bool) -> Artifacts:
    return Artifacts(
        files=tuple(entry for entry in artifacts.files if _is_system(entry[0]) is system),
        links=tuple(entry for entry in artifacts.links if _is_system(entry[0]) is system),
    )


def _is_system(path: str) -> bool:
    return path.startswith(SYSTEM_UNITS + "/")


def write(artifacts: Artifacts) -> None:
    """Write files and links as this user; those that are there already stay untouched."""
    for path, text, mode in artifacts.files:
        data = text.encode("utf-8")
        if _content(path) == data and os.stat(path).st_mode & 0o777 == mode:
            continue
        disk.make_folders(os.path.dirname(path))
        scratch.sweep_beside(os.path.dirname(path), "-" + os.path.basename(path))
        files.write_atomic(path, data, mode=mode)
    for path, target in artifacts.links:
        if not os.path.islink(path) or os.readlink(path) != target:
            disk.make_folders(os.path.dirname(path))
            files.replace_link(path, target)


def _unlink(paths: list[str]) -> None:
    for path in paths:
        disk.unlink(path)
    for folder in sorted({os.path.dirname(path) for path in paths}):
        disk.sync_folder(folder)


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


def _run_as_root(artifacts: Artifacts, removed: list[str]) -> None:
    if os.getuid() == 0:
        execute(artifacts, removed)
        return
    run = command.python("from edgeq_agent.autostart.installer import as_root; as_root()")
    order = {"files": artifacts.files, "links": artifacts.links, "remove": removed}
    output = command.run(["sudo", "-n", *run], canonical(order) + b"\n")
    if output.status != 0:
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            SYSTEM_UNITS,
            f"cannot be written: {output.last_line}",
            expected="root, or sudo without a password",
            hint="use `--kind systemd-user`, or allow sudo without a password",
        )


def as_root() -> None:
    """Execute the order that this program wrote to standard input as another user.

    Only the paths of edgeq's own units are accepted.
    """
    os.umask(0o022)
    try:
        execute(*parse_order(json.loads(sys.stdin.buffer.read().decode("utf-8"))))
    except OSError as error:
        known = from_os(error)
        sys.exit(known.problem if known else str(error))
    except AgentError as error:
        sys.exit(f"{error.subject}: {error.problem}")


def parse_order(order: Json) -> tuple[Artifacts, list[str]]:
    """Return (what to write, what to remove); every unit is readable by all and written by root only."""
    artifacts = Artifacts(
        files=tuple((str(path), str(text), 0o644) for path, text, _ in order.get("files", ())),
        links=tuple((str(path), str(target)) for path, target in order.get("links", ())),
    )
    return artifacts, [str(path) for path in order.get("remove", ())]


def execute(artifacts: Artifacts, removed: list[str]) -> None:
    """Write and remove units of the system.

    Raises:
        AgentError: EQ512, a path is not one of edgeq's own units; nothing was written.
    """
    paths = [path for path, _, _ in artifacts.files] + removed
    paths += [path for link in artifacts.links for path in link]
    for path in paths:
        if not _OURS.fullmatch(path):
            raise AgentError(BAD_REQUEST, path, "is not a unit of edgeq")
    write(artifacts)
    if removed:
        _unlink(removed)
