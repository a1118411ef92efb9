"""Output of the command line: results on stdout; progress, warnings and diagnostics on stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from edgeq.cli import streams
from edgeq.cli.global_options import GLOBAL_OPTIONS, Group, apply_global_options
from edgeq.cli.progress import Lines, NoWork, Pace, Unit, Work, bars_on_terminal, on_a_terminal
from edgeq.text import finite, json_line, one_line, several_lines

if TYPE_CHECKING:
    from edgeq.fleet.inventory import Inventory

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
        pace: when the next line of progress may be printed.
    """

    quiet: bool = False
    verbosity: int = 0
    as_json: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def interactive(self) -> bool:
        """Whether stdin and stderr are terminals, so that a person can answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Write one line on stderr, unless quiet."""
        if not self.quiet:
            streams.diagnose(one_line(text))

    def detail(self, text: str) -> None:
        """Write one line on stderr that only `-v` shows."""
        if self.verbosity > 0:
            self.say(text)

    def note(self, text: str) -> None:
        """Write on stderr what was done or chosen, unless quiet."""
        self.say(f"note: {text}")

    def warn(self, text: str) -> None:
        """Write on stderr what may be wrong with a result, even when quiet."""
        streams.diagnose(f"warning: {one_line(text)}")

    def error(self, code: str | None, text: str) -> None:
        """Write on stderr what failed beside what succeeded, even when quiet."""
        streams.diagnose(f"error{f'[{code}]' if code else ''}: {one_line(text)}")

    def remarks(self, *, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Write the notes, then the warnings."""
        for text in notes:
            self.note(text)
        for text in warnings:
            self.warn(text)

    def next(self, *words: str | Path) -> None:
        """Suggest the next command, so that it works when it is pasted.

        Args:
            words: of the command, after `edgeq`. A word in capitals is for the reader to fill in.
        """
        self.say(f"next: {shlex.join(['edgeq', *map(str, words), *_workspace_option()])}")

    def again(self, *, without: str) -> None:
        """Suggest the command that runs, without the flag of this parameter."""
        self.next(*_given_words(click.get_current_context(), without))

    def emit(self, schema: str, body: Mapping[str, Any]) -> None:
        """Write the JSON document of a `--json` run; do nothing without `--json`."""
        if self.as_json:
            document = _fitted({"schema": schema, **finite(dict(body))})
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

    def flush(self) -> None:
        """Let a reader of the pipe see the results so far."""
        sys.stdout.flush()

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table on stdout: aligned columns without borders, so that pipes can read it."""
        if self.as_json:
            return
        lines = [[one_line(cell) for cell in line] for line in (headings, *rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            sys.stdout.write("  ".join(cells).rstrip() + "\n")

    def step(self, text: str) -> None:
        """Announce a step of long work: a line on a terminal; elsewhere at most one every 10 s."""
        if on_a_terminal() or self.pace.due():
            self.say(text)

    @contextmanager
    def progress(self, label: str, total: int, *, unit: Unit = Unit.ITEMS) -> Iterator[Callable[[int], None]]:
        """Show the progress of a long step: a bar on a terminal, else at most a line every 10 s.

        Yields:
            A function that adds an amount to what is done, up to `total`.
        """
        with self.progress_of(label, {"": total}, unit=unit) as work:
            yield lambda amount: work.advance("", amount)

    @contextmanager
    def progress_of(
        self, label: str, totals: Mapping[str, int], *, unit: Unit = Unit.ITEMS
    ) -> Iterator[Work]:
        """Show the progress of several parts, such as devices: a bar each on a terminal, else as `progress`.

        Args:
            totals: how much there is to do, by part.
        """
        if self.quiet:
            yield NoWork()
        elif on_a_terminal():
            with bars_on_terminal(label, totals, unit) as bars:
                yield bars
        else:
            yield Lines(self.say, self.pace, label, totals, unit)

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

    def inventory(self) -> Inventory:
        """Return the workspace's devices; what is wrong with single tables of the file is a warning each.

        Raises:
            ConfigError: the file is not TOML, or has unknown keys or invalid values.
        """
        from edgeq.fleet.inventory import Inventory

        inventory = Inventory.load(self.workspace)
        for problem in inventory.problems:
            self.ui.warn(problem.text)
        return inventory


def _given_words(ctx: click.Context, without: str) -> list[str]:
    """Return the command of a context and what was given to it, but not how it prints."""
    words = ctx.command_path.split()[1:]
    for param in ctx.command.params:
        name = param.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not given or name in (without, "json_output", "quiet", "verbose", "debug", "workspace"):
            continue
        value = ctx.params[name]
        for each in value if param.multiple or param.nargs == -1 else [value]:
            words += [param.opts[0]] if isinstance(param, click.Option) else []
            words += [] if isinstance(param, click.Option) and param.is_flag else [str(each)]
    return words


def _workspace_option() -> tuple[str, ...]:
    """Return `--workspace FOLDER` for a command that is pasted where this one ran, if it is needed there."""
    ctx = click.get_current_context(silent=True)
    app = ctx.find_object(App) if ctx is not None else None
    usual = Path(os.environ.get("EDGEQ_WORKSPACE") or ".")
    return () if app is None or app.workspace == usual else ("--workspace", str(app.workspace))


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


class CommandGroup(Group):
    """A group below the root. It takes the global options, and its help shows each command's whole line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in GLOBAL_OPTIONS:
            option(self)

    def invoke(self, ctx: click.Context) -> Any:
        """Apply the global options, then run the command."""
        apply_global_options(ctx, ctx.params)
        return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their lines, wrapped."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, one.get_short_help_str(limit=_WHOLE_LINE)) for name, one in commands if one is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command(name: str, *, examples: Sequence[str], help: str | None = None) -> Callable[[F], click.Command]:
    """Make a click command with examples in its help, with `--json` and with the global options.

    The function gets the App first. The options switch the App's Ui, so a command calls `ui.emit`, `ui.line`
    and `ui.say` without a condition. `-q` and `-v` add up with those before the command.
    """

    def decorate(function: F) -> click.Command:
        @click.pass_context
        def invoke(ctx: click.Context, /, *args: Any, json_output: bool, **kwargs: Any) -> Any:
            app = apply_global_options(ctx, kwargs)
            app.ui.as_json = json_output
            return function(app, *args, **kwargs)

        epilog = "Examples:\n\n\b\n" + "\n".join(f"  {example}" for example in examples)
        made = click.command(name, epilog=epilog, help=help)(update_wrapper(invoke, function))
        # On a finished command, each option goes to the end of the help.
        for option in (json_option, *GLOBAL_OPTIONS):
            option(made)
        return made

    return decorate
