"""The lines of a TOML text at which its keys stand."""

from __future__ import annotations

import re

_HEADER = re.compile(r"^\s*\[{1,2}\s*([^\[\]]+?)\s*\]{1,2}")
_ASSIGNED = re.compile(r"""^\s*["']?([\w.-]+)["']?\s*=""")


def lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """Return {keys: line} of the headers and assignments of a TOML text.

    The tables of an array are numbered from 0. Keys inside of inline tables have no line of their own.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if (header := _HEADER.match(line)) is not None:
            table = tuple(part.strip().strip("\"'") for part in header.group(1).split("."))
            if line.lstrip().startswith("[["):
                lines.setdefault(table, number)
                counts[table] = counts.get(table, -1) + 1
                table = (*table, str(counts[table]))
            lines.setdefault(table, number)
        elif (assigned := _ASSIGNED.match(line)) is not None:
            lines.setdefault((*table, *assigned.group(1).split(".")), number)
    return lines
