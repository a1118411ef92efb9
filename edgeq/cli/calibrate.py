"""`edgeq calibrate`: a model's value histograms, kept once and merged with others'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.convert import followed
from edgeq.cli.ui import App, Ui, command
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.conversion import Calibrated

_SHOWN, _WIDTH = 10, 60


@command(
    "calibrate",
    help="Run SOURCE (any model that convert takes) on samples and keep every tensor's histogram; or, with "
    "--merge, add up the histograms of several files.",
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
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The .npz or .json to write."
)
@click.option("--merge", is_flag=True, help="Merge FILES of histograms, all of one model.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Earlier histograms: say how far these samples are from theirs.",
)
def calibrate_command(
    app: App, sources: tuple[Path, ...], data: Path | None, output: Path, merge: bool, against: Path | None
) -> None:
    """Calibrate."""
    from edgeq.conversion import calibrate, merge_calibrations

    if merge:
        if data is not None or against is not None:
            raise UsageError("--merge", "takes files of histograms only, no --data and no --against")
        done = merge_calibrations(sources, output)
    else:
        if len(sources) != 1:
            raise UsageError("SOURCE", expected="one model", got=f"{len(sources)}", hint="--merge for files")
        if data is None:
            raise UsageError("--data", "no samples were given", hint="--data calibration.npz")
        with followed(app.ui) as on_progress:
            done = calibrate(sources[0], data, output, against=against, on_progress=on_progress)
    for note in done.notes:
        app.ui.warn(note)
    app.ui.emit("edgeq.calibrate/1", _document(done))
    _show(app.ui, done)
    model = "MODEL" if merge else str(sources[0])
    app.ui.next(f"edgeq convert {model} -o int8.tflite --scheme int8 --histograms {output}")


def _document(done: Calibrated) -> dict[str, object]:
    return {
        "path": str(done.path),
        "size_bytes": done.size_bytes,
        "model_sha256": done.model_sha256,
        "source_sha256": done.source_sha256,
        "samples": done.samples,
        "data": [{"sha256": digest, "samples": samples} for digest, samples in done.data],
        "ranges": {name: list(found) for name, found in done.ranges.items()},
        "shifts": [{"tensor": s.tensor, "psi": s.psi, "outside": s.outside} for s in done.shifts],
        "notes": list(done.notes),
        "seconds": round(done.seconds, 3),
    }


def _show(ui: Ui, done: Calibrated) -> None:
    from edgeq.units import format_size

    ui.table(
        ["histograms", "tensors", "samples", "size", "model"],
        [
            [
                str(done.path),
                str(len(done.ranges)),
                str(done.samples),
                format_size(done.size_bytes),
                done.model_sha256[:12],
            ]
        ],
    )
    if done.shifts:
        ui.line()
        ui.table(
            ["tensor", "PSI", "beyond calibration"],
            [[_short(s.tensor), f"{s.psi:.3f}", f"{100 * s.outside:.2f} %"] for s in done.shifts[:_SHOWN]],
        )
    for name, (low, high) in done.ranges.items():
        ui.detail(f"{low:>12.5g} {high:>12.5g}  {name}")


def _short(tensor: str) -> str:
    # TensorFlow names a fused operation after all that it was fused from, joined by semicolons.
    first = tensor.partition(";")[0]
    return first if len(first) <= _WIDTH else f"...{first[-_WIDTH:]}"
