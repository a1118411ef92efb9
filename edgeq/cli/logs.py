"""`edgeq logs`: show the journal, the service log and the crash log of devices."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.device_results import failure_line, finish, print_failures
from edgeq.cli.ui import App, command
from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeq.fleet.logs import DeviceLogs
    from edgeq.fleet.parallel import Results

_EVERY_S = 2.0


@command(
    "logs",
    examples=[
        "edgeq logs pi",
        "edgeq logs pi --since 2h --source crash",
        "edgeq logs label:site=lab --follow",
    ],
)
@click.argument("selector", shell_complete=completing.selectors)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(1, 5000),
    default=200,
    show_default=True,
    help="At most so many entries of each device, the newest.",
)
@click.option(
    "--since", metavar="TIME", help="Only newer entries: an age (30m, 2h), or a time (2026-11-29T21:00)."
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Choice(["journal", "service", "crash"]),
    help="Only this log; repeatable.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new entries until Ctrl-C.")
@retries_option()
def logs_command(
    app: App,
    selector: str,
    lines: int,
    since: str | None,
    sources: tuple[str, ...],
    follow: bool,
    retries: int,
) -> None:
    """Show the logs of SELECTOR: a device, label:KEY=VALUE, or all.

    The journal has every change of state of the agent, the service log what the boot service printed, the
    crash log the bugs of the agent. Times are those of the device, in UTC.
    """
    from edgeq.fleet.logs import Followed, logs_many

    devices = app.inventory().select([selector])
    several = len(devices) > 1
    if follow:
        failing, known = set[str](), set[str]()
        with Followed(devices, lines=lines, since=since, sources=sources) as followed:
            for results in followed.rounds():
                _show(app, results, several=several, known=known)
                _show_changes(app, results.failed, failing)
                if any(each.entries for each in results.done.values()):
                    app.ui.emit("edgeq.logs/1", _body(results))
                app.ui.flush()
                time.sleep(_EVERY_S)
    results = logs_many(
        devices, lines=lines, since=since, sources=sources, retry_policy=retry_policy(app, retries)
    )
    _show(app, results, several=several)
    if several:
        print_failures(app, results.failed)
    finish(app, "edgeq.logs/1", _body(results), results.failed, device_count=len(devices), what="logs")


def _show(app: App, results: Results[DeviceLogs], *, several: bool, known: set[str] | None = None) -> None:
    """Show the entries; of the problems, those that are not known yet."""
    from edgeq.fleet.logs import when

    for name, answer in results.done.items():
        if answer.omitted:
            app.ui.say(f"{name}: {answer.omitted} older entries are not shown; --lines shows more")
        for problem in (f"{name}: {problem}" for problem in answer.problems):
            if known is None or problem not in known:
                app.ui.warn(problem)
            if known is not None:
                known.add(problem)
        for entry in answer.entries:
            head = f"{when(entry.time_ns)}  {f'{name}  ' if several else ''}{entry.source:7}  "
            for line in entry.text.splitlines():
                app.ui.line(head + line)


def _show_changes(app: App, failed: Mapping[str, EdgeqError], failing: set[str]) -> None:
    """Report a device that begins to fail once, not in every round."""
    for name, error in failed.items():
        if name not in failing:
            app.ui.error(error.reported_code, failure_line(name, error))
    for name in failing - set(failed):
        app.ui.say(f"{name}: answers again")
    failing.clear()
    failing.update(failed)


def _body(results: Results[DeviceLogs]) -> dict[str, Any]:
    return {"devices": results.entries(lambda answer: answer.document)}
