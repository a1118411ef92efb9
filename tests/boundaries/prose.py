"""Find words and phrases that the project's plain-English style replaces.

Run it on files or folders: `python tests/boundaries/prose.py PATH...` lists every offence and exits with 1 if
there is one. `test_prose.py` runs it on the whole tree.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What the guard looks for, and what to write in its place.
PHRASES: tuple[tuple[str, str], ...] = (
    (
        r"(?<!there )(?<!this )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|\w+er than)",
        "`is not a ...`",
    ),
    (r"\btold\b", "name the actor: `reports`, `receives`, `is given`"),
    (r"\btells?\b(?! apart)(?! \w+ apart)(?! \w+ from\b)", "`reports`, `states`, `says`, `passes`"),
    (r"\bmend(?:s|ed|ing)?\b", "`fix`, `repair`"),
    (r"\banew\b", "`again`, or `re-`: `rebuild`, `reload`"),
    (r"\bwhat then\b", "name the action"),
    (r"\bwhat may (?:come|pass)\b", "`transient`"),
    (
        r"\bway to (?:a|the|its|that|this|every|each|one|some) (?:\w+ )?(?:devices?|hosts?|machines?)\b",
        "`connection`",
    ),
    (r"\b(?:machines?|hosts?) on the way\b", "`jump host`"),
    (r"\bway of the data\b", "`data flow`"),
    (r"\blook(?:s|ed|ing)? after\b", "`manage`, `watch`, `maintain`"),
    (r"\b(?:make|makes|made|making)(?: \w+){0,3} whole\b", "`complete`, `repair`, `recover`"),
    (r"\bfor ever\b", "`forever`, `without a limit`"),
    (r"\b(?:some|no|any)body\b", "name the role: `the operator`, `another process`; or `no one`"),
    (r"\bby (?:it|them)(?:self|selves)\b", "`automatically`, `on its own`, `alone`, or nothing"),
    (r"\bkept of\b", "`stored`, `retained`"),
    (r"\b(?:is|are|was) let\b", "`may`, `is allowed to`"),
    (r"\bbeg[iau]ns? again\b", "`retry`, `restart`"),
    (r"\bof ours\b", "`our ...`"),
    (r"\bof before\b", "`earlier`, `previous`"),
    (r"\bon trial\b", "`soaking`"),
    (r"\b(?:takes?|taken|took) (?:it |them )?back\b", "`roll back`, `withdraw`"),
    (r"\b(?:whereof|wherein|therein|thereof|lest|thus far|hitherto)\b", "a modern word"),
    (r"\bis asked (?:for )?(?:of|by)\b", "make the asker the subject"),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in PHRASES)

# A module's first line names the module or says what it does; it does not begin with a clause.
CLAUSE = re.compile(r"(?:What|Whether|How|Which|Who|Whose|Where|When|Why|That|If|Because)\b")

# (end of the path, phrase): uses that are right. Each needs its reason.
ALLOWED: frozenset[tuple[str, str]] = frozenset(
    {
        ("tests/boundaries/prose.py", "*"),  # the list itself
        ("tests/boundaries/test_prose.py", "*"),  # planted offences
        ("tests/boundaries/test_names.py", "*"),  # planted offences
    }
)

FENCE = re.compile(r"^\s*```")


@dataclass(frozen=True)
class Offence:
    """One place where a phrase of the list stands."""

    path: Path
    line: int
    phrase: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r}: write {self.advice}"


def offences(path: Path) -> list[Offence]:
    """Return the offences of one .py or .md file, in the order of its lines."""
    if _allows(path, "*"):
        return []
    offending: set[Offence] = set()
    text = path.read_text(encoding="utf-8")
    for line, prose in _prose_of(path, text):
        flat = " ".join(prose.split())
        for pattern, advice in _COMPILED:
            for match in pattern.finditer(flat):
                if not _allows(path, match[0]):
                    offending.add(Offence(path, line, match[0], advice))
    if path.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(text))
        if docstring and CLAUSE.match(docstring):
            first = docstring.splitlines()[0]
            offending.add(
                Offence(path, 1, first, "a noun phrase or an imperative as the module's first line")
            )
    return sorted(offending, key=lambda offence: (offence.line, offence.phrase))


def files(path: Path) -> list[Path]:
    """Return the .py and .md files at or below `path`."""
    if path.is_file():
        return [path]
    every = (*path.rglob("*.py"), *path.rglob("*.md"))
    return sorted(file for file in every if not any(part.startswith(".") for part in file.parts))


def _allows(path: Path, phrase: str) -> bool:
    name = path.resolve().as_posix()
    return any(name.endswith(end) and phrase == allowed for end, allowed in ALLOWED)


def _prose_of(path: Path, text: str) -> Iterator[tuple[int, str]]:
    return _python(text) if path.suffix == ".py" else _markdown(text)


def _python(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield from _paragraphs(node.lineno, node.value)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name.replace("_", " ")
    yield from _comments(text)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    start, block, last = 0, "", -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.lstrip("#")
        if token.start[0] == last + 1:
            block += words
        else:
            if block:
                yield start, block
            start, block = token.start[0], words
        last = token.start[0]
    if block:
        yield start, block


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    lines, fenced = [], False
    for line in text.splitlines():
        if FENCE.match(line):
            fenced = not fenced
            lines.append("")
        else:
            lines.append("" if fenced else re.sub(r"`[^`]*`", "``", line))
    yield from _paragraphs(1, "\n".join(lines))


def _paragraphs(first: int, text: str) -> Iterator[tuple[int, str]]:
    # A phrase may go over the end of a line, but not over an empty one. Each is reported with its own line.
    start, block = first, ""
    for number, line in enumerate(text.split("\n"), first):
        if line.strip():
            if not block:
                start = number
            block += line + "\n"
        elif block:
            yield from _locate(start, block)
            block = ""
    if block:
        yield from _locate(start, block)


def _locate(start: int, block: str) -> Iterator[tuple[int, str]]:
    # Overlapping pairs of lines: the line is right to within one, and no phrase is longer than that.
    lines = block.rstrip("\n").split("\n")
    if len(lines) == 1:
        yield start, lines[0]
    for index in range(len(lines) - 1):
        yield start + index, lines[index] + " " + lines[index + 1]


def main(arguments: list[str]) -> int:
    """List the offences below the given paths; return 1 if there is one."""
    every = [offence for name in arguments for file in files(Path(name)) for offence in offences(file)]
    # A phrase in overlapping pairs of lines is seen twice; once is enough.
    seen = {(offence.path, offence.phrase, offence.line) for offence in every}
    shown = [offence for offence in every if (offence.path, offence.phrase, offence.line - 1) not in seen]
    for offence in shown:
        sys.stdout.write(f"{offence}\n")
    sys.stderr.write(f"{len(shown)} offences\n" if shown else "no offences\n")
    return 1 if every else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["."]))
