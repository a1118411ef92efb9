"""The report page of a search: verdict, candidates, Pareto fronts in size and latency, float regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import edgeq
from edgeq.blueprint import Blueprint
from edgeq.report import Figure, Level, ReportView, Table, VerdictLine, utc_now
from edgeq.search.run import SearchResult
from edgeq.search.scoring import Point
from edgeq.search.sensitivity_page import decibel
from edgeq.units import format_duration, format_percent, format_size

# The search over float regions gives 200 dB where there is no noise: every operation is float.
_NO_NOISE_DB = 200.0


def search_view(
    blueprint: Blueprint, result: SearchResult, *, now: Callable[[], datetime] = utc_now
) -> ReportView:
    """Return the page of a search."""
    scores = result.scores
    level = Level.BAD if scores.chosen is None else Level.OK
    verdicts = [VerdictLine(level=level, text=f"{blueprint.name}: {scores.verdict}.")]
    verdicts += [
        VerdictLine(level=Level.NOTE, text=f"{each.name} could not be built: {each.problem}")
        for each in result.candidates
        if each.variant is None
    ]
    return ReportView(
        title=f"Mixed precision search of {blueprint.name}",
        created=now().strftime("%Y-%m-%d %H:%M UTC"),
        verdicts=tuple(verdicts),
        variants=_table(result),
        pareto=_front(scores.points, "size", "size (KiB)", lambda point: point.variant.size_bytes / 1024),
        devices=None,
        latency=_front(scores.points, "latency", "latency p50 (us)", _latency_us),
        streams=None,
        drift=(_regions_figure(result),),
        provenance=Table(
            id="provenance",
            title="Provenance",
            headings=("what", "value"),
            rows=(
                ("edgeq", edgeq.__version__),
                ("blueprint", f"{blueprint.name} {blueprint.digest}"),
                ("timed on", " ".join(result.where.split()[:2])),
                *((f"model {point.variant.name}", point.variant.sha256) for point in scores.points),
            ),
        ),
    )


def _table(result: SearchResult) -> Table:
    chosen = result.scores.chosen
    return Table(
        id="candidates",
        title="Candidates",
        headings=(
            "candidate",
            "size",
            "latency p50",
            "p95",
            "accuracy",
            "output SQNR",
            "float operations",
            "front",
            "limits",
        ),
        rows=tuple(_row(point, chosen) for point in result.scores.points),
        numeric=(1, 2, 3, 4, 5, 6),
        note="In the blueprint's order of preference. Front: no other candidate is as good in accuracy, "
        "SQNR, size and latency and better in one; latencies within 3 % count as equal. The SQNR is that of "
        "the worst slice of the worst output.",
    )


def _row(point: Point, chosen: Point | None) -> tuple[str, ...]:
    metrics, latency = point.variant.metrics, point.latency
    return (
        f"{point.variant.name}{' (chosen)' if point is chosen else ''}",
        format_size(point.variant.size_bytes),
        "-" if latency is None else format_duration(latency.p50_ns),
        "-" if latency is None else format_duration(latency.p95_ns),
        "-" if metrics.accuracy is None else format_percent(metrics.accuracy),
        decibel(metrics.worst_sqnr_db),
        str(len(point.built.recipe.float_ops)),
        "yes" if point.on_front else "no",
        ", ".join(gate.text for gate in point.gates) or "none stated",
    )


def _latency_us(point: Point) -> float | None:
    return None if point.latency is None else point.latency.p50_ns / 1000


def _front(
    points: Sequence[Point], name: str, label: str, across: Callable[[Point], float | None]
) -> Figure | None:
    shown = [
        (x, y, point)
        for point in points
        if (x := across(point)) is not None
        and (y := point.variant.metrics.worst_sqnr_db) is not None
        and math.isfinite(y)
    ]
    if not shown:
        return None
    traces: list[Mapping[str, Any]] = []
    for on_front, called, symbol in ((True, "on the front", "circle"), (False, "dominated", "x")):
        part = [each for each in shown if each[2].on_front is on_front]
        if part:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "name": called,
                    "x": [x for x, _, _ in part],
                    "y": [y for _, y, _ in part],
                    "text": [point.variant.name for _, _, point in part],
                    "textposition": "top center",
                    "marker": {"size": 12, "symbol": symbol},
                    "cliponaxis": False,
                }
            )
    return Figure(
        id=f"front-{name}",
        title=f"Output SQNR against {name}",
        caption="Up and to the left is better. The SQNR is that of the worst slice of the worst output. The "
        "float model has no noise and is not drawn.",
        data=tuple(traces),
        layout={"xaxis": {"title": {"text": label}}, "yaxis": {"title": {"text": "output SQNR (dB)"}}},
    )


def _regions_figure(result: SearchResult) -> Figure:
    sets = [each for each in result.regions.sets if each.sqnr_db < _NO_NOISE_DB]
    families = list(dict.fromkeys(each.family for each in sets))
    return Figure(
        id="float-regions",
        title="Float regions: noise against work kept float",
        caption="Every choice of float operations whose noise was measured on held-out samples, before "
        "correction.",
        data=tuple(
            {
                "type": "scatter",
                "mode": "markers",
                "name": family,
                "x": [100 * each.work for each in sets if each.family == family],
                "y": [each.sqnr_db for each in sets if each.family == family],
                "text": [", ".join(map(str, each.indices)) for each in sets if each.family == family],
            }
            for family in families
        ),
        layout={
            "xaxis": {"title": {"text": "share of the multiplications in float (%)"}},
            "yaxis": {"title": {"text": "SQNR of the worst slice at the logits (dB)"}},
        },
    )
