"""Report sections on the field: telemetry totals, drift verdicts, e-values, shifted histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeq.monitor import DriftVerdict, SignalVerdict, TelemetryStream
from edgeq.monitor.field import COLUMNS
from edgeq.report.view import Figure, Level, Table, VerdictLine

# Further histograms of a stream add little; the strongest signals are shown.
MOST_HISTOGRAMS = 3
_MOST_LINES = 8


def drift_verdicts(streams: Sequence[TelemetryStream]) -> list[VerdictLine]:
    """Return one sentence for each stream."""
    return [_sentence(stream) for stream in streams]


def field_table(streams: Sequence[TelemetryStream]) -> Table:
    """Return the table of what devices measured in the field, with the columns of `edgeq.monitor.field`."""
    return Table(
        id="field",
        title="In the field",
        headings=("device", "model", *(column.heading for column in COLUMNS)),
        rows=tuple(
            (
                stream.device,
                _name(stream),
                *(column.text(stream.field.total) for column in COLUMNS),
            )
            for stream in streams
        ),
        numeric=tuple(index for index, column in enumerate(COLUMNS, 2) if column.numeric),
        note="All collected windows of a device and release. Latencies are from merged sketches, within 1 %. "
        "A dash means that the device did not measure it. Unrecorded inferences have no latency and no "
        "histogram, because the recorder was behind. Windows are counted as the device recorded them: "
        "a device that is offline for long merges them, so that the store has fewer.",
    )


def drift_table(streams: Sequence[TelemetryStream]) -> Table:
    """Return the table of drift verdicts."""
    return Table(
        id="streams",
        title="Drift",
        headings=("device", "model", "windows", "e-value", "alarm at", "verdict"),
        rows=tuple(_row(stream) for stream in streams),
        numeric=(2, 3, 4),
        note="An e-value of 1/alpha or more is an alarm; the column shows 1/alpha. Without a change, that "
        "happens on a stream with probability alpha at most, over its whole life.",
    )


def drift_figures(streams: Sequence[TelemetryStream]) -> tuple[Figure, ...]:
    """Return for each stream a plot of its e-values, and the histograms of its strongest signals."""
    figures: list[Figure] = []
    for number, stream in enumerate(streams):
        verdict = stream.verdict
        if verdict is None or not verdict.signals:
            continue
        name = f"{stream.device}: {_name(stream)}"
        figures.append(_evidence(f"evidence-{number}", name, verdict))
        shown = sorted(verdict.shifted or verdict.signals, key=_strength, reverse=True)[:MOST_HISTOGRAMS]
        figures.extend(
            _histogram(f"histogram-{number}-{index}", name, signal) for index, signal in enumerate(shown)
        )
    return tuple(figures)


def _sentence(stream: TelemetryStream) -> VerdictLine:
    name = f"{stream.device}: {_name(stream)}"
    verdict = stream.verdict
    if verdict is None and stream.problem is not None:
        return VerdictLine(level=Level.BAD, text=f"{name} could not be judged: {stream.problem}.")
    if verdict is None:
        return VerdictLine(
            level=Level.NOTE, text=f"{name} is not judged: the store has no drift reference of this release."
        )
    if not verdict.windows:
        return VerdictLine(
            level=Level.NOTE, text=f"{name} is not judged: no window matches the drift reference."
        )
    if not verdict.alarm:
        text = f"{name} shows no shift in {verdict.windows} windows ({verdict.samples} inferences)."
        return VerdictLine(level=Level.OK, text=text)
    moved = ", ".join(f"{signal.name} (PSI {signal.psi:.2f})" for signal in verdict.shifted[:4])
    text = f"{name} HAS SHIFTED since window {_since(verdict) + 1} of {verdict.windows}: {moved}."
    return VerdictLine(level=Level.BAD, text=text)


def _since(verdict: DriftVerdict) -> int:
    return verdict.shifted[0].since_window


def _name(stream: TelemetryStream) -> str:
    return f"{stream.model} {stream.release[:8]}"


def _row(stream: TelemetryStream) -> tuple[str, ...]:
    verdict = stream.verdict
    if verdict is None:
        outcome = "no reference" if stream.problem is None else "not judged"
    elif verdict.alarm:
        outcome = f"ALARM after window {(verdict.at_window or 0) + 1}"
    else:
        outcome = "no alarm"
    return (
        stream.device,
        _name(stream),
        str(stream.field.windows),
        "-" if verdict is None else f"{verdict.e_value:.3g}",
        "-" if verdict is None else f"{1 / verdict.alpha:g}",
        outcome,
    )


def _evidence(identity: str, name: str, verdict: DriftVerdict) -> Figure:
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
        caption=f"Above the dashed line (10^{limit:.2g}) there is an alarm. Without a change, the average "
        f"ever crosses it with probability {verdict.alpha:g} at most.",
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
        caption=f"Windows from {signal.since_window + 1} on, compared with the reference: "
        f"PSI {signal.psi:.2f}, Jensen-Shannon distance {signal.js:.2f}, e-value {signal.e_value:.3g}.",
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
    # The end bins also count all values outside; their outer edges mean nothing.
    if index == 0:
        return f"< {signal.edges[1]:.3g}"
    if index == len(signal.edges) - 2:
        return f">= {signal.edges[index]:.3g}"
    return f"{signal.edges[index]:.3g} to {signal.edges[index + 1]:.3g}"


def _strength(signal: SignalVerdict) -> float:
    return max(signal.log10_e)
