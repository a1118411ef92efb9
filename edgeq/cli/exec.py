"""`edgeq exec`: run a command on devices and show its output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import completing
from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.device_results import emit, failure_line
from edgeq.cli.options import Number
from edgeq.cli.ui import App, command
from edgeq.errors import CommandFailed, EdgeqError, SomeDevicesFailed
from edgeq.text import several_lines

if TYPE_CHECKING:
    from edgeq.fleet.run_command import Executed


@command(
    "exec",
    examples=[
        "edgeq exec pi -- uname -a",
        "edgeq exec label:site=lab -- 'df -h / | tail -1'",
        "edgeq exec all --timeout 300 --json -- sudo -n apt-get -y upgrade",
    ],
)
@click.argument("selector", shell_complete=completing.selectors)
@click.argument("words", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--timeout",
    "timeout_s",
    type=Number(1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="End the command after this time.",
)
@retries_option()
def exec_command(app: App, selector: str, words: tuple[str, ...], timeout_s: float, retries: int) -> None:
    """Run COMMAND on SELECTOR: a device, label:KEY=VALUE, or all.

    One word is a line for the device's shell; several words are a command, each passed as it is. It gets no
    input. At most 1 MiB of its output and the last 8 KiB of its standard error are kept. Only connecting is
    retried. The exit status is 0 if it is 0 on every device.
    """
    from edgeq.fleet.run_command import run_command_many

    devices = app.inventory().select([selector])
    results = run_command_many(devices, words, timeout_s=timeout_s, retry_policy=retry_policy(app, retries))
    several = len(devices) > 1
    for result in results.done.values():
        _show(app, result, several=several)
    failed: dict[str, EdgeqError] = {
        **{name: result.error for name, result in results.done.items() if result.error is not None},
        **results.failed,
    }
    for name, error in failed.items() if several else ():
        app.ui.line(failure_line(name, error))
    body = {
        "command": list(words),
        "devices": [_entry(device.name, results.done, failed) for device in devices],
    }
    emit(app, "edgeq.exec/1", body, _error(failed, len(devices)))


def _show(app: App, result: Executed, *, several: bool) -> None:
    prefix = f"{result.device}: " if several else ""
    for line in result.stdout.splitlines():
        app.ui.line(prefix + line)
    if result.truncated:
        app.ui.warn(f"{result.device}: the rest of the output is not shown")
    if result.stderr and not app.ui.as_json:
        text = "\n".join(prefix + line for line in result.stderr.splitlines())
        sys.stdout.flush()
        sys.stderr.write(several_lines(text) + "\n")


def _entry(name: str, done: Mapping[str, Executed], failed: Mapping[str, EdgeqError]) -> dict[str, Any]:
    entry: dict[str, Any] = {"device": name, "ok": name not in failed}
    if name in done:
        entry.update(done[name].to_json())
    if name in failed:
        entry["error"] = failed[name].to_dict()
    return entry


def _error(failed: Mapping[str, EdgeqError], count: int) -> EdgeqError | None:
    if not failed:
        return None
    if count == 1:
        return next(iter(failed.values()))
    from edgeq.fleet.parallel import combined_error

    if any(not isinstance(error, CommandFailed) for error in failed.values()):
        return combined_error(failed, device_count=count, what="exec")
    causes = "; ".join(f"{name} ({error.reported_code})" for name, error in failed.items())
    return SomeDevicesFailed(
        "exec",
        f"the command failed on {len(failed)} of {count} devices: {causes}",
        hint="the lines above have its exit status on each",
    )
