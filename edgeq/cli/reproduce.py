"""`edgeq reproduce`: rebuild a recorded model and compare the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.outputs import check_outputs
from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.conversion.lineage import Lineage

FILE = click.Path(path_type=Path)


@command(
    "reproduce",
    help="Rebuild a recorded model, named by FILE, bundle or DIGEST; exit status 1 if the bytes differ.",
    examples=[
        "edgeq reproduce int8.tflite",
        "edgeq reproduce 3f9a2c -o again.tflite --source moved/model.keras --json",
        "edgeq reproduce tuned.keras --training moved/train.npz",
    ],
)
@click.argument("what", metavar="DIGEST|FILE")
@click.option("-o", "--output", type=FILE, help="Write the rebuilt file here.")
@click.option("--source", type=FILE, help="Current path of the source, if it was moved.")
@click.option("--calibration", type=FILE, help="Current path of the calibration data, if it was moved.")
@click.option("--histograms", type=FILE, help="Current path of the histograms, if they were moved.")
@click.option("--training", type=FILE, help="Current path of the training data, if it was moved.")
@click.option("--validation", type=FILE, help="Current path of the validation data, if it was moved.")
def reproduce_command(
    app: App, what: str, output: Path | None, source: Path | None, **moved: Path | None
) -> None:
    """Rebuild a recorded model."""
    import tempfile

    from edgeq.cli.progress import worker_progress
    from edgeq.cli.recorded import chain
    from edgeq.conversion.lineage import short
    from edgeq.conversion.reproduce import reproduce_chain
    from edgeq.errors import ModelError

    check_outputs((("-o", output),), inputs=(Path(what), source, *moved.values()))
    links = chain(app.workspace, what)
    lineage = links[0]
    with (
        tempfile.TemporaryDirectory(prefix="edgeq-reproduce-") as folder,
        worker_progress(app.ui) as on_progress,
    ):
        rebuilt = reproduce_chain(
            links,
            output or Path(folder) / f"rebuilt{_suffix(lineage)}",
            workdir=Path(folder),
            source=source,
            data={name: path for name, path in moved.items() if path is not None},
            on_progress=on_progress,
        )
    if not rebuilt.same:
        why = "; ".join(rebuilt.differs) or "every recorded property is the same"
        if "training" in lineage.data:
            why += "; training sums in a different order on other processors and core counts"
        raise ModelError(
            short(rebuilt.expected),
            f"the rebuilt file has different bytes ({why})",
            expected=f"sha256 {short(rebuilt.expected)}",
            got=short(rebuilt.sha256),
            hint="install the recorded versions and run the command again",
            code="EQ324",
        )
    app.ui.remarks(notes=(), warnings=rebuilt.warnings)
    app.ui.emit(
        "edgeq.reproduce/1",
        {
            "same": rebuilt.same,
            "sha256": rebuilt.sha256,
            "expected": rebuilt.expected,
            "differs": list(rebuilt.differs),
            "warnings": list(rebuilt.warnings),
            "path": None if output is None else str(output),
        },
    )
    app.ui.line(f"{short(rebuilt.sha256)}: identical bytes")
    for line in rebuilt.differs:
        app.ui.note(line)


def _suffix(lineage: Lineage) -> str:
    return Path(str(lineage.output.path)).suffix or ".tflite"
