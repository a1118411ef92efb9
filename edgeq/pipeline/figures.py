"""The figures of a run: accuracy against size and against latency, and the latencies of each target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.pipeline.judging import Target
from edgeq.pipeline.result import RunResult
from edgeq.pipeline.sections import decibels
from edgeq.report.vector import (
    Axis,
    Drawing,
    Point,
    PointKind,
    Scatter,
    Span,
    Spans,
    scatter,
    spans,
)
from edgeq.selection import Candidate
from edgeq.units import format_duration, format_percent, format_size
from edgeq.values import Metrics

# Beyond this ratio of the largest to the smallest, most points of a linear axis would lie on one spot.
_LOG_FROM = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quality:
    """What the figures call better: accuracy, or SQNR where accuracies do not differ."""

    title: str
    axis: Axis
    of_accuracy: bool

    def value(self, metrics: Metrics) -> float | None:
        return metrics.accuracy if self.of_accuracy else metrics.worst_sqnr_db

    def text(self, value: float) -> str:
        return f"accuracy {format_percent(value)}" if self.of_accuracy else f"worst SQNR {decibels(value)}"


def pareto_figures(result: RunResult, *, prefix: str = "") -> tuple[Drawing, ...]:
    """Return accuracy (or worst SQNR) against size, and against the latency on each target.

    Args:
        prefix: of the figures' ids, where several results share a page.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    quality = _quality(result.selection.candidates)
    sizes = {each.variant.name: float(each.variant.size_bytes) for each in result.selection.candidates}
    figures = [_pareto(result, quality, sizes, id=f"{prefix}pareto-size", what="size")]
    for number, target in enumerate(result.targets):
        figures.append(
            _pareto(
                result,
                quality,
                _medians(result.selection.candidates, target),
                id=f"{prefix}pareto-latency-{number}",
                what=f"latency on {_place(target)}",
            )
        )
    return tuple(figure for figure in figures if figure is not None)


def latency_figures(result: RunResult) -> tuple[Drawing, ...]:
    """Return for each target the latencies of all candidates that it measured.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figures = []
    for number, target in enumerate(result.targets):
        rows = [span for each in result.selection.candidates if (span := _span(result, each, target))]
        if not rows:
            continue
        unit, name = _time_unit([row.p95 for row in rows])
        axis = Axis(
            title=f"latency of one inference ({name})",
            unit=unit,
            log=max(row.p95 for row in rows) > _LOG_FROM * min(row.low for row in rows),
        )
        figures.append(
            spans(
                Spans(
                    id=f"latency-{number}",
                    title=f"Latency on {_place(target)}",
                    caption="Dot or star: median. Bar: range of the median over the session. Diamond: p95.",
                    x=axis,
                    spans=tuple(rows),
                )
            )
        )
    return tuple(figures)


def _quality(candidates: Sequence[Candidate]) -> _Quality:
    # Equal or missing accuracies do not separate the candidates; the quantization noise still does.
    if len({each.variant.metrics.accuracy for each in candidates}) > 1:
        return _Quality(title="Accuracy", axis=Axis(title="accuracy (%)", unit=0.01), of_accuracy=True)
    return _Quality(title="Worst SQNR", axis=Axis(title="worst SQNR (dB)"), of_accuracy=False)


def _medians(candidates: Sequence[Candidate], target: Target) -> dict[str, float]:
    measured = {each.variant.name: target.latencies.get(each.variant.sha256) for each in candidates}
    return {name: float(latency.p50_ns) for name, latency in measured.items() if latency is not None}


def _pareto(
    result: RunResult, quality: _Quality, costs: dict[str, float], *, id: str, what: str
) -> Drawing | None:
    values = {
        each.variant.name: value
        for each in result.selection.candidates
        if each.variant.name in costs and (value := quality.value(each.variant.metrics)) is not None
    }
    drawn = {name: (costs[name], value) for name, value in values.items() if math.isfinite(value)}
    if not drawn:
        return None
    of_size = what == "size"
    unit, unit_name = (_size_unit if of_size else _time_unit)([cost for cost, _ in drawn.values()])
    chosen = "" if result.chosen is None else result.chosen.variant.name
    points = [
        Point(
            name=name,
            x=cost,
            y=value,
            kind=_kind(name, chosen, drawn),
            text=f"{name}: {(format_size if of_size else format_duration)(cost)}, {quality.text(value)}",
        )
        for name, (cost, value) in drawn.items()
    ]
    equal = [name for name in values if name not in drawn]
    caption = "Up and to the left is better; nothing is better in both than a candidate on the front."
    if equal:
        caption += f" Not drawn, because the outputs equal those of the float model: {', '.join(equal)}."
    costs_drawn = [cost for cost, _ in drawn.values()]
    return scatter(
        Scatter(
            id=id,
            title=f"{quality.title} against {what}",
            caption=caption,
            x=Axis(
                title=f"{'size' if of_size else 'median latency'} ({unit_name})",
                unit=unit,
                log=max(costs_drawn) > _LOG_FROM * min(costs_drawn),
            ),
            y=quality.axis,
            points=tuple(points),
        )
    )


def _kind(name: str, chosen: str, drawn: dict[str, tuple[float, float]]) -> PointKind:
    if name == chosen:
        return PointKind.CHOSEN
    cost, value = drawn[name]
    better = (other != (cost, value) and other[0] <= cost and other[1] >= value for other in drawn.values())
    return PointKind.DOMINATED if any(better) else PointKind.FRONT


def _span(result: RunResult, candidate: Candidate, target: Target) -> Span | None:
    latency = target.latencies.get(candidate.variant.sha256)
    if latency is None:
        return None
    low, median, high, p95 = (
        format_duration(each) for each in (latency.low_ns, latency.p50_ns, latency.high_ns, latency.p95_ns)
    )
    return Span(
        name=candidate.variant.name,
        low=latency.low_ns,
        median=latency.p50_ns,
        high=latency.high_ns,
        p95=latency.p95_ns,
        chosen=result.chosen is not None and result.chosen.variant.name == candidate.variant.name,
        text=f"{candidate.variant.name}: median {median} ({low} to {high}), p95 {p95}",
    )


def _place(target: Target) -> str:
    return target.name or "this machine"


def _size_unit(sizes: Sequence[float]) -> tuple[float, str]:
    return (2.0**20, "MiB") if min(sizes) >= 2**20 else (2.0**10, "KiB")


def _time_unit(durations: Sequence[float]) -> tuple[float, str]:
    return (1e6, "ms") if max(durations) >= 1e6 else (1e3, "us")
