"""`edgeq ab`: compare two releases; start, show and end an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.ab.decide import decide_command, stop_command
from edgeq.cli.ab.status import list_command, status_command
from edgeq.cli.device_options import DEPLOY_RETRIES, retries_option, retry_policy, to_option, yes_option
from edgeq.cli.device_results import failure_line, finish
from edgeq.cli.options import Number
from edgeq.cli.ui import App, CommandGroup, command
from edgeq.units import format_percent

if TYPE_CHECKING:
    from edgeq.experiment.start import StartedDevice, StartedExperiment


@click.group("ab", cls=CommandGroup)
def ab_command() -> None:
    """Compare two releases: side by side on the same devices, or split across devices."""


@command(
    "start",
    examples=[
        "edgeq ab start kws-new.eqb --to all",
        "edgeq ab start kws-new.eqb --to label:site=lab --share 0.2 --by devices",
        "edgeq ab start kws-new.eqb --to pi --share 0.5 --worse-by 0.01 --json",
    ],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@to_option
@click.option(
    "--share",
    default=0.1,
    show_default=True,
    type=Number(0, 1, min_open=True, max_open=True),
    help="Share of the new release, of the calls or devices: 0.1 is a tenth.",
)
@click.option(
    "--by",
    default="calls",
    show_default=True,
    type=click.Choice(["calls", "devices"]),
    help="Split the calls of each device, or the devices.",
)
@click.option(
    "--salt",
    help="Seed of the draw of calls or devices.  [default: the experiment's name]",
    metavar="SALT",
)
@click.option(
    "--alpha",
    default=0.05,
    show_default=True,
    type=Number(0, 1, min_open=True, max_open=True),
    help="Probability that any interval is wrong at any look.",
)
@click.option(
    "--worse-by",
    default=0.02,
    show_default=True,
    type=Number(0, 1),
    help="Largest loss of right answers that still allows a promotion: 0.02 is two percentage points.",
)
@click.option(
    "--slower-by",
    default=0.1,
    show_default=True,
    type=Number(0, 10),
    help="Largest increase of latency (p95) that still allows a promotion: 0.1 is a tenth.",
)
@retries_option(DEPLOY_RETRIES)
@yes_option
def start_command(
    app: App,
    bundle: Path,
    selectors: tuple[str, ...],
    share: float,
    by: str,
    salt: str | None,
    alpha: float,
    worse_by: float,
    slower_by: float,
    retries: int,
    yes: bool,
) -> None:
    """Stage BUNDLE (B) beside the current release (A), and give it its share; a second run resumes."""
    from edgeq.bundle.archive import read_bundle
    from edgeq.experiment import ExperimentTerms, SplitBy
    from edgeq.experiment.config import is_salt
    from edgeq.experiment.start import start_experiment

    candidate = read_bundle(bundle)
    devices = app.inventory().select(selectors)
    if salt is not None and not is_salt(salt):
        raise click.UsageError("--salt: expected a printable text of at most 200 characters")
    terms = ExperimentTerms(
        by=SplitBy(by), share=share, salt=salt, alpha=alpha, worse_by=worse_by, slower_by=slower_by
    )
    release = f"{candidate.model} {candidate.release[:12]}"
    question = f"Stage {release} beside the current release on {len(devices)} devices?"
    if not app.ui.confirm(question, yes=yes):
        app.ui.say("nothing was changed")
        return
    started = start_experiment(
        candidate,
        devices,
        terms,
        workspace=app.workspace,
        on_resume=lambda experiment: app.ui.say(f"resuming experiment {experiment.config.experiment}"),
        retry_policy=retry_policy(app, retries),
    )
    for entry in started.devices:
        app.ui.line(_line(started, entry))
    config = started.experiment.config
    app.ui.line(f"experiment {config.experiment}")
    finish(
        app,
        "edgeq.ab.start/1",
        started.to_dict(),
        started.failed,
        device_count=len(devices),
        what="ab start",
    )
    app.ui.next("collect", *config.devices)
    app.ui.next("ab", "status", config.experiment)


for _command in (start_command, list_command, status_command, stop_command, decide_command):
    ab_command.add_command(_command)


def _line(started: StartedExperiment, entry: StartedDevice) -> str:
    if entry.error is not None:
        return failure_line(entry.device, entry.error)
    config, result = started.experiment.config, entry.result
    traffic = {
        "a": "and does not serve here",
        "b": "and serves here alone",
        "ab": f"and gets {format_percent(config.share)}",
    }
    unchanged = result is not None and not (result.staged or result.divided)
    return (
        f"{entry.device}: {config.model} {config.release_b[:12]} is staged, {traffic[entry.arm]}"
        f"{', as before' if unchanged else ''}"
    )
