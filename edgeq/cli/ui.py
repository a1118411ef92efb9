"""The one object that writes: data on stdout, talk on stderr, progress that suits a terminal or a pipe."""

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

# A step that is over before this shows no progress.
PROGRESS_AFTER_S = 0.5

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(kw_only=True)
class Ui:
    """Writes for people and for programs.

    Attributes:
        as_json: stdout carries one JSON document instead of text.
    """

    quiet: bool = False
    verbosity: int = 0
    as_json: bool = False
    _started_s: float = field(default_factory=time.monotonic)

    @property
    def interactive(self) -> bool:
        """Whether a person sits at both ends."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Write one line of talk on stderr."""
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def detail(self, text: str) -> None:
        """Write one line of talk that only `-v` shows."""
        if self.verbosity > 0:
            self.say(text)

    def warn(self, text: str) -> None:
        """Write a warning, also when quiet."""
        sys.stderr.write(f"warning: {text}\n")

    def next(self, command: str) -> None:
        """Name the command that comes next."""
        self.say(f"next: {command}")

    def emit(self, schema: str, body: Mapping[str, Any]) -> None:
        """Write the JSON document of a `--json` run."""
        if self.as_json:
            document = {"schema": schema, **_finite(dict(body))}
            sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """Write one line of data for people; nothing under `--json`, whose document carries it."""
        if not self.as_json:
            sys.stdout.write(text + "\n")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table for people on stdout: aligned columns, no box, good in a pipe."""
        if self.as_json:
            return
        lines = [list(headings), *[list(row) for row in rows]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            sys.stdout.write("  ".join(cells).rstrip() + "\n")

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how far a long step is: a bar on a terminal, a line each 10 % or 30 s in a pipe.

        Yields:
            A function that takes how much more is done.
        """
        if self.quiet:
            yield lambda _amount: None
        elif sys.stderr.isatty():
            with _bar(label, total) as advance:
                yield advance
        else:
            yield _lines(self.say, label, total)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask a person before a change; who has no terminal wrote the command down, and meant it."""
        if yes or not self.interactive:
            return True
        return click.confirm(question, default=False, err=True)


@dataclass(frozen=True, kw_only=True)
class App:
    """What every command gets: where the project is and how to write."""

    workspace: Path
    ui: Ui


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda amount: bars.advance(task, amount)


def _lines(say: Callable[[str], None], label: str, total: int) -> Callable[[int], None]:
    # What is over in half a second needs no report; what takes longer says so each 10 % or 30 s.
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


def _finite(value: Any) -> Any:
    # JSON has no infinity and no NaN; a figure that is not finite becomes null, never a made-up number.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def command(name: str, *, examples: Sequence[str], help: str | None = None) -> Callable[[F], click.Command]:
    """Make a click command with `-h` examples and `--json`; the function gets the App first.

    The option sets the App's Ui to JSON, so that the command calls `ui.emit` and `ui.line` without asking.
    """

    def decorate(function: F) -> click.Command:
        @click.pass_obj
        def invoke(app: App, /, *args: Any, json_output: bool, **kwargs: Any) -> Any:
            app.ui.as_json = json_output
            return function(app, *args, **kwargs)

        wrapped = update_wrapper(invoke, function)
        wrapped = click.option("--json", "json_output", is_flag=True, help="One JSON document on stdout.")(
            wrapped
        )
        epilog = "Examples:\n\n\b\n" + "\n".join(f"  {example}" for example in examples)
        return click.command(name, epilog=epilog, help=help)(wrapped)

    return decorate
