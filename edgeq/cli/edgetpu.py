"""`edgeq edgetpu`: which operations of a .tflite run on an Edge TPU; compile it if possible."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.outputs import check_outputs
from edgeq.cli.ui import App, Ui, command

if TYPE_CHECKING:
    from edgeq.conversion.edgetpu import EdgeTpuReport
    from edgeq_converters.edgetpu.values import CompilerLog


@command(
    "edgetpu",
    help="Report which operations of MODEL (.tflite) run on an Edge TPU, and why others do not.",
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
    help="Write the compiled model; requires edgetpu_compiler.",
)
@click.option("--no-compile", is_flag=True, help="Do not run edgetpu_compiler even if it is installed.")
def edgetpu_command(app: App, model: Path, output: Path | None, no_compile: bool) -> None:
    """Report Edge TPU readiness."""
    from edgeq.conversion.edgetpu import edgetpu
    from edgeq.errors import UsageError

    if output is not None and no_compile:
        raise UsageError("--no-compile", "-o requires the compiler", hint="leave one of them out")
    check_outputs((("-o", output),), inputs=(model,))
    report = edgetpu(model, output, compile=not no_compile)
    app.ui.emit("edgeq.edgetpu/1", report.to_json())
    _show(app.ui, report)
    if report.compiler is not None:
        _show_compiler(app.ui, report.compiler)
    elif not no_compile and not report.summary.compiled:
        app.ui.say("edgetpu_compiler is not on PATH: this is Coral's table, not the compiler's own result")
    if output is not None:
        app.ui.say(f"wrote {output}")


def _show(ui: Ui, report: EdgeTpuReport) -> None:
    rows = []
    for (op, on_tpu, reason), group in groupby(
        report.ops, key=lambda placed: (placed.op, placed.on_tpu, placed.reason)
    ):
        same = list(group)
        first, last = same[0].index, same[-1].index
        where = str(first) if first == last else f"{first}-{last}"
        count = sum(placed.macs for placed in same)
        rows.append([where, op, "TPU" if on_tpu else "CPU", f"{count:,}" if count else "-", reason])
    ui.table(["op", "operation", "runs on", "MACs", "reason"], rows)
    ui.line()
    summary = report.summary
    if summary.compiled:
        ui.line("the model is already compiled for the Edge TPU")
    else:
        share = summary.macs_share
        macs = "" if share is None else f", {100 * share:.1f} % of the multiply-accumulates"
        ui.line(f"{summary.on_tpu} of {summary.operations} operations would run on the Edge TPU{macs}")
    if split := summary.split_at:
        ui.line(f"the graph splits at op {split.index}, {split.op}: {split.reason}")
    for risk in summary.risks:
        ui.warn(risk)
    ui.say(f"source: {summary.page}")


def _show_compiler(ui: Ui, log: CompilerLog) -> None:
    from edgeq.units import format_size

    ui.line()
    ui.line(f"edgetpu_compiler {log.version}: {log.tpu_ops} operations on the TPU, {log.cpu_ops} on the CPU")
    ui.table(["operation", "count", "status"], [[row.op, str(row.count), row.status] for row in log.ops])
    if log.streamed_bytes:
        ui.line(f"{format_size(log.streamed_bytes)} of weights are streamed over the bus on every inference")
