"""`edgeq edgetpu`: what an Edge TPU takes of a .tflite, and the compiler's own word where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from edgeq.cli.ui import App, Ui, command


@command(
    "edgetpu",
    help="Say which operations of MODEL.tflite an Edge TPU runs, which not and why; compile it with -o.",
    examples=[
        "edgeq edgetpu int8.tflite",
        "edgeq edgetpu int8.tflite -o int8_edgetpu.tflite",
        "edgeq edgetpu int8.tflite --no-compile --json",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the compiled model; needs edgetpu_compiler.",
)
@click.option("--no-compile", is_flag=True, help="Do not run edgetpu_compiler, also where it is installed.")
def edgetpu_command(app: App, model: Path, output: Path | None, no_compile: bool) -> None:
    """Say what an Edge TPU takes."""
    from edgeq.conversion.edgetpu import edgetpu
    from edgeq.errors import UsageError

    if output is not None and no_compile:
        raise UsageError("--no-compile", "-o needs the compiler", hint="leave one of them out")
    done = edgetpu(model, output, compile=not no_compile)
    app.ui.emit(
        "edgeq.edgetpu/1",
        {
            "model": str(model),
            "path": None if output is None else str(output),
            **done.summary,
            "ops": [dict(line) for line in done.ops],
            "compiler": done.compiler,
        },
    )
    _show(app.ui, done.ops, done.summary)
    if done.compiler is not None:
        _show_compiler(app.ui, done.compiler)
    elif not no_compile and not done.summary["compiled"]:
        app.ui.say("edgetpu_compiler is not on PATH: this is Coral's table, not the compiler's word")
    if output is not None:
        app.ui.say(f"wrote {output}")


def _show(ui: Ui, ops: tuple[Mapping[str, Any], ...], summary: Mapping[str, Any]) -> None:
    rows = []
    for (op, on_tpu, reason), group in groupby(
        ops, key=lambda line: (line["op"], line["on_tpu"], line["reason"])
    ):
        same = list(group)
        first, last = same[0]["index"], same[-1]["index"]
        where = str(first) if first == last else f"{first}-{last}"
        macs = sum(line["macs"] for line in same)
        rows.append([where, op, "TPU" if on_tpu else "CPU", f"{macs:,}" if macs else "-", reason])
    ui.table(["op", "operation", "runs on", "MACs", "why"], rows)
    ui.line()
    share = summary["macs_share"]
    if summary["compiled"]:
        ui.line("the model is compiled for the Edge TPU already")
    else:
        macs = "" if share is None else f", {100 * share:.1f} % of the multiplications"
        ui.line(f"{summary['on_tpu']} of {summary['operations']} operations would run on the Edge TPU{macs}")
    if split := summary["split_at"]:
        ui.line(f"the graph splits at op {split['index']}, {split['op']}: {split['reason']}")
    for risk in summary["risks"]:
        ui.warn(risk)
    ui.say(f"by {summary['page']}")


def _show_compiler(ui: Ui, said: Mapping[str, Any]) -> None:
    from edgeq.units import format_size

    ui.line()
    ui.line(
        f"edgetpu_compiler {said['version']}: {said['tpu_ops']} operations on the TPU, {said['cpu_ops']} not"
    )
    ui.table(["operation", "count", "status"], [[r["op"], str(r["count"]), r["status"]] for r in said["ops"]])
    if said["streamed_bytes"]:
        ui.line(f"{format_size(said['streamed_bytes'])} of weights come over the bus in each inference")
