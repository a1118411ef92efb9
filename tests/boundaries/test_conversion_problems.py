"""Guard on docs/conversion-problems.md: it has every code of a conversion, and quotes real messages."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from edgeq_converters.errors import CODES

NOT_OF_CONVERSIONS = {
    # No more specific code applies.
    *("EQ200", "EQ300"),
    # Of `evaluate`, `reproduce`, `edgetpu` and `bundle`.
    *("EQ312", "EQ313", "EQ324", "EQ325", "EQ335"),
}
SHORTEST = 6
"""Characters of a quoted part that is looked for."""


def text_of(root: Path) -> str:
    return (root / "docs" / "conversion-problems.md").read_text(encoding="utf-8")


def quoted(text: str) -> list[str]:
    """Return the messages of the first column of all tables, and those that head a list item."""
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| EQ")]
    items = re.findall(r"^- \*\*(`[^`]+`)", text, re.MULTILINE)
    return [message for cell in (*cells, *items) for message in re.findall(r"`([^`]+)`", cell)]


@cache
def strings(root: Path) -> tuple[str, ...]:
    """Return the texts of all string literals of the sources; a placeholder becomes a line end."""
    texts: list[str] = []
    for folder in ("converters", "edgeq"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else "\n"
                        for each in node.values
                    ]
                    texts.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return tuple(each.replace("`", "") for each in texts)


def unknown(message: str, known: tuple[str, ...]) -> list[str]:
    """Return the parts of a message that no string of the sources has."""
    parts = [part.strip() for part in message.split("…")]
    return [part for part in parts if len(part) >= SHORTEST and not any(part in text for text in known)]


def test_the_page_has_every_code_of_a_conversion(project_root: Path) -> None:
    named = set(re.findall(r"EQ\d{3}", text_of(project_root)))
    conversions = {code for code in CODES if code.startswith(("EQ2", "EQ3"))}
    assert named <= set(CODES)
    assert conversions - NOT_OF_CONVERSIONS == named


def test_messages_are_quoted_as_they_are(project_root: Path) -> None:
    messages = quoted(text_of(project_root))
    assert len(messages) > 25
    wrong = {message: unknown(message, strings(project_root)) for message in messages}
    assert not {message: parts for message, parts in wrong.items() if parts}


def test_the_guard_sees_a_message_that_nothing_prints(project_root: Path) -> None:
    assert unknown("the model is … sad today", strings(project_root)) == ["sad today"]
