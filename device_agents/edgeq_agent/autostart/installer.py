"""Puts the files and links of a start where they belong, or takes them away; the system's with root's rights.

Each file is replaced in one step and is durable before the link that makes it count.
"""

from __future__ import annotations

import json
import os
import re
import sys

from edgeq_agent.autostart import command
from edgeq_agent.autostart.record import Installed
from edgeq_agent.autostart.unit_files import SYSTEM_UNITS
from edgeq_agent.errors import BAD_REQUEST, SERVICE_IMPOSSIBLE, AgentError, from_os
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.wire import Json, canonical

_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = (
    "import sys; sys.path.insert(0, {!r}); from edgeq_agent.autostart.installer import as_root; as_root()"
)
_OURS = re.compile(
    re.escape(SYSTEM_UNITS) + r"/(multi-user\.target\.wants/)?edgeq(-[0-9a-f]{8})?(-serve)?\.service"
)


def put(made: Installed) -> None:
    """Write what makes a start.

    Raises:
        AgentError: EQ558, the system's own folder cannot be written.
    """
    mine, roots = _parted(made)
    _put(mine)
    if roots.files or roots.links:
        _with_rights({"files": roots.files, "links": roots.links})


def take(paths: list[str]) -> None:
    """Remove files and links that may be gone already; links first, so that nothing points to nothing.

    Raises:
        AgentError: EQ558, the system's own folder cannot be written.
    """
    there = [path for path in paths if os.path.lexists(path)]
    there.sort(key=lambda path: not os.path.islink(path))
    _take([path for path in there if not _is_roots(path)])
    roots = [path for path in there if _is_roots(path)]
    if roots:
        _with_rights({"take": roots})


def _parted(made: Installed) -> tuple[Installed, Installed]:
    def part(roots: bool) -> Installed:
        return Installed(
            files=tuple(entry for entry in made.files if _is_roots(entry[0]) is roots),
            links=tuple(entry for entry in made.links if _is_roots(entry[0]) is roots),
        )

    return part(False), part(True)


def _is_roots(path: str) -> bool:
    return path.startswith(SYSTEM_UNITS + "/")


def _put(made: Installed) -> None:
    for path, text, mode in made.files:
        data = text.encode("utf-8")
        if _content(path) == data and os.stat(path).st_mode & 0o777 == mode:
            continue
        disk.make_folders(os.path.dirname(path))
        scratch.sweep_beside(os.path.dirname(path), "-" + os.path.basename(path))
        files.write_atomic(path, data, mode=mode)
    for path, target in made.links:
        if not os.path.islink(path) or os.readlink(path) != target:
            disk.make_folders(os.path.dirname(path))
            files.replace_link(path, target)


def _take(paths: list[str]) -> None:
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


def _with_rights(order: Json) -> None:
    if os.getuid() == 0:
        _obey(order)
        return
    argv = ["sudo", "-n", sys.executable, "-I", "-c", _START.format(_CODE)]
    said = command.run(argv, canonical(order) + b"\n")
    if said.status != 0:
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            SYSTEM_UNITS,
            f"cannot be written: {said.line}",
            expected="root, or sudo without a password",
            hint="use `--kind systemd-user`, or let sudo run without a password",
        )


def as_root() -> None:
    """Do an order of the same program under another user: our own units, and nothing else."""
    os.umask(0o022)
    try:
        _obey(json.loads(sys.stdin.buffer.read().decode("utf-8")))
    except OSError as error:
        known = from_os(error)
        sys.exit(known.problem if known else str(error))
    except AgentError as error:
        sys.exit(f"{error.subject}: {error.problem}")


def _obey(order: Json) -> None:
    made = Installed(
        files=tuple((str(path), str(text), 0o644) for path, text, _ in order.get("files", ())),
        links=tuple((str(path), str(target)) for path, target in order.get("links", ())),
    )
    gone = [str(path) for path in order.get("take", ())]
    named = [entry[0] for entry in made.files] + gone
    named += [path for link in made.links for path in link]
    for path in named:
        if not _OURS.fullmatch(path):
            raise AgentError(BAD_REQUEST, path, "is no unit of edgeq's")
    _put(made)
    if gone:
        _take(gone)
