"""Keys of the commands' JSON documents, as the table of docs/json-output.md lists them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json-output.md"
ROW = re.compile(
    r"^\| `(?P<schema>edgeq\.[a-z.-]+/\d+)` \| (?P<command>[^|]+) \| (?P<keys>[^|]+) \|[^|]*\|$", re.M
)
KEY = re.compile(r"(?P<open>\()?`(?P<name>\w+)`")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys at the top of one document."""

    always: frozenset[str]
    sometimes: frozenset[str]

    def difference(self, document: Collection[str]) -> list[str]:
        """Return what is undocumented in a document, and what it lacks."""
        keys = set(document) - {"schema"}
        undocumented = sorted(keys - self.always - self.sometimes)
        missing = sorted(self.always - keys)
        return [f"`{key}` is not documented" for key in undocumented] + [
            f"`{key}` is missing" for key in missing
        ]


def parse(page: str) -> dict[str, Keys]:
    """Return the documented keys by schema."""
    table = {}
    for row in ROW.finditer(page):
        keys = [(match["name"], match["open"] is not None) for match in KEY.finditer(row["keys"])]
        table[row["schema"]] = Keys(
            always=frozenset(name for name, optional in keys if not optional),
            sometimes=frozenset(name for name, optional in keys if optional),
        )
    return table


@cache
def documented() -> dict[str, Keys]:
    """Return the table of the page."""
    return parse(PAGE.read_text(encoding="utf-8").partition("## Files and the wire")[0])
