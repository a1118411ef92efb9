"""Output of the command line: results on stdout; progress, warnings and diagnostics on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeq.cli.verbosity import quiet_option, verbose_option
from edgeq.text import json_line, one_line, several_lines

# A step that ends sooner shows no progress.
PROGRESS_AFTER_S = 0.5
# More characters than the first line of any command's help.
_WHOLE_LINE = 500

json_option = click.option("--json", "json_output", is_flag=True, help="Print one JSON document on stdout.")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(kw_only=True)
class Ui:
    """Writer for people and for programs.

    Every text may contain a device's: it is written without control and format characters (`edgeq.text`).

    Attributes:
        quiet: print only results, warnings and errors.
        verbosity: how often `-v` was given.
        as_json: print one JSON document on stdout instead of text.
    """

    quiet: bool = False
    verbosity: int = 0
    as_json: bool = False
    _started_s: float = field(default_factory=time.monotonic)

    @property
    def interactive(self) -> bool:
        """Whether stdin and stderr are terminals, so that a person can answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Write one line on stderr, unless quiet."""
        if not self.quiet:
            sys.stderr.write(one_line(text) + "\n")
            sys.stderr.flush()

    def detail(self, text: str) -> None:
        """Write one line on stderr that only `-v` shows."""
        if self.verbosity > 0:
            self.say(text)

    def warn(self, text: str) -> None:
        """Write a warning on stderr, even when quiet."""
        sys.stderr.write(f"warning: {one_line(text)}\n")

    def next(self, command: str) -> None:
        """Suggest the next command."""
        self.say(f"next: {command}")

    def emit(self, schema: str, body: Mapping[str, Any]) -> None:
        """Write the JSON document of a `--json` run; do nothing without `--json`."""
        if self.as_json:
            document = _fitted({"schema": schema, **_finite(dict(body))})
            sys.stdout.write(json_line(json.dumps(document, ensure_ascii=False, allow_nan=False)) + "\n")
            sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """Write one line of results; nothing with `--json`, whose document contains it."""
        if not self.as_json:
            sys.stdout.write(one_line(text) + "\n")

    def text(self, text: str) -> None:
        """Write several lines of results; nothing with `--json`."""
        if not self.as_json:
            sys.stdout.write(several_lines(text) + "\n")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table on stdout: aligned columns without borders, so that pipes can read it."""
        if self.as_json:
            return
        lines = [[one_line(cell) for cell in line] for line in (headings, *rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            sys.stdout.write("  ".join(cells).rstrip() + "\n")

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show the progress of a long step: a bar on a terminal, else a line every 10 % or 30 s.

        Yields:
            A function that adds an amount to what is done, up to `total`.
        """
        if self.quiet:
            yield lambda _amount: None
        elif sys.stderr.isatty():
            with _bar(one_line(label), total) as advance:
                yield advance
        else:
            yield _lines(self.say, label, total)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask before a change. Without a terminal the answer is yes: a script cannot answer."""
        if yes or not self.interactive:
            return True
        return click.confirm(one_line(question), default=False, err=True)


@dataclass(frozen=True, kw_only=True)
class App:
    """First argument of every command: the workspace and the output."""

    workspace: Path
    ui: Ui


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda amount: bars.advance(task, amount)


def _lines(say: Callable[[str], None], label: str, total: int) -> Callable[[int], None]:
    # Print nothing for PROGRESS_AFTER_S, then a line every 10 % or 30 s.
    state = {"done": 0.0, "shown": 0.0, "at_s": time.monotonic()}
    begun_s = time.monotonic()

    def advance(amount: int) -> None:
        state["done"] += amount
        percent = 100 * state["done"] // max(total, 1)
        now_s = time.monotonic()
        due = percent >= state["shown"] + 10 or now_s - state["at_s"] >= 30
        if due and now_s - begun_s >= PROGRESS_AFTER_S:
            state.update(shown=percent, at_s=now_s)
            say(f"{label}: {percent:.0f} %")

    return advance


def _fitted(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document whose hints fit the command that was run."""
    ctx = click.get_current_context(silent=True)
    app = ctx.find_object(App) if ctx is not None else None
    if ctx is None or app is None or "`edgeq " not in repr(document):
        return document
    from edgeq.cli.hints import enrolled, fitting  # only a failure needs it

    words = (
        *ctx.command_path.split()[1:],
        *(word for value in ctx.params.values() for word in _words(value)),
    )
    devices = enrolled(app.workspace)

    def fitted(value: Any) -> Any:
        if isinstance(value, list):
            return [fitted(one) for one in value]
        if not isinstance(value, dict):
            return value
        inner = {key: fitted(one) for key, one in value.items()}
        if isinstance(inner.get("hint"), str) and isinstance(inner.get("code"), str):
            inner["hint"] = fitting(inner["hint"], words=words, devices=devices, code=inner["code"])
        return inner

    result: dict[str, Any] = fitted(document)
    return result


def _words(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(one) for one in value]
    return [str(value)]


def _finite(value: Any) -> Any:
    # JSON has neither infinity nor NaN: such a figure becomes null.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


class CommandGroup(click.Group):
    """A click group whose help shows the whole line of each command; click cuts it to the width."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their lines, wrapped."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, one.get_short_help_str(limit=_WHOLE_LINE)) for name, one in commands if one is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command(name: str, *, examples: Sequence[str], help: str | None = None) -> Callable[[F], click.Command]:
    """Make a click command with examples in its help, and with `--json`, `-q` and `-v`.

    The function gets the App first. The three options switch the App's Ui, so a command calls `ui.emit`,
    `ui.line` and `ui.say` without a condition. `-q` and `-v` are also options of the root group; they add up.
    """

    def decorate(function: F) -> click.Command:
        @click.pass_obj
        def invoke(
            app: App, /, *args: Any, json_output: bool, quiet: bool, verbose: int, **kwargs: Any
        ) -> Any:
            app.ui.as_json = json_output
            app.ui.quiet = app.ui.quiet or quiet
            app.ui.verbosity += verbose
            return function(app, *args, **kwargs)

        epilog = "Examples:\n\n\b\n" + "\n".join(f"  {example}" for example in examples)
        made = click.command(name, epilog=epilog, help=help)(update_wrapper(invoke, function))
        # On a finished command, each option goes to the end of the help.
        json_option(made)
        quiet_option(made)
        verbose_option(made)
        return made

    return decorate
