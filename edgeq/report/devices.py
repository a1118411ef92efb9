"""Report section on benchmarks: the newest result of each model and release on each device."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.benchmark import BenchResult, parse_bench
from edgeq.errors import AgentProtocolError
from edgeq.report.view import Figure, Level, Table, VerdictLine
from edgeq.store import BenchRecord
from edgeq.units import format_duration, format_size

DeviceBench = tuple[str, BenchResult]


def newest(records: Sequence[BenchRecord]) -> list[DeviceBench]:
    """Return the newest result of each (device, model, release, threads), in the order of first results."""
    benches: dict[tuple[str, str, str, int], DeviceBench] = {}
    for record in records:
        result = _readable(record)
        if result is None:
            continue
        benches[record.device, record.model, record.release, result.threads] = (record.device, result)
    return list(benches.values())


def unreadable_verdicts(records: Sequence[BenchRecord]) -> list[VerdictLine]:
    """Return a line for each stored result that this version cannot read."""
    return [
        VerdictLine(
            level=Level.NOTE, text=f"{record.device}: benchmark {record.id} of {record.model} cannot be read."
        )
        for record in records
        if _readable(record) is None
    ]


def _readable(record: BenchRecord) -> BenchResult | None:
    try:
        return parse_bench(record.body, device=record.device)
    except AgentProtocolError:
        return None  # an earlier version stored it; `unreadable_verdicts` says so


def device_verdicts(measured: Sequence[DeviceBench]) -> list[VerdictLine]:
    """Return one sentence for each benchmark."""
    lines = []
    for device, result in measured:
        low, high = (format_duration(bound) for bound in result.latency.p50_ci95_ns)
        median = format_duration(result.latency.p50_ns)
        text = f"{device}: {result.model}{_threads(result)} takes {median} (95 % CI {low} to {high})"
        if result.valid:
            lines.append(VerdictLine(level=Level.OK, text=f"{text} an inference."))
        else:
            text = f"{text}, but the run is invalid because {'; '.join(result.invalid)}."
            lines.append(VerdictLine(level=Level.BAD, text=text))
    return lines


def device_table(measured: Sequence[DeviceBench]) -> Table:
    """Return the table of benchmarks."""
    return Table(
        id="devices",
        title="On the device",
        headings=(
            "device",
            "model",
            "p50",
            "p95",
            "p99",
            "load",
            "first inference",
            "peak memory",
            "runtime",
            "counts",
        ),
        rows=tuple(_row(device, result) for device, result in measured),
        numeric=(2, 3, 4, 5, 6, 7),
        note="Each result is from a fresh process. Peak memory includes the interpreter and its libraries.",
    )


def latency_figure(measured: Sequence[DeviceBench]) -> Figure:
    """Return the plot of latency percentiles by device, with the confidence interval of the median."""
    labels = [
        f"{device}: {result.model} {result.release[:8]}{_threads(result)}" for device, result in measured
    ]
    slow = max(result.latency.p99_ns for _, result in measured) >= 1e6
    unit, unit_ns = ("ms", 1e6) if slow else ("us", 1e3)
    medians = [result.latency.p50_ns / unit_ns for _, result in measured]
    bounds = [result.latency.p50_ci95_ns for _, result in measured]
    traces: list[dict[str, object]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "p50 with 95 % CI",
            "x": medians,
            "y": labels,
            "marker": {"size": 11},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [high / unit_ns - median for (_, high), median in zip(bounds, medians, strict=True)],
                "arrayminus": [
                    median - low / unit_ns for (low, _), median in zip(bounds, medians, strict=True)
                ],
            },
        }
    ]
    for name, symbol in (("p90", "diamond"), ("p95", "square"), ("p99", "x")):
        values = [float(getattr(result.latency, f"{name}_ns")) / unit_ns for _, result in measured]
        marker = {"size": 9, "symbol": symbol}
        traces.append(
            {"type": "scatter", "mode": "markers", "name": name, "x": values, "y": labels, "marker": marker}
        )
    return Figure(
        id="latency",
        title="Latency by device",
        caption="Latency of single inferences. The bar is the 95 % confidence interval of the median.",
        data=tuple(traces),
        layout={
            "xaxis": {"title": {"text": f"latency ({unit})"}, "rangemode": "tozero"},
            "yaxis": {"automargin": True, "type": "category"},
            "height": 180 + 60 * len(labels),
        },
    )


def _threads(result: BenchResult) -> str:
    return "" if result.threads == 1 else f", {result.threads} threads"


def _row(device: str, result: BenchResult) -> tuple[str, ...]:
    latency = result.latency
    return (
        device,
        f"{result.model} {result.release[:8]}",
        format_duration(latency.p50_ns),
        format_duration(latency.p95_ns),
        format_duration(latency.p99_ns),
        format_duration(result.init_ns),
        format_duration(result.first_inference_ns),
        "-" if result.peak_bytes is None else format_size(result.peak_bytes),
        f"{result.runtime}, {result.kernels}{_threads(result)}",
        "yes" if result.valid else f"no: {'; '.join(result.invalid)}",
    )
