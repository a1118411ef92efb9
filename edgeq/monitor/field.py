"""Field summary: what the windows of a device add up to, and how each figure is shown.

`FIGURES` is the one list of figures. `edgeq status`, `edgeq report` and their JSON take every figure from it:
a new window field needs one entry here to be visible in all of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from edgeq.store import Store, WindowRecord
from edgeq.units import format_duration, format_percent, format_size
from edgeq_agent.telemetry.ddsketch import RELATIVE_ACCURACY
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.window import OutputCounts, Shadow, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSummary:
    """The windows of one device, model and release, added up.

    Attributes:
        windows: windows in the store; `total.merged` counts the windows of the device that they stand for.
        total: the merged window, without histograms.
        problem: why windows were left out of `total`, or None.
    """

    device: str
    model: str
    release: str
    windows: int
    total: Window
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as in `--json`."""
        figures = {figure.key: figure.to_json(self.total) for figure in FIGURES}
        return {"model": self.model, "release": self.release, "windows": self.windows, **figures}

    @property
    def line(self) -> str:
        """The measured figures in one line."""
        cells = [(column.heading, column.text(self.total)) for column in COLUMNS]
        return ", ".join(f"{heading} {cell}" for heading, cell in cells if cell != "-")


def summarise(records: Sequence[WindowRecord]) -> FieldSummary:
    """Return the summary of windows of one device, model and release; there must be at least one.

    Sketches of different accuracy do not add up: windows with another accuracy than most are left out.
    """
    first = records[0]
    accuracies = Counter(r.window.latency.relative_accuracy for r in records if r.window.latency.count)
    usual = accuracies.most_common(1)[0][0] if accuracies else RELATIVE_ACCURACY
    # Drift reads the histograms window by window; their sum is of no use and takes long.
    kept = [
        _without_histograms(record.window)
        for record in records
        if not record.window.latency.count or record.window.latency.relative_accuracy == usual
    ]
    problem = None
    if len(kept) < len(records):
        problem = (
            f"{len(records) - len(kept)} windows are left out: their latency sketch has another accuracy"
        )
    return FieldSummary(
        device=first.device,
        model=first.window.model,
        release=first.window.release,
        windows=len(kept),
        total=merge_windows(*kept),
        problem=problem,
    )


def field_summaries(
    store: Store, *, device: str | None = None, model: str | None = None, newest: int | None = None
) -> list[FieldSummary]:
    """Return one summary for each device, model and release, in the order in which they appeared.

    Args:
        device, model: only these.
        newest: only the windows that arrived last, so many.
    """
    records = store.windows(device=device, model=model, newest=newest)
    store.set_aside_invalid()
    return [summarise(stream) for stream in by_stream(records).values()]


def by_stream(
    records: Iterable[WindowRecord], devices: Collection[str] = ()
) -> dict[tuple[str, str, str], list[WindowRecord]]:
    """Return windows by (device, model, release), in the order in which the streams appeared.

    Args:
        devices: only these; all when empty.
    """
    streams: dict[tuple[str, str, str], list[WindowRecord]] = {}
    for record in records:
        if not devices or record.device in devices:
            key = (record.device, record.window.model, record.window.release)
            streams.setdefault(key, []).append(record)
    return streams


def _without_histograms(window: Window) -> Window:
    return replace(window, inputs=(), output=OutputCounts((), ()))


@dataclass(frozen=True, slots=True)
class FieldColumn:
    """One column of a table of summaries.

    Attributes:
        text: returns the cell; "-" where the figure was not measured.
        numeric: whether to align the column to the right.
    """

    heading: str
    text: Callable[[Window], str]
    numeric: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFigure:
    """One figure of a summary.

    Attributes:
        key: its name in JSON.
        to_json: returns the figure's JSON value; None where it was not measured.
        columns: the table columns that show the figure.
    """

    key: str
    to_json: Callable[[Window], Any]
    columns: tuple[FieldColumn, ...]


def _latency_json(window: Window) -> dict[str, float] | None:
    sketch = window.latency
    if not sketch.count:
        return None
    quantiles = {f"p{percent}": sketch.quantile_ns(percent / 100) for percent in (50, 90, 95, 99)}
    return {
        "count": sketch.count,
        "mean": sketch.mean_ns,
        "min": sketch.min_ns,
        **quantiles,
        "max": sketch.max_ns,
    }


def _latency_text(fraction: float) -> Callable[[Window], str]:
    def text(window: Window) -> str:
        return format_duration(window.latency.quantile_ns(fraction)) if window.latency.count else "-"

    return text


def _errors_text(window: Window) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in window.errors.items()) or "0"


def _memory_text(window: Window) -> str:
    return "-" if window.memory_peak_bytes is None else format_size(window.memory_peak_bytes)


def _temperature_text(window: Window) -> str:
    return "-" if window.temperature_c is None else f"{window.temperature_c:.1f} °C"


def _count_text(count: int | None) -> str:
    return "-" if count is None else str(count)


def _period_text(window: Window) -> str:
    # The device's clock may be wrong; times are shown as it sent them.
    try:
        started, ended = (
            datetime.fromtimestamp(time_ns / 1e9, UTC) for time_ns in (window.started_ns, window.ended_ns)
        )
    except (OverflowError, ValueError):  # beyond the year 9999
        return "unknown"
    ending = "%H:%M" if started.date() == ended.date() else "%Y-%m-%d %H:%M"
    return f"{started:%Y-%m-%d %H:%M} to {ended:{ending}}"


def _if_any_text(count: int) -> str:
    return str(count) if count else "-"


def _clock_text(window: Window) -> str:
    return "not set" if window.clock_synced is False else "-"


def _feedback_json(window: Window) -> dict[str, int] | None:
    return None if window.feedback is None else asdict(window.feedback)


def _feedback_text(window: Window) -> str:
    feedback = window.feedback
    if feedback is None:
        return "-"
    expired = f", {feedback.expired} expired" if feedback.expired else ""
    return f"{feedback.correct} of {feedback.labelled} correct{expired}"


def _shadow_json(window: Window) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "compared": shadow.samples,
            "disagreed": shadow.samples - shadow.agree,
            "sqnr_db": _sqnr_db(shadow),
            "dropped": shadow.dropped,
            "failed": shadow.failed,
        }
        for name, shadow in window.shadow.items()
    }


def _shadows_text(window: Window) -> str:
    return "; ".join(f"{name}: {_shadow_text(shadow)}" for name, shadow in window.shadow.items()) or "-"


def _shadow_text(shadow: Shadow) -> str:
    parts = [f"{shadow.samples} compared"]
    if shadow.samples:
        disagreed = shadow.samples - shadow.agree
        parts.append(f"{disagreed} disagreed ({format_percent(disagreed / shadow.samples)})")
    sqnr_db = _sqnr_db(shadow)
    if sqnr_db is not None:
        parts.append(f"SQNR {sqnr_db:.1f} dB")
    for count, word in ((shadow.dropped, "dropped"), (shadow.failed, "failed")):
        if count:
            parts.append(f"{count} {word}")
    return ", ".join(parts)


def _sqnr_db(shadow: Shadow) -> float | None:
    """Return the SQNR of the release's outputs against the shadow's; None where it is unknown or infinite."""
    if not shadow.signal or not shadow.noise:
        return None
    # A difference of logarithms: the quotient may be too small for a float.
    sqnr_db = 10 * (math.log10(shadow.signal) - math.log10(shadow.noise))
    return sqnr_db if math.isfinite(sqnr_db) else None


def _figure(key: str, to_json: Callable[[Window], Any], *columns: FieldColumn) -> FieldFigure:
    return FieldFigure(key=key, to_json=to_json, columns=columns)


def _count_figure(key: str, heading: str, count: Callable[[Window], int | None]) -> FieldFigure:
    return _figure(key, count, FieldColumn(heading, lambda window: _count_text(count(window))))


FIGURES: tuple[FieldFigure, ...] = (
    _count_figure("inferences", "inferences", lambda w: w.inferences),
    _figure("errors", lambda w: dict(w.errors), FieldColumn("errors", _errors_text, numeric=False)),
    _figure(
        "latency_ns",
        _latency_json,
        FieldColumn("p50", _latency_text(0.5)),
        FieldColumn("p95", _latency_text(0.95)),
    ),
    _figure("memory_peak_bytes", lambda w: w.memory_peak_bytes, FieldColumn("peak memory", _memory_text)),
    _figure("temperature_c", lambda w: w.temperature_c, FieldColumn("hottest", _temperature_text)),
    _count_figure("deadline_misses", "deadline misses", lambda w: w.deadline_misses),
    _count_figure("unrecorded", "unrecorded", lambda w: w.unrecorded),
    _figure("shadow", _shadow_json, FieldColumn("shadow", _shadows_text, numeric=False)),
    _figure("feedback", _feedback_json, FieldColumn("feedback", _feedback_text, numeric=False)),
    _count_figure("merged", "windows", lambda w: w.merged),
    _figure(
        "interrupted",
        lambda w: w.interrupted,
        FieldColumn("interrupted", lambda w: _if_any_text(w.interrupted)),
    ),
    _figure("lost", lambda w: w.lost, FieldColumn("lost windows", lambda w: _if_any_text(w.lost))),
    _figure("clock_synced", lambda w: w.clock_synced, FieldColumn("clock", _clock_text, numeric=False)),
    _figure("uptime_ns", lambda w: w.uptime_ns),
    _figure("started_ns", lambda w: w.started_ns, FieldColumn("period (UTC)", _period_text, numeric=False)),
    _figure("ended_ns", lambda w: w.ended_ns),
)
COLUMNS = tuple(column for figure in FIGURES for column in figure.columns)
