"""`edgeq reproduce`: build a recorded model again and compare the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgeq.cli.ui import App, command

FILE = click.Path(path_type=Path)


@command(
    "reproduce",
    help="Build a recorded model (a FILE, a bundle or a DIGEST) again: the same bytes, or exit 1.",
    examples=[
        "edgeq reproduce int8.tflite",
        "edgeq reproduce 3f9a2c -o again.tflite --source moved/model.keras --json",
        "edgeq reproduce tuned.keras --training moved/train.npz",
    ],
)
@click.argument("what", metavar="DIGEST|FILE")
@click.option("-o", "--output", type=FILE, help="Keep the rebuilt file here.")
@click.option("--source", type=FILE, help="Where the source lies now, if it was moved.")
@click.option("--calibration", type=FILE, help="Where the calibration data lies now, if it was moved.")
@click.option("--histograms", type=FILE, help="The same for kept histograms.")
@click.option("--training", type=FILE, help="The same for training data.")
@click.option("--validation", type=FILE, help="The same for validation data.")
def reproduce_command(
    app: App, what: str, output: Path | None, source: Path | None, **moved: Path | None
) -> None:
    """Build a recorded model again."""
    import tempfile

    from edgeq.cli.convert import followed
    from edgeq.cli.recorded import chain
    from edgeq.conversion.lineage import short
    from edgeq.conversion.reproduce import reproduce
    from edgeq.errors import ModelError

    lineage = chain(app.workspace, what)[0]
    with tempfile.TemporaryDirectory(prefix="edgeq-reproduce-") as folder, followed(app.ui) as on_progress:
        done = reproduce(
            lineage,
            output or Path(folder) / f"rebuilt{_suffix(lineage)}",
            source=source,
            data={name: path for name, path in moved.items() if path is not None},
            on_progress=on_progress,
        )
    if not done.same:
        why = "; ".join(done.differs) or "nothing that was recorded differs"
        if "training" in lineage["data"]:
            why += "; a training adds up in another order on other processors and numbers of cores"
        raise ModelError(
            short(done.expected),
            f"the rebuilt file has other bytes ({why})",
            expected=f"sha256 {short(done.expected)}",
            got=short(done.sha256),
            hint="install the recorded versions and run it again",
            code="EQ324",
        )
    app.ui.emit(
        "edgeq.reproduce/1",
        {
            "same": done.same,
            "sha256": done.sha256,
            "expected": done.expected,
            "differs": list(done.differs),
            "path": None if output is None else str(output),
        },
    )
    app.ui.line(f"{short(done.sha256)}: the same bytes")
    for line in done.differs:
        app.ui.say(f"although {line}")


def _suffix(lineage: Mapping[str, Any]) -> str:
    return Path(str(lineage["output"]["path"])).suffix or ".tflite"
