"""`edgeq convert`: a model in, a verified .tflite out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.recipe_options import given_recipe, keep_recipe, recipe_options
from edgeq.cli.training_options import pruning_options, show_pruning
from edgeq.cli.ui import App, Ui, command

if TYPE_CHECKING:
    from edgeq.conversion import Conversion, TensorInfo


@command(
    "convert",
    help="Convert SOURCE (.keras, .h5, SavedModel folder or float .tflite) to a .tflite file.",
    examples=[
        "edgeq convert model.keras -o model.tflite --scheme int8 --calibration calibration.npz",
        "edgeq convert saved_model/ -o model.tflite --scheme float16",
        "edgeq convert float.tflite -o model.tflite --scheme int8 --calibration images/ --io float32 --json",
        "edgeq convert float.tflite -o model.tflite --scheme int8 --histograms H.npz --calibrator mse",
        "edgeq convert model.keras -o small.tflite --scheme float32 --prune channels:0.5 --training t.npz",
    ],
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .tflite to write.")
@click.option(
    "--scheme",
    type=click.Choice(["float32", "float16", "dynamic", "int8", "int16x8", "int8-mixed", "int4"]),
    help="int8 and int4 are full integer; dynamic and float16 shrink the weights only.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Representative samples: .npz (x), .npy or a folder of images a class. Needed for integers.",
)
@click.option(
    "--io",
    type=click.Choice(["int8", "int16", "float32"]),
    help="Inputs and outputs of an integer model.  [default: int8; float32 of int16x8]",
)
@recipe_options
@pruning_options
def convert_command(
    app: App,
    source: Path,
    output: Path,
    scheme: str | None,
    calibration: Path | None,
    io: str | None,
    histograms: Path | None,
    recipe_file: Path | None,
    save_recipe: Path | None,
    calibrator: str | None,
    bias_correction: str | None,
    equalization: str | None,
    backend: str | None,
    float_ops: tuple[str, ...],
    int4_sqnr_db: float | None,
    **pruning: Any,
) -> None:
    """Convert a model."""
    from edgeq.conversion import convert
    from edgeq.store import Store

    recipe = given_recipe(
        scheme,
        recipe_file,
        io=io,
        calibrator=calibrator,
        bias_correction=bias_correction,
        equalization=equalization,
        backend=backend,
        float_ops=float_ops,
        int4_sqnr_db=int4_sqnr_db,
    )
    with followed(app.ui) as on_progress:
        done = convert(
            source,
            output,
            recipe=recipe,
            calibration=calibration,
            histograms=histograms,
            on_progress=on_progress,
            **pruning,
        )
    notes = list(done.notes)
    if calibration is not None and not recipe.scheme.needs_ranges:
        notes.append(f"--calibration was not used: {recipe.scheme} needs none")
    keep_recipe(done.recipe, save_recipe)
    for note in notes:
        app.ui.warn(note)
    document = _document(source, done, notes)
    with Store.open(app.workspace) as store:
        store.record_run("convert", output.stem, document)
    app.ui.emit("edgeq.convert/1", document)
    _show(app.ui, done)
    app.ui.next(f"edgeq evaluate {output} --data EVALUATION.npz")


def _document(source: Path, done: Conversion, notes: list[str]) -> dict[str, object]:
    kinds = done.ops_by_kind()
    return {
        "source": str(source),
        "path": str(done.path),
        "sha256": done.sha256,
        "size_bytes": done.size_bytes,
        "scheme": done.scheme.value,
        "io": done.io,
        "recipe": done.recipe.to_dict(),
        "op_report": {
            "total": len(done.op_report),
            **kinds,
            "ops": [asdict(line) for line in done.op_report],
        },
        "inputs": [asdict(tensor) for tensor in done.inputs],
        "outputs": [asdict(tensor) for tensor in done.outputs],
        "pruning": done.pruning,
        "backend": done.backend,
        "tools": dict(done.tools),
        "parity": done.parity,
        "edgetpu": dict(done.edgetpu),
        "lineage": dict(done.lineage),
        "notes": notes,
        "seconds": round(done.seconds, 3),
    }


def _show(ui: Ui, done: Conversion) -> None:
    from edgeq.units import format_size

    kinds = ", ".join(f"{count} {kind}" for kind, count in done.ops_by_kind().items() if count)
    ui.table(
        ["model", "scheme", "size", "operations", "seconds"],
        [[str(done.path), done.scheme, format_size(done.size_bytes), kinds, f"{done.seconds:.1f}"]],
    )
    rows = [["input", *_row(tensor)] for tensor in done.inputs]
    rows += [["output", *_row(tensor)] for tensor in done.outputs]
    ui.line()
    ui.table(["", "name", "shape", "type", "scale", "zero point"], rows)
    if done.pruning is not None:
        show_pruning(ui, done.pruning)
    for line in done.op_report:
        ui.detail(f"op {line.index:>3}  {line.op:<24} {line.kind:<8} {line.reason}")


def _row(tensor: TensorInfo) -> list[str]:
    scale = "-" if tensor.scale is None else f"{tensor.scale:.6g}"
    zero = "-" if tensor.zero_point is None else str(tensor.zero_point)
    return [tensor.name, "x".join(map(str, tensor.shape)), tensor.dtype, scale, zero]


@contextmanager
def followed(ui: Ui) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (step, done, total) that says when a step starts and shows the long ones' progress."""
    with ExitStack() as bars:
        state: dict[str, object] = {"step": "", "done": 0}
        advance: list[Callable[[int], None]] = []

        def on_progress(step: str, done: int, total: int) -> None:
            if step != state["step"]:
                bars.close()
                state.update(step=step, done=0)
                advance[:] = [bars.enter_context(ui.progress(step, total))] if total > 1 else []
                if total == 1:
                    ui.say(step)
            elif advance:
                advance[0](done - int(str(state["done"])))
                state["done"] = done

        yield on_progress
