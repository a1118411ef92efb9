"""`edgeq ab status` and `edgeq ab list`: what the collected windows say; no device is asked."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import click

from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.experiment import Experiment, Judged, Metric
    from edgeq.store import Store


@command("list", examples=["edgeq ab list", "edgeq ab list --json"])
def list_command(app: App) -> None:
    """List the experiments of this workspace, oldest first."""
    from edgeq.experiment import record
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        found = record.read_all(store)
    rows = []
    for one in found:
        terms = one.terms
        state = one.state.value + (f", {len(one.open)} devices open" if one.ending and one.open else "")
        versus = f"{terms.release_a[:12]} / {terms.release_b[:12]}"
        share = f"{terms.share:g} of {terms.by.value}"
        rows.append([terms.experiment, state, versus, share, str(len(terms.devices)), one.started_by])
    app.ui.table(["experiment", "state", "A / B", "share", "devices", "by"], rows)
    app.ui.emit("edgeq.ab.list/1", {"experiments": [one.to_dict() for one in found]})


@command("status", examples=["edgeq ab status", "edgeq ab status kws-1a2b3c4d-1 --json"])
@click.argument("experiment", required=False)
def status_command(app: App, experiment: str | None) -> None:
    """Say what is known of EXPERIMENT by now; look as often as you like."""
    from edgeq.experiment import Decision, State, objections, record
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        found = record.find(store, experiment)
        judged = judged_of(store, found)
    show(app, found, judged)
    against = {one.value: list(objections(found.terms, judged, one)) for one in Decision}
    body = {**found.to_dict(), **judged.to_dict(), "objections": against}
    app.ui.emit("edgeq.ab.status/1", body)
    name = found.terms.experiment
    if found.state is not State.RUNNING:
        return
    ready = [word for word, reasons in against.items() if not reasons]
    if ready:
        app.ui.next(f"edgeq ab decide {name} --{ready[0]} --because '...'")
    else:
        app.ui.next(f"edgeq collect {' '.join(found.terms.devices)}; edgeq ab status {name}")


def judged_of(store: Store, experiment: Experiment) -> Judged:
    """Return what the store's windows say of an experiment."""
    from edgeq.experiment import judge, record

    terms = experiment.terms
    windows = store.windows(model=terms.model, experiment=terms.experiment)
    return judge(terms, windows, record.references(store, terms))


def show(app: App, experiment: Experiment, judged: Judged) -> None:
    """Print how an experiment stands."""
    terms = experiment.terms
    hours = (time.time_ns() - experiment.started_ns) / 3.6e12
    app.ui.line(
        f"{terms.experiment}: {experiment.state.value}, begun {hours:.1f} h ago by {experiment.started_by};"
        f" A {terms.release_a[:12]}, B {terms.release_b[:12]} with {terms.share:g} of {terms.by.value}"
    )
    calls = ", ".join(f"{arm.upper()} {part.attempts} calls" for arm, part in judged.arms.items())
    app.ui.line(f"{judged.windows} windows: {calls}")
    app.ui.table(["figure", "A", "B", "B against A", "", "of"], [_row(metric) for metric in judged.metrics])
    app.ui.line(f"verdict: {judged.words}; all intervals hold at all looks with {1 - judged.alpha:.0%}")
    ending = experiment.ending
    if ending is not None:
        app.ui.line(f"{ending.event} by {ending.actor}: {ending.body.get('because') or 'no reason given'}")
    for name in judged.silent:
        app.ui.warn(f"{name}: no window of this experiment was collected")
    if judged.others:
        app.ui.warn(f"{judged.others} windows are of no arm: merged of several on a device that was full")
    if judged.keyed:
        app.ui.warn(f"{judged.keyed} calls came with a key, which keeps its arm: no interval covers that")
    if experiment.open and ending is not None:
        app.ui.warn(f"not ended yet on {', '.join(experiment.open)}: run the same command again")


def _row(metric: Metric) -> list[str]:
    from edgeq.units import format_duration, format_percent

    ratio = metric.figure.quantile is not None
    shown = ["-" if value is None else (format_duration if ratio else format_percent)(value)
             for value in (metric.a, metric.b)]  # fmt: skip
    low, high = (_end(value, ratio=ratio) for value in (metric.interval.low, metric.interval.high))
    unit = "times" if ratio else "points"
    between = f"{low} to {high} {unit}" if low and high else "-"
    if bool(low) != bool(high):
        between = f"{low or high} {unit} and {'more' if low else 'less'}"
    return [metric.figure.value, *shown, between, metric.finding.value, f"{metric.units} {metric.unit}"]


def _end(value: float, *, ratio: bool) -> str:
    """Return an end of an interval; an open one is empty."""
    if not math.isfinite(value):
        return ""
    return f"{value:.2f}" if ratio else f"{100 * value:+.1f}"
