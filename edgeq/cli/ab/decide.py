"""`edgeq ab decide` and `edgeq ab stop`: end an experiment, and record who decided, why, and on what data."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.ab.status import result_of, show
from edgeq.cli.device_options import retries_option, retry_policy, yes_option
from edgeq.cli.device_results import failure_line, finish
from edgeq.cli.ui import App, command
from edgeq.errors import EdgeqError, ExperimentError, NotJustified

if TYPE_CHECKING:
    from edgeq.bundle.archive import Bundle
    from edgeq.experiment import Decision, Experiment
    from edgeq.store import Store
    from edgeq.values import Device


@command("stop", examples=["edgeq ab stop", "edgeq ab stop kws-1a2b3c4d-1 --because 'wrong labels'"])
@click.argument("experiment", required=False)
@click.option("--because", help="The reason, for the record.")
@retries_option()
def stop_command(app: App, experiment: str | None, because: str | None, retries: int) -> None:
    """End EXPERIMENT without a decision: the previous release serves alone again."""
    from edgeq.experiment import ExperimentState, record
    from edgeq.store import Store

    with Store.open(app.workspace) as store:
        with record.changing(app.workspace):
            entry = record.find(store, experiment)
            if entry.state is ExperimentState.RUNNING:
                body = {"because": because, "judged": result_of(store, entry).to_dict()}
                store.record_experiment(entry.config.experiment, "stopped", record.actor(), body)
                entry = record.find(store, entry.config.experiment)
        _finish(app, store, entry, None, "edgeq.ab.stop/1", "ab stop", retries=retries)


@command(
    "decide",
    examples=[
        "edgeq ab decide --promote --because 'no worse in a week, and half the size'",
        "edgeq ab decide kws-1a2b3c4d-1 --promote --because 'see ticket 12' --stages 1,10%,100% --soak 10m",
        "edgeq ab decide kws-1a2b3c4d-1 --reject --because 'misses the word stop' --json",
    ],
)
@click.argument("experiment", required=False)
@click.option("--promote", is_flag=True, help="Make the new release serve alone.")
@click.option("--reject", is_flag=True, help="Make the previous release serve alone.")
@click.option("--because", required=True, help="The reason, for the record.")
@click.option("--anyway", is_flag=True, help="Decide even if the data do not justify it; the record says so.")
@click.option("--stages", help="Promote in stages, like `edgeq deploy --stages`: 1,10%,100%.")
@click.option("--soak", help="Soak time of each stage, such as 10m. [with --stages]")
@retries_option()
@yes_option
def decide_command(
    app: App,
    experiment: str | None,
    promote: bool,
    reject: bool,
    because: str,
    anyway: bool,
    stages: str | None,
    soak: str | None,
    retries: int,
    yes: bool,
) -> None:
    """Promote or reject the new release of EXPERIMENT; refused if the data do not justify it."""
    from edgeq.bundle.archive import read_bundle
    from edgeq.experiment import Decision, record
    from edgeq.store import Store

    if promote == reject:
        raise click.UsageError("either --promote or --reject is required")
    decision = Decision.PROMOTE if promote else Decision.REJECT
    if not because.strip():
        raise click.UsageError("--because: expected a reason, got an empty text")
    if (stages or soak) and (decision is not Decision.PROMOTE or stages is None):
        raise click.UsageError("--stages requires --promote, and --soak requires --stages")
    with Store.open(app.workspace) as store:
        entry = record.find(store, experiment)
        what = f"{decision.value.capitalize()} {entry.config.release_b[:12]}"
        question = f"{what} on {len(entry.config.devices)} devices?"
        if not app.ui.confirm(question, yes=yes):
            app.ui.say("nothing was decided")
            return
        with record.changing(app.workspace):
            entry = _decided(store, record.find(store, entry.config.experiment), decision, because, anyway)
        path = record.bundle_path(app.workspace, entry.config.experiment)
        if stages is not None:
            _in_stages(app, entry, stages, soak, retries)
        bundle = read_bundle(path) if decision is Decision.PROMOTE else None
        quiet = stages is not None
        _finish(app, store, entry, bundle, "edgeq.ab.decide/1", "ab decide", retries=retries, quiet=quiet)


def _decided(
    store: Store, experiment: Experiment, decision: Decision, because: str, anyway: bool
) -> Experiment:
    """Return the experiment with its decision on record; one that was decided so before goes on.

    Raises:
        NotJustified: EQ833, the data do not justify it.
        ExperimentError: EQ834, something else was decided before.
    """
    from edgeq.experiment import Decision, ExperimentState, objections, record

    config = experiment.config
    event = ExperimentState.PROMOTED if decision is Decision.PROMOTE else ExperimentState.REJECTED
    if experiment.state is event:
        return experiment
    if experiment.state is not ExperimentState.RUNNING:
        raise ExperimentError(
            config.experiment, f"is {experiment.state.value} already", code="EQ834",
            hint=f"`edgeq ab status {config.experiment}` shows who decided, and why",
        )  # fmt: skip
    result = result_of(store, experiment)
    against = objections(config, result, decision)
    if against and not anyway:
        raise NotJustified(
            f"{decision.value} {config.experiment}", "; ".join(against),
            hint=f"`edgeq ab status {config.experiment}` shows the intervals; collect more, or add --anyway",
        )  # fmt: skip
    body = {
        "because": because,
        "anyway": bool(against),
        "objections": list(against),
        "release_a": config.release_a,
        "release_b": config.release_b,
        "host": socket.gethostname(),
        "judged": result.to_dict(),
    }
    store.record_experiment(config.experiment, event.value, record.actor(), body)
    return record.find(store, config.experiment)


def _in_stages(app: App, experiment: Experiment, stages: str, soak: str | None, retries: int) -> None:
    from edgeq.cli.rollout.options import StageOptions
    from edgeq.cli.rollout.start import deploy_in_stages
    from edgeq.experiment import record

    options = StageOptions(stages=stages, soak=soak, retries=retries)
    path = record.bundle_path(app.workspace, experiment.config.experiment)
    deploy_in_stages(app, path, experiment.config.devices, options, dry_run=False, yes=True)


def _finish(
    app: App,
    store: Store,
    experiment: Experiment,
    promoted: Bundle | None,
    schema: str,
    what: str,
    *,
    retries: int,
    quiet: bool = False,
) -> None:
    """End the experiment on its remaining devices, and record those that are done.

    Args:
        promoted: the bundle that is to serve alone; None for the previous release.
        quiet: the rollout has printed the document already.
    """
    from edgeq.experiment import record
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.parallel import on_each

    config = experiment.config
    known = {device.name: device for device in Inventory.load(app.workspace).devices}
    devices = [known[name] for name in experiment.open if name in known]
    gone = [name for name in experiment.open if name not in known]
    results = on_each(devices, lambda device: _end_on(app, device, experiment, promoted, retries))
    closed = [*results.done, *gone]
    if closed:
        store.record_experiment(config.experiment, "closed", record.actor(), {"devices": closed})
    experiment = record.find(store, config.experiment)
    show(app, experiment, result_of(store, experiment))
    entries = _entries(app, results.done, results.failed, gone)
    store.record_run("ab", config.model, {"experiment": config.experiment, "devices": entries})
    if quiet:
        return
    body = {**experiment.to_dict(), "devices": entries}
    count = max(1, len(experiment.config.devices))
    finish(app, schema, body, results.failed, device_count=count, what=what)
    app.ui.next(f"edgeq prune --on {config.devices[0]} --dry-run")


def _end_on(
    app: App, device: Device, experiment: Experiment, promoted: Bundle | None, retries: int
) -> dict[str, Any]:
    from edgeq.fleet.deploy import deploy_device
    from edgeq.fleet.split import unite

    config, changed, policy = experiment.config, False, retry_policy(app, retries)
    if promoted is not None:
        # Deployed with all checks again: the device decides whether it may serve.
        done = deploy_device(device, promoted, workspace=app.workspace, retry_policy=policy)
        changed = done.changed
    ended = unite(
        device,
        experiment=config.experiment,
        model=config.model,
        release=config.release_b,
        retry_policy=policy,
    )
    return {**ended.to_dict(), "changed": changed}


def _entries(
    app: App, done: Mapping[str, Mapping[str, Any]], failed: Mapping[str, EdgeqError], gone: list[str]
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for name, answer in done.items():
        serves = str(answer["current"])[:12]
        app.ui.line(f"{name}: ended, {serves} serves alone")
        entries.append({"device": name, "ok": True, **answer})
    for name, error in failed.items():
        app.ui.line(failure_line(name, error))
        entries.append({"device": name, "ok": False, "error": error.to_dict()})
    for name in gone:
        app.ui.warn(f"{name}: is not in the inventory any more; the experiment is not removed from it")
    return entries
