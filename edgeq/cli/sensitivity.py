"""`edgeq sensitivity`: what quantizing each operation to int8 costs, with advice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.outputs import check_outputs
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, Ui, command

if TYPE_CHECKING:
    from edgeq.evaluation.sensitivity import OpSensitivity, Sensitivity
    from edgeq_converters.values import OutputSqnr

_SHOWN = 25


@command(
    "sensitivity",
    help="Measure what quantizing each operation of FLOAT (.tflite) to int8 costs at the logits.",
    examples=[
        "edgeq sensitivity float.tflite --calibration calibration.npz --evaluation evaluation.npz",
        "edgeq sensitivity float.tflite --calibration c.npz --evaluation e.npz --html sensitivity.html",
        "edgeq sensitivity float.tflite --calibration c.npz --evaluation e.npz --json",
    ],
)
@click.argument("model", metavar="FLOAT", type=click.Path(path_type=Path))
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    required=True,
    help="Representative samples: .npz (x), .npy, or a folder with one folder of images per class.",
)
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path),
    required=True,
    help="Other samples, on which the quantized models are compared with the float model.",
)
@click.option(
    "--calibrator",
    default="minmax",
    show_default=True,
    help="How ranges are derived from the samples.",
    metavar="NAME[:VALUE]",
)
@click.option(
    "--samples",
    default=256,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Largest number of evaluation samples to use.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an HTML page with plots to this file.",
)
def sensitivity_command(
    app: App,
    model: Path,
    calibration: Path,
    evaluation: Path,
    calibrator: str,
    samples: int,
    html: Path | None,
) -> None:
    """Measure sensitivity."""
    from edgeq.evaluation.sensitivity import analyze_sensitivity
    from edgeq.store import Store

    check_outputs((("--html", html),), inputs=(model, calibration, evaluation))
    with Store.open(app.workspace) as store, worker_progress(app.ui) as on_progress:
        analysis = analyze_sensitivity(
            model,
            calibration=calibration,
            evaluation=evaluation,
            calibrator=calibrator,
            samples=samples,
            on_progress=on_progress,
            store=store,
        )
    result = analysis.sensitivity
    _show(app.ui, result)
    if html is not None:
        from edgeq.report import write_report
        from edgeq.search.sensitivity_page import sensitivity_view

        write_report(html, sensitivity_view(model, result))
        app.ui.say(f"wrote {html}")
    app.ui.emit("edgeq.sensitivity/1", analysis.to_json())
    app.ui.next("search", "BLUEPRINT.toml")


def _show(ui: Ui, result: Sensitivity) -> None:
    at = f"before {', '.join(result.before)}" if result.before else "the model's outputs"
    ui.line(
        f"SQNR at {', '.join(result.measured_at)} ({at}), "
        f"{result.samples} samples, {result.calibrator} ranges"
    )
    ui.line(f"all operations int8, uncorrected: {_db(result.int8_db)}")
    for output in result.int8_outputs if result.has_slices else ():
        ui.line(f"  `{output.name}`: {_whole(output)}{_worst_slice(output)}")
    ui.line()
    worst = [result.ops[i] for i in result.ranking]
    rest = [op for op in result.ops if op.index not in result.ranking]
    shown = [*worst, *rest] if ui.verbosity else worst[:_SHOWN]
    where = ["worst at"] if result.has_slices else []
    ui.table(
        ["op", "operation", "alone", *where, "up to here", "its output", "share", "output range", "weights"],
        [_row(op, where=bool(where)) for op in shown],
    )
    hidden = len(result.ops) - len(shown)
    if hidden:
        ui.line(f"{hidden} more {'operation' if hidden == 1 else 'operations'} with -v")
    ui.line()
    for op in worst:
        for line in op.advice:
            ui.line(line)
    for line in result.notes:
        ui.line(line)
    ui.remarks(notes=(), warnings=result.warnings)


def _row(op: OpSensitivity, *, where: bool) -> list[str]:
    seen, weights = op.activation, op.weights
    return [
        str(op.index),
        op.op,
        _db(op.alone_db),
        *(["-" if op.alone_at is None else op.alone_at.worst_at] if where else []),
        _db(op.cumulative_db),
        _db(op.local_db),
        "-" if op.share is None else f"{100 * op.share:.0f} %",
        "-" if seen is None else f"{seen.minimum:.3g} to {seen.maximum:.3g}",
        "-" if weights is None else f"{weights.minimum:.3g} to {weights.maximum:.3g}",
    ]


def _whole(output: OutputSqnr) -> str:
    return "no noise" if output.sqnr_db is None else _db(output.sqnr_db)


def _worst_slice(output: OutputSqnr) -> str:
    if output.worst_slice is None:
        return ""
    return f", slice {output.worst_slice} of 0 to {output.slices - 1}: {_db(output.worst_slice_db)}"


def _db(value: float | None) -> str:
    if value is None:
        return "-"
    return "no noise" if math.isinf(value) and value > 0 else f"{value:.1f} dB"
