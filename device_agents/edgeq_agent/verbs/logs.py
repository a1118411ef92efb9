"""Verb `logs`: the newest entries of the journal, of the boot service's log and of the crash log."""

from __future__ import annotations

import json

from edgeq_agent.autostart import service_log
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import AgentError, one_line
from edgeq_agent.storage import clock, log_file
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SOURCES = ("journal", "service", "crash")
MOST_LINES = 5000
_MOST_CHARACTERS = 1024 * 1024
_LATEST_NS = 2**63 - 1
_ABOUT_THE_ENTRY = ("event", "time_ns", "boot_id")


def logs(call: Call) -> Json:
    """Verb `logs`: return entries, oldest first, and the cursors after them; changes nothing.

    `since_s` and `since_ns` limit their age, `cursors` of an earlier response leave out what it had.
    """
    fields = call.fields
    lines = fields.integer("lines", 1, MOST_LINES, 200)
    since_ns = fields.integer("since_ns", 0, _LATEST_NS, 0)
    age_s = fields.number("since_s", 0)
    if age_s:
        since_ns = max(since_ns, int(clock.wall_ns() - min(age_s, 1e9) * 1e9))
    sources = fields.list_of("sources", lambda item, name: item.one_of(name, SOURCES)) or SOURCES
    before = fields.optional_object("cursors")
    entries: list[Json] = []
    cursors: Json = {}
    problems: list[str] = []
    for source in SOURCES:
        if source not in sources:
            continue
        cursor = before.raw(source)
        cursor = cursor if isinstance(cursor, str) else ""
        try:
            part = _read(call.home, source, lines, since_ns, cursor)
        except AgentError as error:
            part = service_log.ServiceLog([], cursor, one_line(error))
        except (OSError, ValueError) as error:
            part = service_log.ServiceLog([], cursor, str(error))
        cursors[source] = part.cursor
        problems += [f"{source}: {part.problem}"] if part.problem else []
        entries += [
            {"source": source, "time_ns": time_ns, "text": text[: log_file.LONGEST_TEXT]}
            for time_ns, text in map(_of, part.entries)
            if text and time_ns >= since_ns
        ]
    entries.sort(key=lambda entry: int(entry["time_ns"]))
    kept = _newest(entries, lines)
    return {
        "entries": kept,
        "cursors": cursors,
        "problems": problems,
        "omitted": len(entries) - len(kept),
    }


def _read(home: Home, source: str, lines: int, since_ns: int, cursor: str) -> service_log.ServiceLog:
    if source == "service":
        return service_log.read(home, lines, since_ns, cursor)
    part = log_file.read(home.journal if source == "journal" else home.crash_log, cursor)
    return service_log.ServiceLog([_decoded(line) for line in part.lines], part.cursor)


def _newest(entries: list[Json], lines: int) -> list[Json]:
    kept: list[Json] = []
    characters = 0
    for entry in reversed(entries[-lines:]):
        characters += len(entry["text"])
        if characters > _MOST_CHARACTERS:
            break
        kept.append(entry)
    return kept[::-1]


def _decoded(line: bytes) -> Json:
    try:
        value = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _of(entry: Json) -> tuple[int, str]:
    """Return the time of an entry and its text; that of the journal is its event and its details."""
    time_ns = entry.get("time_ns")
    known = isinstance(time_ns, int) and not isinstance(time_ns, bool) and 0 <= time_ns <= _LATEST_NS
    text = entry.get("text")
    if not isinstance(text, str):
        details = [f"{key}={_shown(value)}" for key, value in entry.items() if key not in _ABOUT_THE_ENTRY]
        text = " ".join([str(entry.get("event", "")), *details]).strip()
    # A text of a damaged file may hold halves of characters, which no response can contain.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return (int(time_ns) if known and time_ns is not None else 0), text


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
