"""The display of `edgeq run`: a live table on a terminal, JSON lines with --json, else lines of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.cli.progress import on_a_terminal, worker_progress
from edgeq.pipeline.events import CandidateDone, Event, PhaseBegan, PhaseJudged, PhaseSkipped
from edgeq.pipeline.phases import TITLES
from edgeq.text import one_line
from edgeq.units import format_percent, format_size

if TYPE_CHECKING:
    from rich.live import Live

    from edgeq.cli.ui import Ui
    from edgeq.converters_client import Progress

HEADINGS = ("candidate", "size", "accuracy", "worst SQNR", "limits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """Shows a run while it goes on: its events, and how far a step is."""

    on_event: Callable[[Event], None]
    on_progress: Progress


@contextmanager
def display_of(ui: Ui) -> Iterator[Display]:
    """Yield the display that fits the command's output."""
    if on_a_terminal() and not ui.quiet and not ui.as_json:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
            table = LiveTable(live)
            yield Display(on_event=table.event, on_progress=table.progress)
        return

    def on_event(event: Event) -> None:
        if ui.as_json:
            ui.emit("edgeq.run.event/1", event.to_json())
        else:
            ui.step(line_of(event))

    with worker_progress(ui) as on_progress:
        yield Display(on_event=on_event, on_progress=on_progress)


class LiveTable:
    """The candidates as a table on standard error, with the step that is going on below it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rows: dict[str, tuple[str, ...]] = {}
        self._lines: list[str] = []

    def event(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, CandidateDone):
            self._rows[event.name] = (event.name, *_figures(event), event.problem)
        elif isinstance(event, PhaseJudged):
            for each in event.candidates:
                row = self._rows[each.variant.name]
                self._rows[each.variant.name] = (*row[:-1], each.limits_text)
        self._show(line_of(event))

    def progress(self, step: str, done: int, total: int) -> None:
        """Show how far a step is."""
        self._show(f"{step} {100 * done // total} %" if total > 1 else step)

    def _show(self, line: str) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        *short, long = HEADINGS
        table = Table(*short, box=None, pad_edge=False, expand=True)
        # One line a candidate: reasons are long, and the final output has them in full.
        table.add_column(long, no_wrap=True, overflow="ellipsis", ratio=1)
        for row in self._rows.values():
            table.add_row(*(Text(one_line(cell)) for cell in row))
        self._live.update(Group(table, Text(one_line(line), style="dim")))


def line_of(event: Event) -> str:
    """Return an event as one line."""
    match event:
        case PhaseBegan():
            return f"{event.phase}: {TITLES[event.phase]}"
        case PhaseSkipped():
            return f"{event.phase}: left out, {event.reason}"
        case CandidateDone(problem=""):
            cached = "cached, " if event.reused else ""
            return f"{event.phase}: {event.name}: {cached}{', '.join(_known(_figures(event)))}"
        case CandidateDone():
            return f"{event.phase}: {event.name}: not built, {event.problem}"
        case PhaseJudged(chosen=None):
            return f"{event.phase}: no candidate meets every limit yet"
        case PhaseJudged():
            doubt = "" if event.proven else ", but not beyond the sampling error"
            return f"{event.phase}: {event.chosen} meets every limit{doubt}"


def _figures(event: CandidateDone) -> tuple[str, str, str]:
    return (
        "-" if event.size_bytes is None else format_size(event.size_bytes),
        "-" if event.accuracy is None else format_percent(event.accuracy),
        "-" if event.worst_sqnr_db is None else f"{event.worst_sqnr_db:.1f} dB",
    )


def _known(figures: Sequence[str]) -> list[str]:
    return [each for each in figures if each != "-"]
