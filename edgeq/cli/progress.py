"""Show how far long work is: bars with rate and time left on a terminal, a line every 10 s elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from edgeq.text import one_line
from edgeq.units import format_size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task

    from edgeq.cli.ui import Ui
    from edgeq.converters_client import Progress

# Work that ends sooner shows no progress.
PROGRESS_AFTER_S = 0.5
# The least time between two lines in a pipe or a file.
LINE_EVERY_S = 10.0
# Of more devices, those that are done are not shown any more.
_MOST_LINES = 16


class Unit(StrEnum):
    """What is counted."""

    ITEMS = "items"
    BYTES = "bytes"


@dataclass(kw_only=True)
class Pace:
    """Prints a line if none was printed in the last LINE_EVERY_S; for the whole command, from any thread."""

    clock: Callable[[], float] = time.monotonic
    _last_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self) -> bool:
        """Return whether a line may be printed now, and count it as printed."""
        with self._lock:
            now_s = self.clock()
            if self._last_s is not None and now_s - self._last_s < LINE_EVERY_S:
                return False
            self._last_s = now_s
            return True


class Work(Protocol):
    """The progress of one or several parts of a step."""

    def advance(self, part: str, amount: int) -> None:
        """Add to what is done of a part."""

    def note(self, part: str, text: str) -> None:
        """Say what a part does after all of it was counted; it then counts as done."""


class NoWork:
    """Shows nothing."""

    def advance(self, part: str, amount: int) -> None:
        """Do nothing."""

    def note(self, part: str, text: str) -> None:
        """Do nothing."""


class Lines:
    """Prints at most a line every LINE_EVERY_S on the whole step.

    Args:
        say: writes one line.
        totals: how much there is to do, by part.
    """

    def __init__(
        self, say: Callable[[str], None], pace: Pace, label: str, totals: Mapping[str, int], unit: Unit
    ) -> None:
        self._say, self._pace, self._label, self._unit = say, pace, label, unit
        self._totals = dict(totals)
        self._done = dict.fromkeys(totals, 0)
        self._begun_s = pace.clock()
        self._lock = threading.Lock()

    def advance(self, part: str, amount: int) -> None:
        """Add to what is done, and print the line if it is due."""
        with self._lock:
            self._done[part] = min(self._done[part] + amount, self._totals[part])
            self._print()

    def note(self, part: str, text: str) -> None:
        """Count the part as done, and print the line if it is due."""
        with self._lock:
            self._done[part] = self._totals[part]
            self._print()

    def _print(self) -> None:
        elapsed_s = self._pace.clock() - self._begun_s
        if elapsed_s < PROGRESS_AFTER_S or not self._pace.due():
            return
        done, total = sum(self._done.values()), max(sum(self._totals.values()), 1)
        rate = done / elapsed_s
        self._say(f"{self._label}: {100 * done // total} %{_estimate(rate, total - done, self._unit)}")


class Bars:
    """A bar for each part on a terminal. Of many parts, a bar is shown while the part is worked on."""

    def __init__(self, bars: RichProgress, label: str, totals: Mapping[str, int]) -> None:
        self._bars = bars
        self._many = len(totals) > _MOST_LINES
        self._tasks = {
            part: bars.add_task(one_line(part or label), total=total, visible=len(totals) == 1, start=False)
            for part, total in totals.items()
        }
        self._totals = dict(totals)
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    def advance(self, part: str, amount: int) -> None:
        """Move the bar of a part."""
        task = self._tasks[part]
        self._begin(part)
        self._bars.advance(task, amount)
        if self._many and self._bars.tasks[task].finished:
            self._bars.update(task, visible=False)

    def note(self, part: str, text: str) -> None:
        """Fill the bar of a part, and write behind its name what it does now."""
        self._begin(part)
        description = one_line(f"{part} {text}")
        self._bars.update(self._tasks[part], description=description, completed=self._totals[part])

    def _begin(self, part: str) -> None:
        with self._lock:
            if part not in self._begun:
                self._begun.add(part)
                self._bars.start_task(self._tasks[part])
                self._bars.update(self._tasks[part], visible=True)


@contextmanager
def bars_on_terminal(label: str, totals: Mapping[str, int], unit: Unit) -> Iterator[Bars]:
    """Yield bars on standard error; they are removed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Estimate(ProgressColumn):
        """Rate and time left."""

        def render(self, task: Task) -> Text:
            left = (task.total or 0) - task.completed
            return Text(_estimate(task.speed or 0.0, left, unit).removeprefix(", "))

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        Estimate(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Bars(bars, label, totals)


def _estimate(rate: float, left: float, unit: Unit) -> str:
    """Return rate and time left, `, 1.2 MiB/s, 12 s left`; empty while nothing is known."""
    if rate <= 0:
        return ""
    speed = format_size(rate) if unit is Unit.BYTES else f"{rate:.3g}"
    return f", {speed}/s" + (f", {_time(left / rate)} left" if left > 0 else "")


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def worker_progress(ui: Ui) -> Iterator[Progress]:
    """Yield a function (step, done, total) that reports each step once, and shows a bar for long steps."""
    with ExitStack() as bars:
        current, shown = "", 0
        advance: Callable[[int], None] | None = None

        def on_progress(step: str, done: int, total: int) -> None:
            nonlocal current, shown, advance
            if step != current:
                bars.close()
                current, shown = step, 0
                advance = bars.enter_context(ui.progress(step, total)) if total > 1 else None
                if total == 1:
                    ui.step(step)
            elif advance is not None:
                advance(done - shown)
                shown = done

        yield on_progress


def on_a_terminal() -> bool:
    """Return whether a person watches standard error."""
    return sys.stderr.isatty()
