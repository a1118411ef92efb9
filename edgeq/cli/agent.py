"""`edgeq agent`: build the device agent as a file."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.ui import App, CommandGroup, command
from edgeq.errors import DiskRefused
from edgeq.units import format_size


@click.group("agent", cls=CommandGroup)
def agent_command() -> None:
    """Build the device agent as a file."""


@command("build", examples=["edgeq agent build -o edgeq-agent.pyz", "python3 edgeq-agent.pyz --version"])
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("edgeq-agent.pyz"),
    show_default=True,
    help="The file to write.",
)
def _build(app: App, output: Path) -> None:
    """Write the agent as one file that Python 3.7 and later run; the same sources give the same bytes."""
    from edgeq.files import write_atomic
    from edgeq.fleet.agent.file import build_agent

    agent = build_agent()
    try:
        write_atomic(output, agent.data, mode=0o755)
    except FileNotFoundError as error:
        raise DiskRefused(str(output), f"cannot be written: {error.strerror}") from error
    app.ui.line(f"{output}  {format_size(len(agent.data))}  sha256 {agent.sha256}")
    app.ui.emit(
        "edgeq.agent.build/1",
        {"path": str(output), "size_bytes": len(agent.data), "sha256": agent.sha256},
    )


agent_command.add_command(_build)
