"""Every command that a page or a help text shows is one, with the options that it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgeq.cli.root import root
from tests.cli.test_suggested_commands import VALUE, parsed

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
SHELL = ("", "bash")
INLINE = re.compile(r"`(edgeq [^`]+)`")


def pages(project_root: Path) -> list[Path]:
    own = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/**/*.md", "examples/**/*.md")
    return sorted(path for pattern in own for path in project_root.glob(pattern))


def lines_of(page: str) -> Iterator[str]:
    """Yield the command lines in the blocks of a page, without comments and with continued lines joined."""
    for language, block in BLOCK.findall(page):
        if language not in SHELL:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("; "):
                if command.startswith("edgeq "):
                    yield command


def words_of(line: str) -> list[str]:
    """Return the words after `edgeq`, with VALUE for a number to fill in."""
    words = shlex.split(line, comments=True)[1:]
    if ">" in words:
        words = words[: words.index(">")]
    return [
        VALUE if word == "N" else word.removesuffix("=N") + "=1" if word.endswith("=N") else word
        for word in words
    ]


def refusal(words: list[str]) -> click.ClickException | None:
    try:
        parsed(words)
    except click.exceptions.Exit:
        return None  # it shows help
    except click.ClickException as error:
        return error
    return None


def examples(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """Yield the examples in the help of a command and of all below it."""
    for line in (command.epilog or "").splitlines():
        if line.strip().startswith("edgeq "):
            yield line.strip()
    if isinstance(command, click.Group):
        for name in {*command.list_commands(ctx), *getattr(command, "commands", ())}:
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from examples(inner, click.Context(inner, parent=ctx, info_name=name))


def test_every_command_line_of_a_page_can_be_run(project_root: Path) -> None:
    lines = [(page.name, line) for page in pages(project_root) for line in lines_of(page.read_text("utf-8"))]
    assert len(lines) > 60
    wrong = [
        f"{where}: {line}: {error.format_message()}"
        for where, line in lines
        if (error := refusal(words_of(line))) is not None
    ]
    assert wrong == []


def test_every_command_in_the_text_of_a_page_exists_with_its_options(project_root: Path) -> None:
    named = [
        (page.name, line)
        for page in pages(project_root)
        for line in INLINE.findall(BLOCK.sub("", page.read_text("utf-8")))
    ]
    assert len(named) > 150
    wrong = []
    for where, line in named:
        error = refusal(words_of(line))
        # A text names a command without its arguments, and an option without its value.
        if error is not None and not isinstance(error, click.MissingParameter | click.BadOptionUsage):
            wrong.append(f"{where}: {line}: {error.format_message()}")
    assert wrong == []


def test_every_example_of_a_help_text_can_be_run() -> None:
    shown = list(examples(root, click.Context(root, info_name="edgeq", **root.context_settings)))
    assert len(shown) > 120
    wrong = [
        f"{line}: {error.format_message()}"
        for line in shown
        if (error := refusal(words_of(line))) is not None
    ]
    assert wrong == []


def options(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, str | None, click.Option]]:
    """Yield (command, metavar, option) for each option of a command and of all below it."""
    for option in command.params:
        if isinstance(option, click.Option):
            yield ctx.command_path, option.make_metavar(ctx), option
    if isinstance(command, click.Group):
        for name in {*command.list_commands(ctx), *getattr(command, "commands", ())}:
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from options(inner, click.Context(inner, parent=ctx, info_name=name))


def test_the_help_of_an_option_says_what_its_value_is() -> None:
    every = list(options(root, click.Context(root, info_name="edgeq", **root.context_settings)))
    assert len(every) > 300
    # `--on TEXT` does not say whether the text is a device, a path or a model.
    vague = [
        f"{path} {each.opts[-1]} {shown}"
        for path, shown, each in every
        if shown in ("TEXT", "FLOAT", "INTEGER")
    ]
    assert vague == []
    assert [
        f"{path} {each.opts[-1]}" for path, _, each in every if not each.help and type(each) is click.Option
    ] == []


@pytest.mark.parametrize(
    "line", ["edgeq deploi a.eqb --to pi", "edgeq deploy a.eqb --too pi", "edgeq rollback --on pi"]
)
def test_the_guard_finds_a_line_that_cannot_be_run(line: str) -> None:
    (shown,) = lines_of(f"```bash\n{line}   # a comment\n```\n")
    assert refusal(words_of(shown)) is not None
