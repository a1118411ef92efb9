"""The root group: names and one-line helps of all commands, whose modules load only when one is run."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from edgeq.version import VERSION

# name -> (module under edgeq.cli, one-line help). `edgeq --help` reads this table alone.
COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("check", "Check a blueprint and say what it asks for."),
    "calibrate": ("calibrate", "Keep a model's value histograms: taken once, merged, used by convert."),
    "convert": ("convert", "Convert a model to .tflite: float, dynamic, int8, int16x8, mixed or int4."),
    "tune": ("tune", "Train a Keras model with fake quantization, where conversion loses accuracy."),
    "evaluate": ("evaluate", "Evaluate a .tflite model on data, and against a float reference."),
    "sensitivity": ("sensitivity", "Measure what quantizing each operation costs, and what to do."),
    "search": ("search", "Search mixed precision: which operations stay float, under a blueprint."),
    "select": ("select", "Choose among evaluated variants by a blueprint."),
    "edgetpu": ("edgetpu", "Say what an Edge TPU takes of a .tflite, and compile it."),
    "bundle": (
        "bundle",
        "Make a signed bundle of a model, its golden inputs and its drift reference; verify one.",
    ),
    "keys": ("keys", "Make signing keys; let devices trust or revoke them."),
    "devices": ("devices", "Enrol, list and remove devices; emulate one."),
    "plan": ("plan", "Show what a bundle would change on devices; change nothing."),
    "deploy": ("deploy", "Show what a bundle changes on devices, and do it."),
    "rollout": ("rollout.manage", "Show, pause, resume and roll back staged rollouts."),
    "ab": ("ab.start", "Compare two releases side by side; promotion is a decision with a record."),
    "rollback": ("rollback", "Put a device's model back to its previous release."),
    "pin": ("pin", "Keep a release on devices until it is unpinned."),
    "unpin": ("pin", "Let a pinned release go."),
    "prune": ("prune", "Remove what nothing refers to from devices."),
    "status": ("status", "Show what devices run."),
    "infer": ("infer", "Run data through a device's current model."),
    "bench": ("bench", "Measure a model's latency, start and memory on a device."),
    "collect": ("collect", "Pull telemetry windows from devices into the store."),
    "monitor": ("monitor", "Say which devices drift, with a stated false-alarm rate."),
    "report": ("report", "Write what was measured as one self-contained HTML page."),
    "lineage": ("lineage", "Say what a .tflite was made of."),
    "reproduce": ("reproduce", "Build a recorded .tflite again and compare the bytes."),
    "runs": ("runs", "List what the store recorded: conversions, bundles, deployments."),
    "demo": ("demo", "Walk the whole path on this machine: train, convert, deploy, measure, report."),
    "doctor": ("doctor", "Check this machine and its devices, and say how to mend what is wrong."),
    "agent": ("agent", "Build the device agent as a file."),
    "completion": ("completion", "Print the shell completion script."),
}


class PipeClosed(Exception):
    """The reader of our output went away; click would end the process on a BrokenPipeError with status 1."""


class LazyGroup(click.Group):
    """A click group whose commands are imported when they are needed."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line; `--help` writes already here."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:
            raise PipeClosed from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a small output meets the closed pipe here, not at exit
        except BrokenPipeError as error:
            raise PipeClosed from error
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the way of the data, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"edgeq.cli.{module}"), f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise TypeError(f"edgeq.cli.{module}.{cmd_name}_command is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where one is unknown."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{meant}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        from edgeq_agent.wire import PROTOCOL

        click.echo(f"edgeq {VERSION} (agent protocol {PROTOCOL})")
        ctx.exit(0)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Examples:\n\n\b\n"
    "  edgeq demo\n"
    "  edgeq convert model.keras -o model.tflite --scheme int8 --calibration calibration.npz\n"
    "  edgeq devices add pi --host 192.168.1.20 --user pi --kind raspberry-pi\n"
    "  edgeq deploy model.eqb --to pi",
)
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    envvar="EDGEQ_WORKSPACE",
    show_default="here",
    help="Folder with devices.toml and the store.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say only errors.")
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
)
@click.pass_context
def root(ctx: click.Context, workspace: Path, quiet: bool, verbose: int, debug: bool) -> None:
    """Compress, prove, ship and watch TFLite models on fleets of small devices."""
    from edgeq.cli.ui import App, Ui

    ctx.obj = App(workspace=workspace, ui=Ui(quiet=quiet, verbosity=verbose))
