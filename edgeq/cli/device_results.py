"""Report the results of a command over several devices: lines, one JSON document, the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgeq.cli.ui import App
from edgeq.errors import EdgeqError


def failure_line(name: str, error: EdgeqError) -> str:
    """Return the line of a device that failed; it names the device once."""
    return f"{name}: failed, {error.message.removeprefix(f'{name}: ')}"


def print_failures(app: App, failed: Mapping[str, EdgeqError]) -> None:
    """Print a line for each device that failed."""
    for name, error in failed.items():
        app.ui.line(failure_line(name, error))


def finish(
    app: App,
    schema: str,
    body: Mapping[str, Any],
    failed: Mapping[str, EdgeqError],
    *,
    device_count: int,
    what: str,
) -> None:
    """Emit the document, then raise if devices failed.

    With one device, its error becomes the document. With several, the document has all of them and the error:
    a reader of `--json` expects one document, not two.
    """
    from edgeq.fleet.parallel import combined_error

    error = combined_error(failed, device_count=device_count, what=what)
    if error is not None and (device_count == 1 or not app.ui.as_json):
        raise error
    emit(app, schema, body, error)


def emit(app: App, schema: str, body: Mapping[str, Any], error: EdgeqError | None) -> None:
    """Emit the document; then end with the error, which the document also holds.

    Raises:
        EdgeqError: the error, when the output is text.
    """
    if error is None:
        app.ui.emit(schema, body)
        return
    if not app.ui.as_json:
        raise error
    app.ui.emit(schema, {**body, "error": error.to_dict()})
    app.ui.error(error.reported_code, error.message)
    raise click.exceptions.Exit(int(error.exit_status))
