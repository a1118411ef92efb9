"""`edgeq ab status` and `edgeq ab list`: results from the collected windows; no device is contacted."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import click

from edgeq.cli import completing
from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.experiment import Experiment, ExperimentResult, Metric


@command("list", examples=["edgeq ab list", "edgeq ab list --json"])
def list_command(app: App) -> None:
    """List the experiments of this workspace, oldest first."""
    from edgeq.experiment import record
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        experiments = record.read_all(store)
    rows = []
    for experiment in experiments:
        config = experiment.config
        state = experiment.state.value
        if experiment.ending and experiment.open:
            state += f", {len(experiment.open)} devices open"
        versus = f"{config.release_a[:12]} / {config.release_b[:12]}"
        share = f"{config.share:g} of {config.by.value}"
        devices = str(len(config.devices))
        rows.append([config.experiment, state, versus, share, devices, experiment.started_by])
    app.ui.table(["experiment", "state", "A / B", "share", "devices", "by"], rows)
    app.ui.emit("edgeq.ab.list/1", {"experiments": [experiment.to_dict() for experiment in experiments]})


@command("status", examples=["edgeq ab status", "edgeq ab status kws-1a2b3c4d-1 --json"])
@click.argument("experiment", required=False, shell_complete=completing.experiments)
def status_command(app: App, experiment: str | None) -> None:
    """Show the results of EXPERIMENT so far; the intervals stay valid however often you look."""
    from edgeq.experiment import ExperimentState
    from edgeq.experiment.status import experiment_status

    status = experiment_status(experiment, workspace=app.workspace)
    show(app, status.experiment, status.result)
    app.ui.emit("edgeq.ab.status/1", status.to_dict())
    if status.experiment.state is not ExperimentState.RUNNING:
        return
    config = status.experiment.config
    if status.justified:
        app.ui.next(
            "ab", "decide", config.experiment, f"--{status.justified[0].value}", "--because", "REASON"
        )
    else:
        app.ui.next("collect", *config.devices)


def show(app: App, experiment: Experiment, result: ExperimentResult) -> None:
    """Print the state and results of an experiment."""
    from edgeq.units import format_age, format_percent

    config = experiment.config
    age = format_age(time.time_ns() - experiment.started_ns)
    share = f"{format_percent(config.share)} of the {config.by.value}"
    app.ui.line(
        f"{config.experiment}: {experiment.state.value}, started {age} ago by"
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
        app.ui.line(f"{ending.state.value} by {ending.by}: {ending.because or 'no reason given'}")
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
