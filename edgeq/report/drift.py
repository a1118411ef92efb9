"""The report's part on drift: e-values over windows, and the histograms that moved."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeq.monitor import Judged, SignalVerdict, Verdict
from edgeq.report.view import Figure, Level, Table, VerdictLine
from edgeq.units import format_duration

# More histograms than this a stream only repeat each other; the strongest are shown.
MOST_HISTOGRAMS = 3
_MOST_LINES = 8


def drift_verdicts(streams: Sequence[Judged]) -> list[VerdictLine]:
    """Return a sentence for each stream."""
    return [_sentence(stream) for stream in streams]


def drift_table(streams: Sequence[Judged]) -> Table:
    """Return the table of streams."""
    return Table(
        id="streams",
        title="In the field",
        headings=("device", "model", "windows", "inferences", "errors", "p50", "p95", "e-value", "verdict"),
        rows=tuple(_row(stream) for stream in streams),
        numeric=(2, 3, 4, 5, 6, 7),
        note="Latencies are from merged sketches, within 1 %. An e-value of 1/alpha or more is an alarm; "
        "without a change that ever happens with probability alpha at most.",
    )


def drift_figures(streams: Sequence[Judged]) -> tuple[Figure, ...]:
    """Return for each stream its e-values over windows, and its strongest signals' histograms."""
    figures: list[Figure] = []
    for number, stream in enumerate(streams):
        verdict = stream.verdict
        if verdict is None or not verdict.signals:
            continue
        name = f"{stream.device}: {stream.model} {stream.release[:8]}"
        figures.append(_evidence(f"evidence-{number}", name, verdict))
        shown = sorted(verdict.shifted or verdict.signals, key=_strength, reverse=True)[:MOST_HISTOGRAMS]
        figures.extend(
            _histogram(f"histogram-{number}-{index}", name, signal) for index, signal in enumerate(shown)
        )
    return tuple(figures)


def _sentence(stream: Judged) -> VerdictLine:
    name = f"{stream.device}: {stream.model} {stream.release[:8]}"
    verdict = stream.verdict
    if verdict is None:
        return VerdictLine(
            level=Level.NOTE, text=f"{name} is not judged: its drift reference is not known here."
        )
    if not verdict.windows:
        return VerdictLine(level=Level.NOTE, text=f"{name} is not judged: no window fits its reference.")
    if not verdict.alarm:
        text = f"{name} shows no shift in {verdict.windows} windows ({verdict.samples} inferences)."
        return VerdictLine(level=Level.OK, text=text)
    moved = ", ".join(f"{signal.name} (PSI {signal.psi:.2f})" for signal in verdict.shifted[:4])
    text = f"{name} HAS SHIFTED since window {_since(verdict) + 1} of {verdict.windows}: {moved}."
    return VerdictLine(level=Level.BAD, text=text)


def _since(verdict: Verdict) -> int:
    return verdict.shifted[0].since_window


def _row(stream: Judged) -> tuple[str, ...]:
    latency, verdict = stream.latency, stream.verdict
    if verdict is None:
        said = "no reference"
    elif verdict.alarm:
        said = f"ALARM after window {(verdict.at_window or 0) + 1}"
    else:
        said = "no alarm"
    return (
        stream.device,
        f"{stream.model} {stream.release[:8]}",
        str(stream.windows),
        str(stream.inferences),
        ", ".join(f"{number} x {kind}" for kind, number in stream.errors.items()) or "0",
        "-" if latency is None else format_duration(latency.quantile_ns(0.5)),
        "-" if latency is None else format_duration(latency.quantile_ns(0.95)),
        "-" if verdict is None else f"{verdict.e_value:.3g}",
        said,
    )


def _evidence(identity: str, name: str, verdict: Verdict) -> Figure:
    windows = list(range(1, verdict.windows + 1))
    traces: list[dict[str, object]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "all signals (average)",
            "x": windows,
            "y": list(verdict.log10_e),
            "line": {"width": 3},
        }
    ]
    for signal in sorted(verdict.signals, key=_strength, reverse=True)[:_MOST_LINES]:
        line = {"width": 1, "dash": "dot"}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": signal.name,
                "x": windows,
                "y": list(signal.log10_e),
                "line": line,
            }
        )
    limit = -math.log10(verdict.alpha)
    return Figure(
        id=identity,
        title=f"{name}: evidence for a shift",
        caption=f"The average crosses the dashed line (10^{limit:.2g}, alpha = {verdict.alpha:g}) only if "
        "something has changed, but for a chance of alpha over the stream's whole life.",
        data=tuple(traces),
        layout={
            "xaxis": {"title": {"text": "window"}},
            "yaxis": {"title": {"text": "log10 of the e-value"}},
            "shapes": [
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": limit,
                    "y1": limit,
                    "line": {"dash": "dash", "width": 2, "color": "#d1242f"},
                }
            ],
        },
    )


def _histogram(identity: str, name: str, signal: SignalVerdict) -> Figure:
    labels = [_bin(signal, index) for index in range(len(signal.reference))]
    traces = []
    for title, counts in (("reference", signal.reference), ("field", signal.field)):
        total = max(1, sum(counts))
        shares = [100 * count / total for count in counts]
        traces.append({"type": "bar", "name": f"{title} (n = {total})", "x": labels, "y": shares})
    return Figure(
        id=identity,
        title=f"{name}: {signal.name}",
        caption=f"Windows from {signal.since_window + 1} on against the reference: PSI {signal.psi:.2f}, "
        f"Jensen-Shannon distance {signal.js:.2f}, e-value {signal.e_value:.3g}.",
        data=tuple(traces),
        layout={
            "barmode": "group",
            "xaxis": {"title": {"text": signal.name}, "type": "category"},
            "yaxis": {"title": {"text": "share (%)"}},
        },
    )


def _bin(signal: SignalVerdict, index: int) -> str:
    if not signal.edges:
        return str(index)
    # The outer bins also hold whatever lies further out; their far edges say nothing.
    if index == 0:
        return f"< {signal.edges[1]:.3g}"
    if index == len(signal.edges) - 2:
        return f">= {signal.edges[index]:.3g}"
    return f"{signal.edges[index]:.3g} to {signal.edges[index + 1]:.3g}"


def _strength(signal: SignalVerdict) -> float:
    return max(signal.log10_e)
