"""`edgeq monitor`: test collected windows for drift with a stated false-alarm rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.options import Number
from edgeq.cli.ui import App, command
from edgeq.errors import GateError, StoreError

if TYPE_CHECKING:
    from edgeq.fleet.inventory import Inventory
    from edgeq.monitor import DriftVerdict, SignalVerdict, TelemetryStream
    from edgeq.monitor.replay import Replay
    from edgeq.store import Store


@command(
    "monitor",
    examples=[
        "edgeq monitor",
        "edgeq monitor pi --model kws --alpha 0.0001 --exit-code",
        "edgeq monitor label:site=lab",
        "edgeq monitor --replay 2000 --json",
    ],
)
@click.argument("names", nargs=-1, shell_complete=completing.selectors)
@click.option("--model", help="Test only this model.", shell_complete=completing.models, metavar="MODEL")
@click.option(
    "--alpha",
    default=0.001,
    show_default=True,
    type=Number(0, 1, min_open=True, max_open=True),
    help="Probability of ever alarming on a device and release without a change.",
)
@click.option("--exit-code", is_flag=True, help="Exit with status 3 if there is an alarm.")
@click.option(
    "--replay",
    type=click.IntRange(100, 100_000),
    metavar="N",
    help="Measure the false-alarm rate on N simulated streams without drift.",
)
def monitor_command(
    app: App, names: tuple[str, ...], model: str | None, alpha: float, exit_code: bool, replay: int | None
) -> None:
    """Test the collected windows of devices NAMES (or label:KEY=VALUE) for drift.

    The windows are compared with the drift reference of their release. Without NAMES, all devices with
    windows are tested.
    """
    from edgeq.monitor import judge_store
    from edgeq.store import Store

    inventory = app.inventory()
    selected = [name for each in names for name in _names(inventory, each)]
    with Store.open(app.workspace) as store:
        streams = judge_store(store, devices=selected, model=model, alpha=alpha)
        if not streams:
            # Windows outlive the device's entry in the inventory; a name without either is a mistake.
            for name in selected:
                if not judge_store(store, devices=[name], alpha=alpha):
                    inventory.get(name)
            refused = sum(store.quarantine_counts().values())
            raise StoreError(
                str(store.path),
                "has no windows of these devices and models",
                hint="`edgeq quarantine list` shows the records that were refused"
                if refused
                else "run `edgeq collect --all`",
            )
        quarantined = {
            name: count
            for name, count in store.quarantine_counts().items()
            if not selected or name in selected
        }
        rates = [_replay(store, each, alpha, replay) if replay else None for each in streams]
    for each, rate in zip(streams, rates, strict=True):
        _show(app, each)
        if rate is not None:
            app.ui.line(
                f"  null replay: {rate.false_alarms} alarms on {rate.replays} streams without drift"
                f" (rate at most {rate.upper95:.2g} with 95 % confidence; alpha is {alpha:g})"
            )
    alarms = [each for each in streams if each.verdict and each.verdict.alarm]
    entries = [
        {**_document(each), "replay": asdict(rate) if rate is not None else None}
        for each, rate in zip(streams, rates, strict=True)
    ]
    for name, count in quarantined.items():
        app.ui.warn(
            f"{name}: {count} records were refused and are not judged; `edgeq quarantine list {name}`"
        )
    body = {"alpha": alpha, "alarm": bool(alarms), "streams": entries, "quarantined": quarantined}
    _end(app, body, _gate(alarms, alpha) if exit_code else None)
    app.ui.next("report", "-o", "report.html")


def _names(inventory: Inventory, selector: str) -> list[str]:
    from edgeq.fleet.inventory import is_selection

    if is_selection(selector):
        return [device.name for device in inventory.select([selector])]
    return [selector]


def _end(app: App, body: dict[str, Any], gate: GateError | None) -> None:
    if gate is None or not app.ui.as_json:
        app.ui.emit("edgeq.monitor/1", body)
        if gate is not None:
            raise gate
        return
    # With --json there is one document on stdout: the verdicts, with the error beside them.
    app.ui.emit("edgeq.monitor/1", {**body, "error": gate.to_dict()})
    app.ui.error(gate.reported_code, gate.message)
    raise click.exceptions.Exit(int(gate.exit_status))


def _gate(alarms: Sequence[TelemetryStream], alpha: float) -> GateError | None:
    if not alarms:
        return None
    return GateError(
        ", ".join(f"{each.device}/{each.model}" for each in alarms),
        f"drift, at a false-alarm rate of {alpha:g} at most",
        hint="`edgeq report -o report.html` shows it; "
        f"`edgeq rollback {alarms[0].model} --on {alarms[0].device}` activates the previous release",
    )


def _show(app: App, each: TelemetryStream) -> None:
    verdict, total = each.verdict, each.field.total
    head = f"{each.device}: {each.model} {each.release[:12]}, {each.field.windows} windows"
    head += f", {total.inferences} inferences"
    if total.latency.count:
        from edgeq.units import format_duration

        quantiles = (f"p{q:g} {format_duration(total.latency.quantile_ns(q / 100))}" for q in (50, 95, 99))
        head += ", " + ", ".join(quantiles)
    app.ui.line(head)
    for kind, number in total.errors.items():
        app.ui.line(f"  errors: {number} x {kind}")
    if each.problem is not None:
        app.ui.warn(f"{each.device}: {each.problem}")
    if verdict is None:
        if each.problem is not None:
            return
        app.ui.warn(f"{each.device}: the store has no drift reference of release {each.release[:12]}")
        return
    for reason in verdict.skipped:
        app.ui.warn(f"not judged: {reason}")
    if verdict.alarm:
        boot, seq = verdict.at_seq or ("", 0)
        outcome = f"ALARM at window {seq} (boot {boot[:8]})"
    else:
        outcome = "no alarm"
    app.ui.line(f"  {outcome}, e-value {verdict.e_value:.3g}, alarm at {1 / verdict.alpha:g}")
    shown = verdict.shifted or verdict.signals
    app.ui.table(["  signal", "e-value", "PSI", "JS", "alarm"], [_row(signal) for signal in shown])


_NOT_JUDGED: dict[str, Any] = {"judged": False, "alarm": None, "e_value": None, "signals": []}


def _row(signal: SignalVerdict) -> list[str]:
    alarm = f"window {signal.at_window + 1}" if signal.at_window is not None else "-"
    return [f"  {signal.name}", f"{signal.e_value:.3g}", f"{signal.psi:.3f}", f"{signal.js:.3f}", alarm]


def _document(each: TelemetryStream) -> dict[str, Any]:
    total = each.field.total
    return {
        "device": each.device,
        "model": each.model,
        "release": each.release,
        "windows": each.field.windows,
        "inferences": total.inferences,
        "errors": dict(total.errors),
        "latency_ns": None
        if not total.latency.count
        else {f"p{q}": total.latency.quantile_ns(q / 100) for q in (50, 90, 95, 99)},
        "problem": each.problem,
        **(_NOT_JUDGED if each.verdict is None else _verdict(each.verdict)),
    }


def _verdict(verdict: DriftVerdict) -> dict[str, Any]:
    body = {**asdict(verdict), "judged": True, "shifted": [signal.name for signal in verdict.shifted]}
    body["judged_windows"] = body.pop("windows")
    return body


def _replay(store: Store, each: TelemetryStream, alpha: float, replays: int) -> Replay | None:
    from edgeq.bundle.drift_reference import stored_reference
    from edgeq.monitor.replay import replay_null

    if each.verdict is None:
        return None
    reference = stored_reference(store, each.release)
    if reference is None:
        return None
    samples = max(1, each.field.total.inferences // each.field.windows)
    windows = min(max(each.field.windows, 10), 50)
    return replay_null(reference, alpha=alpha, windows=windows, samples_per_window=samples, replays=replays)
