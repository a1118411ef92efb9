"""The options that work before and after a command, and the groups that take them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeq.cli.ui import App

WORKSPACE = click.Path(path_type=Path, file_okay=False)

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only results, warnings and errors.")
verbose_option = click.option("-v", "--verbose", count=True, help="Print more diagnostics.")
# `edgeq.cli.boundary` reads it from the command line, because parsing can fail.
debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
# After the command there is no default: the root's option has one.
workspace_option = click.option("--workspace", type=WORKSPACE, help="Folder of devices.toml and the store.")
GLOBAL_OPTIONS = (quiet_option, verbose_option, debug_option, workspace_option)


def apply_global_options(ctx: click.Context, options: dict[str, Any]) -> App:
    """Take the values of GLOBAL_OPTIONS out of `options`, and return the App that they give this context."""
    from edgeq.cli.ui import App

    app = ctx.find_object(App)
    if app is None:
        raise TypeError(f"{ctx.command_path} runs without the root group")
    options.pop("debug")
    app.ui.quiet = options.pop("quiet") or app.ui.quiet
    app.ui.verbosity += options.pop("verbose")
    workspace = options.pop("workspace")
    ctx.obj = app if workspace is None else App(workspace=workspace, ui=app.ui)
    return app if workspace is None else ctx.obj


class Group(click.Group):
    """A click group that prints its help when no command is given, and suggests the nearest command."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"invoke_without_command": True, **kwargs})

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or print the help if there is none."""
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())
        return result

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name for an unknown command."""
        names = self.list_commands(ctx)
        if ctx.resilient_parsing:  # a shell completes: a person who presses TAB cannot use an error
            return (args[0], self.get_command(ctx, args[0]), args[1:]) if args else (None, None, [])
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], names, n=1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{meant}", ctx=ctx)
        return super().resolve_command(ctx, args)
