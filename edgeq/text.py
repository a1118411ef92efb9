"""Text from elsewhere, such as a device's answer, made safe for a terminal, a page and a log.

A terminal obeys control characters: they move the cursor, hide a line or rename the window. Format
characters (bidirectional controls, zero-width characters) make a text read differently from what it is. Both
are shown as escapes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

# Controls (C0, DEL, C1), line and paragraph separators, format characters, and halves of surrogate pairs.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NOT_ASCII_PRINTABLE = re.compile(r"[^ -~]")
_JSON_UNSAFE = re.compile(r"[^\n -~]")


def one_line(text: str, longest: int | None = None) -> str:
    r"""Return a text as one line without control and format characters: ESC becomes the four letters `\x1b`.

    Args:
        longest: cut it to so many characters, and end it with an ellipsis.
    """
    if longest is not None and len(text) > longest:
        text = text[: longest - 3] + "..."
    if text.isascii() and text.isprintable():
        return text
    return _NOT_ASCII_PRINTABLE.sub(_escape, text)


def several_lines(text: str) -> str:
    """Return a text with newlines and tabs kept and the rest of every line as `one_line` returns it."""
    return "\n".join("\t".join(map(one_line, line.split("\t"))) for line in text.split("\n"))


def json_line(document: str) -> str:
    r"""Return the same JSON document, with control and format characters of its strings as `\u` escapes."""
    if document.isascii() and "\x7f" not in document:  # JSON escapes the other control characters itself
        return document
    return _JSON_UNSAFE.sub(_json_escape, document)


def finite(value: Any) -> Any:
    """Return a value as JSON types; infinity and NaN, which JSON lacks, become None, and paths text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return value


def _unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE_CATEGORIES


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return character.encode("unicode_escape").decode("ascii") if _unsafe(character) else character


def _json_escape(match: re.Match[str]) -> str:
    character = match[0]
    if not _unsafe(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
