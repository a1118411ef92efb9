"""Options of commands that work on devices: selection, confirmation, retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeq.cli import completing
from edgeq.cli.ui import App

if TYPE_CHECKING:
    from edgeq.fleet.backoff import RetryPolicy

F = TypeVar("F", bound=Callable[..., Any])

# A query of a fleet must not wait minutes for a device that is off; a deploy that gave up has to be repeated
# by hand.
DEFAULT_RETRIES, DEPLOY_RETRIES = 2, 5

_SELECTOR = "A device, label:KEY=VALUE, or all; repeatable."


def selector_option(flag: str, *, help: str = _SELECTOR, required: bool = True) -> Callable[[F], F]:
    """Give a command a repeatable option that selects devices, whose values are `selectors`."""
    return click.option(
        flag,
        "selectors",
        multiple=True,
        required=required,
        help=help,
        shell_complete=completing.selectors,
        metavar="SELECTOR",
    )


to_option = selector_option("--to")
on_option = selector_option("--on")
on_device_option = click.option(
    "--on", "name", required=True, help="The device.", shell_complete=completing.devices, metavar="DEVICE"
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    default=120,
    show_default=True,
    type=click.IntRange(1, 86_400),
    help="Time limit on the device, in seconds.",
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")


def retries_option(default: int | None = DEFAULT_RETRIES, shown: str | bool = True) -> Callable[[F], F]:
    """Give a command the option `--retries`; with None as the default the command chooses one."""
    return click.option(
        "--retries",
        default=default,
        show_default=shown,
        type=click.IntRange(0, 50),
        metavar="N",
        help="How often to retry after a connection failure; login and host-key errors are never retried.",
    )


def retry_policy(app: App, retries: int) -> RetryPolicy:
    """Return the policy for `--retries`; with `-v` each retry prints a line."""
    from edgeq.fleet.backoff import Backoff, RetryPolicy

    return RetryPolicy(
        backoff=Backoff(tries=retries + 1),
        on_retry=lambda error, wait_s: app.ui.detail(f"{error.message}; retrying in {wait_s:.0f} s"),
    )
