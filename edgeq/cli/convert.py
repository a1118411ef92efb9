"""`edgeq convert`: convert a model to a verified .tflite."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.options import (
    pruning_options,
    recipe_from_options,
    recipe_options,
    source_options,
    write_recipe,
)
from edgeq.cli.outputs import check_outputs
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, Ui, command
from edgeq.units import format_duration, format_percent, format_size

if TYPE_CHECKING:
    from edgeq.conversion import Conversion, TensorInfo
    from edgeq_converters.training.pruning.report import PruningLoss, PruningReport
    from edgeq_converters.values import FloatPart


@command(
    "convert",
    help="Convert SOURCE (.keras, .h5, SavedModel folder, .onnx, .pt2 or float .tflite) to a .tflite file.",
    examples=[
        "edgeq convert model.keras -o model.tflite --scheme int8 --calibration calibration.npz",
        "edgeq convert saved_model/ -o model.tflite --scheme float16",
        "edgeq convert float.tflite -o model.tflite --scheme int8 --calibration images/ --io float32 --json",
        "edgeq convert float.tflite -o model.tflite --scheme int8 --histograms H.npz --calibrator mse",
        "edgeq convert float.tflite -o model.tflite --scheme int8 --calibration C.npz --allow-float",
        "edgeq convert model.keras -o small.tflite --scheme float32 --prune channels:0.5 --training t.npz",
    ],
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The .tflite file to write."
)
@click.option(
    "--scheme",
    type=click.Choice(["float32", "float16", "dynamic", "int8", "int16x8", "int8-mixed", "int4"]),
    help="int8 and int4 are full integer; dynamic and float16 shrink only the weights.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Representative samples: .npz (x), .npy, or a folder with one folder of images per class. Required "
    "for integer schemes.",
)
@click.option(
    "--io",
    metavar="TYPE[,TYPE]",
    help="Type of inputs and outputs of an integer model: int8, uint8, int16 or float32; uint8,float32 names "
    "both.  [default: int8; int16x8: float32]",
)
@click.option(
    "--for",
    "machine",
    metavar="NAME",
    help="Device or class of machines (x86_64) that will run the model: warns if the scheme is slow there.",
)
@click.option("--strict", is_flag=True, help="Fail if the result does not follow its float model (EQ334).")
@source_options
@recipe_options
@pruning_options
def convert_command(
    app: App,
    source: Path,
    output: Path,
    scheme: str | None,
    calibration: Path | None,
    io: str | None,
    machine: str | None,
    strict: bool,
    histograms: Path | None,
    recipe_file: Path | None,
    save_recipe: Path | None,
    calibrator: str | None,
    bias_correction: str | None,
    equalization: str | None,
    effort: str | None,
    backend: str | None,
    float_ops: tuple[str, ...],
    allow_float: bool,
    int16_ops: tuple[str, ...],
    int4_sqnr_db: float | None,
    signature: str | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    constants: tuple[tuple[str, float], ...],
    states: tuple[tuple[str, str], ...],
    **pruning: Any,
) -> None:
    """Convert a model."""
    from edgeq.conversion import convert
    from edgeq.store import Store

    recipe = recipe_from_options(
        scheme,
        recipe_file,
        io=io,
        calibrator=calibrator,
        bias_correction=bias_correction,
        equalization=equalization,
        effort=effort,
        backend=backend,
        float_ops=float_ops,
        allow_float=allow_float,
        int16_ops=int16_ops,
        int4_sqnr_db=int4_sqnr_db,
        signature=signature,
        shapes=shapes,
        constants=constants,
        states=states,
    )
    data = (calibration, histograms, pruning.get("training"), pruning.get("validation"))
    check_outputs((("-o", output),), inputs=(source, *data, recipe_file))
    check_outputs((("-o", output), ("--save-recipe", save_recipe)), inputs=(source, *data))
    with Store.open(app.workspace) as store, worker_progress(app.ui) as on_progress:
        conversion = convert(
            source,
            output,
            recipe=recipe,
            calibration=calibration,
            histograms=histograms,
            strict=strict,
            machine=machine,
            on_progress=on_progress,
            store=store,
            **pruning,
        )
    write_recipe(conversion.recipe, save_recipe)
    app.ui.remarks(notes=conversion.notes, warnings=conversion.warnings)
    app.ui.emit("edgeq.convert/1", conversion.to_json())
    _show(app.ui, conversion)
    app.ui.next("evaluate", output, "--data", "EVALUATION.npz")


def _show(ui: Ui, conversion: Conversion) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in conversion.ops_by_kind().items() if count)
    ui.table(
        ["model", "scheme", "size", "operations", "seconds"],
        [
            [
                str(conversion.path),
                conversion.scheme,
                format_size(conversion.size_bytes),
                kinds,
                f"{conversion.seconds:.1f}",
            ]
        ],
    )
    rows = [["input", *_row(tensor)] for tensor in conversion.inputs]
    rows += [["output", *_row(tensor)] for tensor in conversion.outputs]
    ui.line()
    ui.table(["", "name", "shape", "type", "scale", "zero point"], rows)
    if conversion.float_part is not None:
        _show_float(ui, conversion.float_part)
    if conversion.pruning is not None:
        _show_pruning(ui, conversion.pruning)
    for line in conversion.op_report:
        ui.detail(f"op {line.index:>3}  {line.op:<24} {line.kind:<8} {line.reason}")


def _show_float(ui: Ui, part: FloatPart) -> None:
    kinds = Counter((each.op, each.reason) for each in part.operations)
    named = ", ".join(f"{count} {op} ({reason})" for (op, reason), count in kinds.items())
    regions = "1 region" if part.regions == 1 else f"{part.regions} regions"
    ui.line()
    ui.line(
        f"float: {named}; {format_percent(part.share)} of the operations, in {regions} with "
        f"{part.conversions} conversions"
    )
    cost = part.cost
    if cost is None:
        ui.line(f"  their cost was not measured: {part.unmeasured}")
    elif cost.ratio is None:
        ui.line(f"  no operation is integer: {format_duration(cost.file_ns)} on this machine")
    else:
        ui.line(
            f"  cost on this machine: the file takes {cost.ratio:.2f} times its integer part "
            f"({cost.ratio_low:.2f} to {cost.ratio_high:.2f}); file {format_duration(cost.file_ns)}, float "
            f"operations and their conversions alone {format_duration(cost.float_ns)}"
        )
    for each in part.operations:
        ui.detail(f"float op {each.index:>3}  {each.op:<24} {each.name}  {each.reason}")


def _row(tensor: TensorInfo) -> list[str]:
    scale = "-" if tensor.scale is None else f"{tensor.scale:.6g}"
    zero = "-" if tensor.zero_point is None else str(tensor.zero_point)
    if tensor.slices is not None:
        scale = zero = "by slice"
    return [tensor.name, "x".join(map(str, tensor.shape)), tensor.dtype, scale, zero]


def _show_pruning(ui: Ui, pruning: PruningReport) -> None:
    accuracy, latency = pruning.accuracy, pruning.latency_ns
    ui.line()
    ui.table(
        [f"pruned {pruning.kind}:{pruning.ratio:g}", "before", "after"],
        [
            ["parameters", str(pruning.parameters.before), str(pruning.parameters.after)],
            ["nonzero parameters", "", str(pruning.parameters.nonzero)],
            ["file", format_size(pruning.size_bytes.before), format_size(pruning.size_bytes.after)],
            [
                "file, compressed",
                format_size(pruning.compressed_bytes.before),
                format_size(pruning.compressed_bytes.after),
            ],
            [
                "latency here, p50",
                format_duration(latency.before.p50),
                format_duration(latency.after.p50),
            ],
            ["accuracy, float", _share(accuracy.before), _share(accuracy.tuned)],
            ["  before re-tuning", "", _share(accuracy.pruned)],
            ["accuracy, file", _share(accuracy.file_before), _share(accuracy.file_after)],
            *_losses(pruning.loss),
        ],
    )
    ui.line(f"gain: {pruning.bought}")
    for layer in pruning.left:
        ui.note(f"not pruned: {layer.layer} ({layer.reason})")


def _losses(loss: PruningLoss | None) -> list[list[str]]:
    if loss is None:
        return []
    return [
        ["loss, float", f"{loss.before:.4g}", f"{loss.tuned:.4g}"],
        ["  before re-tuning", "", f"{loss.pruned:.4g}"],
        ["loss, file", f"{loss.file_before:.4g}", f"{loss.file_after:.4g}"],
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else format_percent(value)
