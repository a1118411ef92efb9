"""`edgeq ab status` and `edgeq ab list`: results from the collected windows; no device is contacted."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import click

from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.experiment import Experiment, ExperimentResult, Metric
    from edgeq.store import Store


@command("list", examples=["edgeq ab list", "edgeq ab list --json"])
def list_command(app: App) -> None:
    """List the experiments of this workspace, oldest first."""
    from edgeq.experiment import record
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        experiments = record.read_all(store)
    rows = []
    for one in experiments:
        config = one.config
        state = one.state.value + (f", {len(one.open)} devices open" if one.ending and one.open else "")
        versus = f"{config.release_a[:12]} / {config.release_b[:12]}"
        share = f"{config.share:g} of {config.by.value}"
        rows.append([config.experiment, state, versus, share, str(len(config.devices)), one.started_by])
    app.ui.table(["experiment", "state", "A / B", "share", "devices", "by"], rows)
    app.ui.emit("edgeq.ab.list/1", {"experiments": [one.to_dict() for one in experiments]})


@command("status", examples=["edgeq ab status", "edgeq ab status kws-1a2b3c4d-1 --json"])
@click.argument("experiment", required=False)
def status_command(app: App, experiment: str | None) -> None:
    """Show the results of EXPERIMENT so far; the intervals stay valid however often you look."""
    from edgeq.experiment import Decision, ExperimentState, objections, record
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        recorded = record.find(store, experiment)
        result = result_of(store, recorded)
    show(app, recorded, result)
    against = {one.value: list(objections(recorded.config, result, one)) for one in Decision}
    body = {**recorded.to_dict(), **result.to_dict(), "objections": against}
    app.ui.emit("edgeq.ab.status/1", body)
    name = recorded.config.experiment
    if recorded.state is not ExperimentState.RUNNING:
        return
    ready = [word for word, reasons in against.items() if not reasons]
    if ready:
        app.ui.next(f"edgeq ab decide {name} --{ready[0]} --because '...'")
    else:
        app.ui.next(f"edgeq collect {' '.join(recorded.config.devices)}; edgeq ab status {name}")


def result_of(store: Store, experiment: Experiment) -> ExperimentResult:
    """Return the results of an experiment from the windows in the store."""
    from edgeq.experiment import analyze, record

    config = experiment.config
    windows = store.windows(model=config.model, experiment=config.experiment)
    return analyze(config, windows, record.references(store, config))


def show(app: App, experiment: Experiment, result: ExperimentResult) -> None:
    """Print the state and results of an experiment."""
    from edgeq.units import format_percent

    config = experiment.config
    hours = (time.time_ns() - experiment.started_ns) / 3.6e12
    share = f"{format_percent(config.share)} of the {config.by.value}"
    app.ui.line(
        f"{config.experiment}: {experiment.state.value}, started {hours:.1f} h ago by"
        f" {experiment.started_by}; A {config.release_a[:12]}, B {config.release_b[:12]} with {share}"
    )
    calls = ", ".join(f"{arm.upper()} {part.attempts} calls" for arm, part in result.arms.items())
    app.ui.line(f"{result.windows} windows: {calls}")
    app.ui.table(
        ["figure", "A", "B", "B against A", "finding", "data"], [_row(metric) for metric in result.metrics]
    )
    probability = format_percent(1 - result.alpha)
    app.ui.line(f"verdict: {result.summary}; all intervals hold at every look with probability {probability}")
    ending = experiment.ending
    if ending is not None:
        app.ui.line(f"{ending.event} by {ending.actor}: {ending.body.get('because') or 'no reason given'}")
    for name in result.silent:
        app.ui.warn(f"{name}: no window of this experiment was collected")
    if result.others:
        app.ui.warn(f"{result.others} windows belong to no arm: merged from several, or of another release")
    if result.keyed:
        app.ui.warn(
            f"{result.keyed} calls had a key, which always gets the same arm: the intervals do not cover this"
        )
    if experiment.open and ending is not None:
        app.ui.warn(f"not ended yet on {', '.join(experiment.open)}: run the same command again")


def _row(metric: Metric) -> list[str]:
    from edgeq.units import format_duration, format_percent

    ratio = metric.kind.quantile is not None
    shown = ["-" if value is None else (format_duration if ratio else format_percent)(value)
             for value in (metric.a, metric.b)]  # fmt: skip
    low, high = (_end(value, ratio=ratio) for value in (metric.interval.low, metric.interval.high))
    unit = "times" if ratio else "points"
    between = f"{low} to {high} {unit}" if low and high else "-"
    if bool(low) != bool(high):
        between = f"{low or high} {unit} and {'more' if low else 'less'}"
    return [metric.kind.value, *shown, between, metric.conclusion.value, f"{metric.units} {metric.unit}"]


def _end(value: float, *, ratio: bool) -> str:
    """Return one end of an interval; empty where it is unbounded."""
    if not math.isfinite(value):
        return ""
    return f"{value:.2f}" if ratio else f"{100 * value:+.1f}"
