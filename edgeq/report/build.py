"""Build the report from the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from edgeq.errors import StoreError
from edgeq.monitor import judge_store
from edgeq.report.devices import (
    DeviceBench,
    device_table,
    device_verdicts,
    latency_figure,
    newest,
    unreadable_verdicts,
)
from edgeq.report.drift import drift_figures, drift_table, drift_verdicts, field_table
from edgeq.report.variants import pareto_figure, variants_table, variants_verdict
from edgeq.report.view import Level, ReportView, Table, VerdictLine, utc_now
from edgeq.store import Store
from edgeq.version import VERSION

MOST_RUNS = 30


def build_view(
    store: Store,
    *,
    title: str = "edgeq report",
    model: str | None = None,
    alpha: float = 0.001,
    now: Callable[[], datetime] = utc_now,
) -> ReportView:
    """Return the report on what the store contains.

    Args:
        model: only this model's benchmarks and windows; the variants are those of the newest `select` run.
        alpha: the monitor's false-alarm probability.
        now: the current time.

    Raises:
        StoreError: EQ610; the store has nothing to report.
    """
    selections = store.runs("select", limit=1)
    selection = selections[0] if selections else None
    benches = store.benches(model=model)
    measured = newest(benches)
    streams = judge_store(store, model=model, alpha=alpha)
    runs = store.runs(limit=MOST_RUNS)
    if not (runs or measured or streams):
        raise StoreError(
            str(store.path),
            "nothing to report yet",
            hint="run `edgeq demo`, or `edgeq bench MODEL --on DEVICE`",
        )
    verdicts: list[VerdictLine] = [*drift_verdicts(streams), *device_verdicts(measured)]
    verdicts += [*unreadable_verdicts(benches), *_quarantine_verdicts(store)]
    if selection is not None:
        verdicts.insert(0, variants_verdict(selection))
    verdicts.sort(key=lambda line: line.level is not Level.BAD)  # problems first
    return ReportView(
        title=title,
        created=now().strftime("%Y-%m-%d %H:%M UTC"),
        verdicts=tuple(verdicts),
        variants=None if selection is None else variants_table(selection, _on_devices(store, measured)),
        pareto=None if selection is None else pareto_figure(selection),
        devices=device_table(measured) if measured else None,
        latency=latency_figure(measured) if measured else None,
        field=field_table(streams) if streams else None,
        streams=drift_table(streams) if streams else None,
        drift=drift_figures(streams),
        provenance=_provenance(store),
    )


def _quarantine_verdicts(store: Store) -> list[VerdictLine]:
    return [
        VerdictLine(
            level=Level.NOTE, text=f"{name}: {count} telemetry records were refused and are not in this page."
        )
        for name, count in store.quarantine_counts().items()
    ]


def _on_devices(store: Store, measured: Sequence[DeviceBench]) -> dict[str, dict[str, float]]:
    variant_of = {each.release: str(each.manifest.get("variant")) for each in store.releases()}
    worst: dict[str, dict[str, float]] = {}
    for _device, result in measured:
        figures = worst.setdefault(variant_of.get(result.release, ""), {})
        figures_now = {
            "latency_p95_ns_max": result.latency.p95_ns,
            "memory_peak_bytes_max": result.peak_bytes,
        }
        for name, value in figures_now.items():
            if value is not None and result.valid:
                figures[name] = max(value, figures.get(name, value))
    return worst


def _provenance(store: Store) -> Table:
    rows = [("edgeq", VERSION, "", "")]
    for release in store.releases():
        manifest = release.manifest
        files = manifest.get("files", {})
        digests = ", ".join(f"{name} {entry['sha256'][:12]}" for name, entry in files.items())
        what = f"{manifest.get('model', '?')} {manifest.get('variant', '')}".strip()
        rows.append(("release", what, release.release, digests))
    for run in store.runs(limit=MOST_RUNS):
        when = datetime.fromtimestamp(run.created_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
        rows.append((run.kind, run.subject, str(run.body.get("release", "")), when))
    return Table(
        id="provenance",
        title="Provenance",
        headings=("what", "subject", "release", "files or time (UTC)"),
        rows=tuple(rows),
    )
