"""How a command over several devices ends: one JSON document, one line about failures, the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgeq.cli.ui import App
from edgeq.errors import EdgeqError


def recap_of(name: str, error: EdgeqError) -> str:
    """Return the line of a device that failed; the device is named once."""
    return f"{name}: failed, {error.message.removeprefix(f'{name}: ')}"


def end(
    app: App, schema: str, body: Mapping[str, Any], failed: Mapping[str, EdgeqError], *, asked: int, what: str
) -> None:
    """Emit the document; then raise where devices failed.

    A single device's own error becomes the document, by the boundary. With several devices the document has
    all of them and the error beside, since a reader of `--json` takes one document, not two.
    """
    from edgeq.fleet.parallel import failure

    error = failure(failed, asked=asked, what=what)
    if error is None:
        app.ui.emit(schema, body)
        return
    if asked == 1 or not app.ui.as_json:
        raise error
    app.ui.emit(schema, {**body, "error": error.to_dict()})
    app.ui.say(f"error[{error.reported_code}]: {error.message}")
    raise click.exceptions.Exit(int(error.exit_status))
