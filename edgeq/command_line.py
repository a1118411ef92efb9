"""The command line of this process as records show it: without passwords, tokens and other secrets."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_LONGEST = 2000
_NAMES = r"(?:passw(?:or)?d|passphrase|secret|token|credentials?|api[_-]?key|private[_-]?key)"
_OPTION = re.compile(rf"--?[\w-]*{_NAMES}[\w-]*", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?P<name>(?<![\w-])[\w-]*{_NAMES}[\w-]*)(?P<sign>\s*[=:]\s*|\s+)(?P<value>\"[^\"]*\"|'[^']*'|[^\s;|&]+)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(r"(authorization\s*:\s*)(?:[\w-]+\s+)?[^\s'\"]+", re.IGNORECASE)
_BEARER = re.compile(r"(bearer\s+)[^\s'\"]+", re.IGNORECASE)
_LOGIN = re.compile(r"(\w+://[^/\s:@]*:)[^/\s@]+@")
_HIDDEN = "***"

_words: list[str] | None = None


def remember(words: Sequence[str]) -> None:
    """Keep the words of the command that runs in this process."""
    global _words
    _words = list(words)


def command_line() -> str:
    """Return the command that runs: that of `edgeq`, else the program that uses its Python interface."""
    if _words is not None:
        return redacted(["edgeq", *_words])
    return redacted([Path(sys.argv[0]).name or "python", *sys.argv[1:]] if sys.argv else ["python"])


def redacted(words: Sequence[str]) -> str:
    """Return words as one line of a shell, with `***` in place of what can only be a secret."""
    shown: list[str] = []
    hides_next = False
    for word in words:
        if hides_next and not word.startswith("-"):
            shown.append(_HIDDEN)
            hides_next = False
            continue
        hides_next = bool(_OPTION.fullmatch(word))
        shown.append(word if hides_next else _cleaned(word))
    # The mark is not quoted, so that it reads as a mark.
    text = shlex.join(shown).replace(f"'{_HIDDEN}'", _HIDDEN)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _cleaned(word: str) -> str:
    word = _LOGIN.sub(rf"\1{_HIDDEN}@", word)
    word = _AUTHORIZATION.sub(rf"\1{_HIDDEN}", word)
    word = _BEARER.sub(rf"\1{_HIDDEN}", word)
    return _ASSIGNED.sub(_hidden, word)


def _hidden(match: re.Match[str]) -> str:
    # In a line of a shell, `--token-file x` is hidden too: better too much than too little.
    return f"{match['name']}{match['sign']}{_HIDDEN}"
