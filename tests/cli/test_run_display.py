"""The display of `edgeq run`: the live table of a terminal, and the lines of a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.live import Live

from edgeq.cli.run_display import LiveTable, line_of
from edgeq.pipeline.events import CandidateDone, Event, PhaseBegan, PhaseJudged, PhaseSkipped
from edgeq.pipeline.phases import Phase


def candidate(name: str, *, problem: str = "", reused: bool = False) -> CandidateDone:
    built = not problem
    return CandidateDone(
        phase=Phase.PLAIN,
        name=name,
        reused=reused,
        problem=problem,
        size_bytes=2048 if built else None,
        accuracy=0.913 if built else None,
        worst_sqnr_db=26.5 if built else None,
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (PhaseBegan(phase=Phase.PLAIN, candidates=2), "plain: plain quantization: min/max ranges"),
        (PhaseSkipped(phase=Phase.QAT, reason="no data"), "qat: left out, no data"),
        (candidate("int8"), "plain: int8: 2.0 KiB, 91.3 %, 26.5 dB"),
        (candidate("int8", reused=True), "plain: int8: cached, 2.0 KiB, 91.3 %, 26.5 dB"),
        (candidate("int4", problem="EQ307: no"), "plain: int4: not built, EQ307: no"),
        (
            PhaseJudged(phase=Phase.PLAIN, candidates=(), chosen=None, proven=False),
            "plain: no candidate meets every limit yet",
        ),
        (
            PhaseJudged(phase=Phase.PLAIN, candidates=(), chosen="int8", proven=False),
            "plain: int8 meets every limit, but not beyond the sampling error",
        ),
        (
            PhaseJudged(phase=Phase.PLAIN, candidates=(), chosen="int8", proven=True),
            "plain: int8 meets every limit",
        ),
    ],
)
def test_an_event_is_one_line(event: Event, line: str) -> None:
    assert line_of(event) == line


def test_the_live_table_has_a_row_for_each_candidate_and_the_step_below() -> None:
    screen = io.StringIO()
    with Live(console=Console(file=screen, width=60), auto_refresh=False) as live:
        table = LiveTable(live)
        table.event(candidate("int8"))
        table.event(candidate("\x1b[31mint4", problem="EQ307: " + "a long reason " * 20))
        table.progress("calibrate", 3, 10)
        live.refresh()
    *_, heading, first, second, step = [line for line in screen.getvalue().splitlines() if line.strip()]
    assert heading.split()[:2] == ["candidate", "size"]
    assert first.split()[:5] == ["int8", "2.0", "KiB", "91.3", "%"]
    assert "int4" in second
    assert "\x1b" not in second
    assert second.rstrip().endswith("…")
    assert step.strip() == "calibrate 30 %"
