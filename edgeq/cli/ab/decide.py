"""`edgeq ab decide` and `edgeq ab stop`: end an experiment, and record who decided, why, and on what data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli import completing
from edgeq.cli.ab.status import show
from edgeq.cli.device_options import retries_option, retry_policy, yes_option
from edgeq.cli.device_results import failure_line, finish
from edgeq.cli.rollout import output
from edgeq.cli.ui import App, command
from edgeq.units import parse_duration

if TYPE_CHECKING:
    from edgeq.experiment.end import EndedExperiment


@command("stop", examples=["edgeq ab stop", "edgeq ab stop kws-1a2b3c4d-1 --because 'wrong labels'"])
@click.argument("experiment", required=False, shell_complete=completing.experiments)
@click.option("--because", help="The reason, for the record.", metavar="REASON")
@retries_option()
def stop_command(app: App, experiment: str | None, because: str | None, retries: int) -> None:
    """End EXPERIMENT without a decision: the current release (A) serves alone again."""
    from edgeq.experiment.end import stop_experiment

    ended = stop_experiment(
        experiment, because=because, workspace=app.workspace, retry_policy=retry_policy(app, retries)
    )
    _finish(app, ended, "edgeq.ab.stop/1", "ab stop")


@command(
    "decide",
    examples=[
        "edgeq ab decide --promote --because 'no worse in a week, and half the size'",
        "edgeq ab decide kws-1a2b3c4d-1 --promote --because 'see ticket 12' --stages 1,10%,100% --soak 10m",
        "edgeq ab decide kws-1a2b3c4d-1 --reject --because 'misses the word stop' --json",
    ],
)
@click.argument("experiment", required=False, shell_complete=completing.experiments)
@click.option("--promote", is_flag=True, help="Make the new release (B) current on all devices.")
@click.option("--reject", is_flag=True, help="Let the current release (A) serve alone again.")
@click.option("--because", required=True, help="The reason, for the record.", metavar="REASON")
@click.option("--anyway", is_flag=True, help="Decide even if the data do not justify it; the record says so.")
@click.option(
    "--stages", help="Promote in stages, like `edgeq deploy --stages`: 1,10%,100%.", metavar="STAGES"
)
@click.option("--soak", help="Soak time of each stage, such as 10m. [with --stages]", metavar="DURATION")
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
    from edgeq.experiment import Decision, record
    from edgeq.experiment.end import decide_experiment
    from edgeq.fleet.rollout.operations import RolloutOptions
    from edgeq.store import Store

    if promote == reject:
        raise click.UsageError("either --promote or --reject is required")
    decision = Decision.PROMOTE if promote else Decision.REJECT
    if not because.strip():
        raise click.UsageError("--because: expected a reason, got an empty text")
    if (stages or soak) and (decision is not Decision.PROMOTE or stages is None):
        raise click.UsageError("--stages requires --promote, and --soak requires --stages")
    soak_s = parse_duration(soak, subject="--soak") / 1e9 if soak is not None else 0.0
    with Store.open(app.workspace) as store:
        config = record.find(store, experiment).config
    what = f"{decision.value.capitalize()} {config.release_b[:12]}"
    if not app.ui.confirm(f"{what} on {len(config.devices)} devices?", yes=yes):
        app.ui.say("nothing was decided")
        return
    with output.progress(app) as printer:
        ended = decide_experiment(
            config.experiment,
            decision,
            because=because,
            anyway=anyway,
            stages=None if stages is None else RolloutOptions(stages=stages, soak_s=soak_s, soak=soak or ""),
            workspace=app.workspace,
            retry_policy=retry_policy(app, retries),
            observer=printer,
        )
    _finish(app, ended, "edgeq.ab.decide/1", "ab decide")


def _finish(app: App, ended: EndedExperiment, schema: str, what: str) -> None:
    """Print how the experiment ended, then raise if devices failed; a rollout has a document of its own."""
    if ended.rollout is not None:
        output.finish(app, ended.rollout)
    experiment = ended.experiment
    show(app, experiment, ended.result)
    for entry in ended.devices:
        if entry.error is not None:
            app.ui.line(failure_line(entry.device, entry.error))
        elif entry.result is not None:
            app.ui.line(f"{entry.device}: ended, {str(entry.result.current)[:12]} serves alone")
    for name in ended.removed:
        app.ui.warn(f"{name}: is not in the inventory any more; the experiment is not removed from it")
    if ended.rollout is not None:
        return
    devices = experiment.config.devices
    finish(app, schema, ended.to_dict(), ended.failed, device_count=max(1, len(devices)), what=what)
    app.ui.next("prune", "--on", devices[0], "--dry-run")
