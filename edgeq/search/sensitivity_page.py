"""The report page of a sensitivity analysis."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import edgeq
from edgeq.evaluation.sensitivity import OpSensitivity, Sensitivity, Spread
from edgeq.files import sha256_of
from edgeq.report import Figure, Level, ReportView, Table, VerdictLine, utc_now

_HISTOGRAMS = 12


def sensitivity_view(
    model: Path, result: Sensitivity, *, now: Callable[[], datetime] = utc_now
) -> ReportView:
    """Return the page: advice first, then every operation, then histograms of the worst ones."""
    return ReportView(
        title=f"Sensitivity of {model.stem}",
        created=now().strftime("%Y-%m-%d %H:%M UTC"),
        verdicts=_verdicts(result),
        variants=_table(result),
        pareto=_along_figure(result),
        devices=None,
        latency=_share_figure(result),
        streams=None,
        drift=_histograms(result),
        provenance=Table(
            id="provenance",
            title="Provenance",
            headings=("what", "value"),
            rows=(
                ("edgeq", edgeq.__version__),
                ("model", f"{model.name} {sha256_of(model)}"),
                ("measured at", ", ".join(result.measured_at)),
                ("calibrator", result.calibrator),
                ("calibration samples", str(result.calibration_samples)),
                ("evaluation samples", str(result.samples)),
            ),
        ),
    )


def _verdicts(result: Sensitivity) -> tuple[VerdictLine, ...]:
    where = f"the logits, before {', '.join(result.before)}" if result.before else "the outputs"
    lines = [
        VerdictLine(
            level=Level.NOTE,
            text=f"All operations in int8: SQNR {decibel(result.int8_db)} at {where}, uncorrected"
            f"{_worst_at(result)}.",
        )
    ]
    worst = [line for i in result.ranking for line in result.ops[i].advice]
    lines += [VerdictLine(level=Level.BAD, text=line) for line in worst]
    lines += [VerdictLine(level=Level.NOTE, text=line) for line in result.notes]
    return tuple(lines)


def _worst_at(result: Sensitivity) -> str:
    worst = min(result.int8_outputs, key=lambda output: output.worst_db, default=None)
    return "" if worst is None or not result.has_slices else f" ({worst.worst_at}, the worst)"


def _table(result: Sensitivity) -> Table:
    where = ("worst at",) if result.has_slices else ()
    return Table(
        id="operations",
        title="Operations",
        headings=(
            "op",
            "operation",
            "alone",
            "up to here",
            "its output",
            "share",
            "output",
            "weights",
            "",
            *where,
        ),
        rows=tuple(_row(op, where=bool(where)) for op in result.ops),
        numeric=(0, 2, 3, 4, 5),
        note="SQNR in dB; at the logits, of the worst slice of the worst output. Alone: only this operation "
        "is int8. Up to here: it and all before it. Its output: the noise in its own output where all are "
        "int8. Share: of the sum of what each alone adds.",
    )


def _row(op: OpSensitivity, *, where: bool) -> tuple[str, ...]:
    return (
        str(op.index),
        op.op,
        decibel(op.alone_db),
        decibel(op.cumulative_db),
        decibel(op.local_db),
        "-" if op.share is None else f"{100 * op.share:.1f} %",
        _range(op.activation),
        _range(op.weights),
        op.reason,
        *(("-" if op.alone_at is None else op.alone_at.worst_at,) if where else ()),
    )


def _range(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    ratio = "" if spread.channel_ratio is None else f", channels {spread.channel_ratio:.1f}x"
    return f"{spread.minimum:.3g} to {spread.maximum:.3g}{ratio}"


def _along_figure(result: Sensitivity) -> Figure:
    lines = (
        ("only this operation int8", [op.alone_db for op in result.ops], "markers"),
        ("this and all before it int8", [op.cumulative_db for op in result.ops], "lines+markers"),
        ("its own output, all int8", [op.local_db for op in result.ops], "lines"),
    )
    names = [f"{op.index} {op.op}" for op in result.ops]
    return Figure(
        id="along",
        title="SQNR along the graph",
        caption="A step down of the second line is noise that reaches the logits; a low marker is an "
        "operation that loses much on its own.",
        data=tuple(
            {
                "type": "scatter",
                "mode": mode,
                "name": name,
                "x": names,
                "y": [_finite(value) for value in values],
                "marker": {"size": 9},
            }
            for name, values, mode in lines
        ),
        layout={"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "SQNR (dB)"}}},
    )


def _share_figure(result: Sensitivity) -> Figure:
    ranked = [result.ops[i] for i in result.ranking[:20]]
    return Figure(
        id="share",
        title="Where the noise comes from",
        caption="Each operation's share of the summed noise of all operations alone, worst first.",
        data=(
            {
                "type": "bar",
                "name": "share",
                "x": [f"{op.index} {op.op}" for op in ranked],
                "y": [100 * (op.share or 0.0) for op in ranked],
            },
        ),
        layout={"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "share of the noise (%)"}}},
    )


def _histograms(result: Sensitivity) -> tuple[Figure, ...]:
    figures = []
    for i in result.ranking[:_HISTOGRAMS]:
        op = result.ops[i]
        for what, spread in (("output", op.activation), ("weights", op.weights)):
            if spread is not None:
                figures.append(_histogram(op, what, spread))
    return tuple(figures)


def _histogram(op: OpSensitivity, what: str, spread: Spread) -> Figure:
    low, high = spread.central
    ratio = "" if spread.channel_ratio is None else f" Channels differ {spread.channel_ratio:.1f} times."
    return Figure(
        id=f"op-{op.index}-{what}",
        title=f"op {op.index} {op.op}: {what}",
        caption=f"{spread.minimum:.4g} to {spread.maximum:.4g}; all but 0.02 % lie in {low:.4g} to "
        f"{high:.4g}.{ratio}",
        data=(
            {
                "type": "bar",
                "name": what,
                "x": [(a + b) / 2 for a, b in zip(spread.edges, spread.edges[1:], strict=False)],
                "y": [count if count else None for count in spread.counts],
                "width": [b - a for a, b in zip(spread.edges, spread.edges[1:], strict=False)],
            },
        ),
        layout={
            "height": 240,
            "xaxis": {"title": {"text": "value"}},
            "yaxis": {"type": "log", "title": {"text": "count"}},
        },
    )


def decibel(value: float | None) -> str:
    """Return dB as text."""
    if value is None:
        return "-"
    return "no noise" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
