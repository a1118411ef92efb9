"""Root group of the command line: a table of all commands, each imported only when it runs."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from edgeq.cli.global_options import WORKSPACE, Group, debug_option, quiet_option, verbose_option
from edgeq.version import VERSION


class Section(StrEnum):
    """Heading of `edgeq --help`."""

    MODELS = "Models"
    DEVICES = "Devices"
    RELEASES = "Releases"
    FIELD = "Field"
    WORKSPACE = "Workspace"


class Entry(NamedTuple):
    """One command of the root group.

    Attributes:
        section: the heading under which `edgeq --help` lists it.
        module: its module in `edgeq.cli`, which defines `NAME_command`.
        help: one line that says what it does.
    """

    section: Section
    module: str
    help: str


# `edgeq --help` reads this table and imports no command. Its order is the order of the help: from the trained
# model to the field.
COMMANDS: dict[str, Entry] = {
    "init": Entry(Section.MODELS, "init", "Write a blueprint for a model and its data."),
    "check": Entry(Section.MODELS, "check", "Validate a blueprint and show its limits."),
    "run": Entry(Section.MODELS, "run", "Find the model that meets a blueprint, in one command."),
    "calibrate": Entry(
        Section.MODELS, "calibrate", "Record histograms of a model's values for several conversions."
    ),
    "convert": Entry(
        Section.MODELS, "convert", "Convert a model to .tflite: float, int8, int16x8, mixed, int4."
    ),
    "tune": Entry(Section.MODELS, "tune", "Fine-tune a Keras model with quantization-aware training (QAT)."),
    "evaluate": Entry(
        Section.MODELS, "evaluate", "Measure a .tflite model's accuracy and its distance from float."
    ),
    "sensitivity": Entry(
        Section.MODELS, "sensitivity", "Measure the noise that quantizing each operation adds."
    ),
    "search": Entry(Section.MODELS, "search", "Search the mixed-precision model that meets a blueprint."),
    "select": Entry(Section.MODELS, "select", "Select the best of several converted models by a blueprint."),
    "edgetpu": Entry(Section.MODELS, "edgetpu", "Report what runs on an Edge TPU; compile a model for it."),
    "lineage": Entry(
        Section.MODELS, "lineage", "Show the source, data and recipe that a .tflite was made from."
    ),
    "reproduce": Entry(Section.MODELS, "reproduce", "Rebuild a recorded .tflite and compare the bytes."),
    "devices": Entry(Section.DEVICES, "devices", "Enrol, list and remove devices; install boot services."),
    "bench": Entry(Section.DEVICES, "bench", "Measure a model's latency, start-up and memory on a device."),
    "infer": Entry(Section.DEVICES, "infer", "Run samples through a device's current model."),
    "logs": Entry(Section.DEVICES, "logs", "Show the journal, the service log and the crash log of devices."),
    "exec": Entry(Section.DEVICES, "exec", "Run a command on devices and show its output."),
    "agent": Entry(Section.DEVICES, "agent", "Build the device agent as a single file."),
    "bundle": Entry(Section.RELEASES, "bundle", "Make a signed bundle of a model; verify one."),
    "keys": Entry(Section.RELEASES, "keys", "Make signing keys; set which keys devices trust."),
    "plan": Entry(Section.RELEASES, "plan", "Show what a bundle would change on devices."),
    "deploy": Entry(Section.RELEASES, "deploy", "Deploy a bundle to devices, at once or in stages."),
    "rollout": Entry(
        Section.RELEASES, "rollout.manage", "Show, pause, resume, abort and roll back staged rollouts."
    ),
    "ab": Entry(Section.RELEASES, "ab.start", "Compare two releases in an A/B experiment and decide."),
    "rollback": Entry(Section.RELEASES, "rollback", "Return devices to a model's previous release."),
    "pin": Entry(Section.RELEASES, "pin", "Keep a release on devices when they are pruned."),
    "unpin": Entry(Section.RELEASES, "pin", "Undo a pin."),
    "prune": Entry(Section.RELEASES, "prune", "Delete unused releases, files and runtimes from devices."),
    "status": Entry(Section.FIELD, "status", "Show the releases, health and telemetry backlog of devices."),
    "collect": Entry(Section.FIELD, "collect", "Pull telemetry from devices into the store."),
    "quarantine": Entry(Section.FIELD, "quarantine", "List, show, drop and retry refused telemetry records."),
    "monitor": Entry(Section.FIELD, "monitor", "Detect drift, with a stated false-alarm rate."),
    "report": Entry(Section.FIELD, "report", "Write an HTML report of variants, devices and drift."),
    "runs": Entry(Section.WORKSPACE, "runs", "List recorded conversions, bundles and deployments."),
    "audit": Entry(Section.WORKSPACE, "audit", "List who changed what on devices; verify the list."),
    "demo": Entry(Section.WORKSPACE, "demo", "Run the whole workflow on this machine, with a small model."),
    "doctor": Entry(Section.WORKSPACE, "doctor", "Check this machine and its devices, and suggest fixes."),
    "completion": Entry(Section.WORKSPACE, "completion", "Print a shell completion script."),
}


class LazyGroup(Group):
    """A click group that imports a command when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = COMMANDS[cmd_name].module
        command = getattr(import_module(f"edgeq.cli.{module}"), f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise TypeError(f"edgeq.cli.{module}.{cmd_name}_command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write COMMANDS, a heading for each section, without importing a command."""
        widest = max(map(len, COMMANDS))
        for section in Section:
            # Padded names align the columns of all sections.
            rows = [
                (name.ljust(widest), one.help) for name, one in COMMANDS.items() if one.section is section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)


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
    type=WORKSPACE,
    default=Path(),
    envvar="EDGEQ_WORKSPACE",
    show_default="current folder",
    help="Folder of devices.toml and the store.",
)
@quiet_option
@verbose_option
@debug_option
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and exit.",
)
@click.pass_context
def root(ctx: click.Context, workspace: Path, quiet: bool, verbose: int, debug: bool) -> None:
    """Compress, verify, deploy and monitor TFLite models on fleets of small devices."""
    from edgeq.cli.ui import App, Ui

    ctx.obj = App(workspace=workspace, ui=Ui(quiet=quiet, verbosity=verbose))
