"""The log of the boot service: systemd's journal, or the supervisor's own file where there is no systemd."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from edgeq_agent.autostart import command, kinds, record
from edgeq_agent.platforms.base import SYSTEMD_USER
from edgeq_agent.storage import log_file
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

_TIMEOUT_S = 20.0


class ServiceLog(NamedTuple):
    """Entries of the service's log, oldest first; `problem` says why there are none, or is ""."""

    entries: list[Json]
    cursor: str
    problem: str = ""


def path(home: Home) -> str:
    """Return the path of the supervisor's log."""
    return os.path.join(record.folder(home.root), "serve.log")


def read(home: Home, lines: int, since_ns: int, cursor: str) -> ServiceLog:
    """Return at most `lines` of the newest entries.

    Raises:
        ValueError: the supervisor's log is not a file that this user can read.
    """
    installed = record.read(home)
    if installed is not None and installed.kind in kinds.SYSTEMD:
        return _journald(installed.kind, list(installed.units), lines, since_ns, cursor)
    part = log_file.read(path(home), cursor)
    return ServiceLog([_decoded(line) for line in part.lines], part.cursor)


def _journald(kind: str, units: list[str], lines: int, since_ns: int, cursor: str) -> ServiceLog:
    argv = ["journalctl", "--no-pager", "-q", "-o", "json", "-n", str(lines)]
    if kind == SYSTEMD_USER:
        argv.append("--user")
    for unit in units:
        argv += ["-u", unit]
    if cursor:
        argv += ["--after-cursor", cursor]
    elif since_ns:
        argv += ["--since", f"@{since_ns // 1_000_000_000}"]
    output = command.run(argv, timeout_s=_TIMEOUT_S)
    if output.status != 0:
        return ServiceLog([], cursor, f"journalctl: {output.last_line}")
    entries = [_decoded(line.encode()) for line in output.text.splitlines()]
    read_to = [str(entry["__CURSOR"]) for entry in entries if "__CURSOR" in entry]
    return ServiceLog([_of_journald(entry) for entry in entries], read_to[-1] if read_to else cursor)


def _of_journald(entry: Json) -> Json:
    message: Any = entry.get("MESSAGE")
    if isinstance(message, list):  # bytes that are not UTF-8
        message = bytes(one for one in message if isinstance(one, int) and 0 <= one < 256).decode(
            "utf-8", "replace"
        )
    time_us = str(entry.get("__REALTIME_TIMESTAMP", ""))
    return {"time_ns": int(time_us) * 1000 if time_us.isdecimal() else 0, "text": str(message or "")}


def _decoded(line: bytes) -> Json:
    try:
        value = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
