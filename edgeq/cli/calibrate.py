"""`edgeq calibrate`: write the value histograms of a model's tensors, or merge such files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.options import source_options
from edgeq.cli.outputs import check_outputs
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, Ui, command
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.conversion import Calibrated

_SHOWN, _WIDTH = 10, 60


@command(
    "calibrate",
    help="Run SOURCE (any model that `edgeq convert` accepts) on samples and write the histogram of every "
    "tensor. With --merge, merge FILES of histograms.",
    examples=[
        "edgeq calibrate float.tflite --data calibration.npz -o histograms.npz",
        "edgeq calibrate --merge monday.npz tuesday.npz -o both.npz",
        "edgeq calibrate float.tflite --data field.npz --against histograms.npz -o field-histograms.npz",
    ],
)
@click.argument("sources", metavar="[SOURCE | FILES...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="Samples: .npz (x), .npy or a folder of images."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The .npz or .json file to write."
)
@click.option("--merge", is_flag=True, help="Merge FILES of histograms of the same model.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Earlier histograms to compare these samples with.",
)
@source_options
def calibrate_command(
    app: App,
    sources: tuple[Path, ...],
    data: Path | None,
    output: Path,
    merge: bool,
    against: Path | None,
    signature: str | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    constants: tuple[tuple[str, float], ...],
    states: tuple[tuple[str, str], ...],
) -> None:
    """Calibrate."""
    from edgeq.conversion import calibrate, merge_calibrations
    from edgeq.store import Store

    check_outputs((("-o", output),), inputs=(*sources, data, against))
    if merge:
        if data is not None or against is not None:
            raise UsageError("--merge", "takes only files of histograms; leave --data and --against out")
        with Store.open(app.workspace) as store:
            calibrated = merge_calibrations(sources, output, store=store)
    else:
        if len(sources) != 1:
            raise UsageError(
                "SOURCE", expected="one model", got=f"{len(sources)}", hint="add --merge to merge files"
            )
        if data is None:
            raise UsageError("--data", "is required", hint="--data calibration.npz")
        with Store.open(app.workspace) as store, worker_progress(app.ui) as on_progress:
            calibrated = calibrate(
                sources[0],
                data,
                output,
                against=against,
                signature=signature or "",
                shapes=shapes,
                constants=constants,
                states=states,
                on_progress=on_progress,
                store=store,
            )
    app.ui.remarks(notes=calibrated.notes, warnings=calibrated.warnings)
    app.ui.emit("edgeq.calibrate/1", calibrated.to_json())
    _show(app.ui, calibrated)
    model = "MODEL" if merge else str(sources[0])
    app.ui.next("convert", model, "-o", "int8.tflite", "--scheme", "int8", "--histograms", output)


def _show(ui: Ui, calibrated: Calibrated) -> None:
    from edgeq.units import format_size

    ui.table(
        ["histograms", "tensors", "samples", "size", "model"],
        [
            [
                str(calibrated.path),
                str(len(calibrated.ranges)),
                str(calibrated.samples),
                format_size(calibrated.size_bytes),
                calibrated.model_sha256[:12],
            ]
        ],
    )
    if calibrated.shifts:
        ui.line()
        ui.table(
            ["tensor", "PSI", "outside calibration"],
            [
                [_short(s.tensor), f"{s.psi:.3f}", f"{100 * s.outside:.2f} %"]
                for s in calibrated.shifts[:_SHOWN]
            ],
        )
    for name, (low, high) in calibrated.ranges.items():
        ui.detail(f"{low:>12.5g} {high:>12.5g}  {name}")


def _short(tensor: str) -> str:
    # TensorFlow names a fused operation after all its parts, joined by semicolons.
    first = tensor.partition(";")[0]
    return first if len(first) <= _WIDTH else f"...{first[-_WIDTH:]}"
