"""`--retries`, one option for all commands: how often they begin again when the way to a device fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeq.cli.ui import App

if TYPE_CHECKING:
    from edgeq.fleet.connect import Retry

F = TypeVar("F", bound=Callable[..., Any])

# A look at a fleet must not wait minutes for what is switched off; a deploy that gave up is begun by hand.
USUAL, PATIENT = 2, 5


def retries_option(usual: int | None = USUAL, shown: str | bool = True) -> Callable[[F], F]:
    """Give a command the option `--retries`; with None as the usual the command knows what is usual."""
    return click.option(
        "--retries",
        default=usual,
        show_default=shown,
        type=click.IntRange(0, 50),
        metavar="N",
        help="Begin again so often when the way to a device fails; never after a refused login or key.",
    )


def retry_of(app: App, retries: int) -> Retry:
    """Return how often and how late, with a line about each under `-v`."""
    from edgeq.fleet.backoff import Backoff
    from edgeq.fleet.connect import Retry

    return Retry(
        backoff=Backoff(tries=retries + 1),
        on_retry=lambda error, wait_s: app.ui.detail(f"{error.message}; again in {wait_s:.0f} s"),
    )
