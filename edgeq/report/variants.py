"""Report section on variants: candidates, their limits, and the Pareto plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.report.view import Figure, Level, Table, VerdictLine
from edgeq.store import RunRecord
from edgeq.units import format_limit, format_percent, format_size

Json = Mapping[str, Any]

_GATE_NAMES = {
    "accuracy_drop_max": "accuracy drop",
    "accuracy_drop_relative_max": "relative accuracy drop",
    "accuracy_min": "accuracy",
    "class_drop_max": "recall drop of the worst class",
    "agreement_min": "agreement",
    "output_sqnr_db_min": "output SQNR",
    "ece_max": "calibration error",
    "robustness_drop_max": "accuracy drop on corrupted inputs",
    "size_bytes_max": "size",
    "latency_p95_ns_max": "latency p95",
    "memory_peak_bytes_max": "peak memory",
    "energy_nj_max": "energy",
}


def variants_verdict(run: RunRecord) -> VerdictLine:
    """Return the sentence that names the chosen variant and its metrics."""
    chosen = run.body.get("chosen")
    if chosen is None:
        return VerdictLine(level=Level.BAD, text=f"{run.subject}: no variant meets every limit.")
    candidate = next(each for each in run.body["candidates"] if each["name"] == chosen)
    metrics = candidate["metrics"]
    parts = [format_size(candidate["size_bytes"])]
    if metrics.get("accuracy") is not None:
        parts.append(f"accuracy {format_percent(metrics['accuracy'])}")
    if metrics.get("output_sqnr_db") is not None:
        parts.append(f"output SQNR {metrics['output_sqnr_db']:.1f} dB against float")
    return VerdictLine(level=Level.OK, text=f"{run.subject}: {chosen} was chosen: {', '.join(parts)}.")


def variants_table(run: RunRecord, on_devices: Mapping[str, Json]) -> Table:
    """Return the table of candidates.

    Args:
        on_devices: by variant, the largest value that devices measured for limits which a selection cannot
            check: `latency_p95_ns_max`, `memory_peak_bytes_max`.
    """
    candidates: Sequence[Json] = run.body["candidates"]
    return Table(
        id="variants",
        title="Variants",
        headings=("variant", "size", "accuracy", "agreement", "output SQNR", "Pareto front", "limits"),
        rows=tuple(
            _row(candidate, str(run.body.get("chosen")), on_devices.get(candidate["name"], {}))
            for candidate in candidates
        ),
        numeric=(1, 2, 3, 4),
        note="Agreement and SQNR are relative to the float model on the same samples. "
        "A dash means that the value was not measured.",
    )


def pareto_figure(run: RunRecord) -> Figure | None:
    """Return the plot of size against accuracy, or SQNR if accuracies do not differ; None without either."""
    candidates: Sequence[Json] = run.body["candidates"]
    key, label, factor = "accuracy", "accuracy (%)", 100.0
    # Equal or missing accuracies do not separate the variants; the quantization noise still does.
    if len({each["metrics"].get(key) for each in candidates}) < 2:
        key, label, factor = "output_sqnr_db", "output SQNR (dB)", 1.0
    shown = [each for each in candidates if each["metrics"].get(key) is not None]
    if not shown:
        return None
    traces = []
    for on_front, name, symbol in ((True, "on the Pareto front", "circle"), (False, "dominated", "x")):
        part = [each for each in shown if bool(each.get("on_front")) is on_front]
        if part:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "name": name,
                    "x": [each["size_bytes"] / 1024 for each in part],
                    "y": [factor * each["metrics"][key] for each in part],
                    "text": [each["name"] for each in part],
                    "textposition": "top center",
                    "marker": {"size": 12, "symbol": symbol},
                    "cliponaxis": False,
                }
            )
    return Figure(
        id="pareto",
        title=f"Size against {label}",
        caption="Up and to the left is better. No variant is better in both than one on the front.",
        data=tuple(traces),
        layout={"xaxis": {"title": {"text": "size (KiB)"}}, "yaxis": {"title": {"text": label}}},
    )


def _row(candidate: Json, chosen: str, on_devices: Json) -> tuple[str, ...]:
    metrics = candidate["metrics"]
    name = str(candidate["name"])
    return (
        f"{name} (chosen)" if name == chosen else name,
        format_size(candidate["size_bytes"]),
        _percent(metrics.get("accuracy")),
        _percent(metrics.get("agreement")),
        "-" if metrics.get("output_sqnr_db") is None else f"{metrics['output_sqnr_db']:.1f} dB",
        "yes" if candidate.get("on_front") else "no",
        "; ".join(_gate(gate, on_devices) for gate in candidate.get("gates", ())) or "none",
    )


def _gate(gate: Json, on_devices: Json) -> str:
    holds = gate["holds"]
    if holds is None and on_devices.get(gate["name"]) is not None:
        holds = on_devices[gate["name"]] <= gate["limit"]
    word = {True: "holds", False: "FAILS", None: "not measured yet"}[holds]
    name = _GATE_NAMES.get(gate["name"], gate["name"])
    if gate.get("subset"):
        name = f"{name} of {gate['subset']}"
    bound = "at most" if gate["name"].endswith("_max") else "at least"
    return f"{name} {bound} {format_limit(gate['name'], gate['limit'])}: {word}"


def _percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else format_percent(value)
