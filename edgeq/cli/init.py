"""`edgeq init`: write a blueprint for a model and its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.evaluate_details import parse_names
from edgeq.cli.outputs import check_outputs
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, command
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.drafting import Draft

_DATA = click.Path(path_type=Path)


def _names(ctx: click.Context, param: click.Parameter, labels: str | None) -> tuple[str, ...]:
    """Return class names given one after the other, or in a file."""
    if labels is None or "," in labels or not Path(labels).is_file():
        return parse_names(ctx, param, labels)
    try:
        lines = Path(labels).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{labels} is not UTF-8 text", ctx, param) from error
    return tuple(line.strip() for line in lines if line.strip())


@command(
    "init",
    examples=[
        "edgeq init",
        "edgeq init model.keras --data all.npz",
        "edgeq init m.tflite --calibration calibration.npz --evaluation evaluation.npz --kind raspberry-pi",
        "edgeq init model.onnx --data images/ --name doors -o doors/blueprint.toml --json",
    ],
)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=_DATA,
    help="One .npz, .npy or folder of images for everything. It is split into calibration.npz and "
    "evaluation.npz.",
)
@click.option("--evaluation", type=_DATA, help="Samples and labels to measure variants on.")
@click.option("--calibration", type=_DATA, help="Representative samples, for integer schemes.")
@click.option(
    "--training",
    type=_DATA,
    help="Labelled samples for pruning and QAT; without --calibration, 300 of them are taken for it.",
)
@click.option(
    "--labels",
    metavar="A,B,...|FILE",
    callback=_names,
    help="Class names, or a file with one in each line.",
)
@click.option(
    "--name", metavar="NAME", help="Name under which devices serve the model.  [default: that of the file]"
)
@click.option(
    "--kind", type=click.Choice([kind.value for kind in DeviceKind]), help="Kind of device that will run it."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("blueprint.toml"),
    show_default=True,
    help="The blueprint to write.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Seed of the split.")
@click.option("--force", is_flag=True, help="Replace a blueprint that exists; data is never replaced.")
def init_command(
    app: App,
    model: Path | None,
    data: Path | None,
    evaluation: Path | None,
    calibration: Path | None,
    training: Path | None,
    labels: tuple[str, ...],
    name: str | None,
    kind: str | None,
    output: Path,
    seed: int,
    force: bool,
) -> None:
    """Look at MODEL and data and write a commented blueprint that works at once.

    Without MODEL or data, those of the current folder are taken.
    """
    from edgeq.drafting import draft_blueprint, require_free

    check_outputs((("-o", output),), inputs=(model, data, evaluation, calibration, training))
    require_free(output, force=force)
    with worker_progress(app.ui) as on_progress:
        draft = draft_blueprint(
            model,
            data=data,
            evaluation=evaluation,
            calibration=calibration,
            training=training,
            labels=labels,
            name=name,
            kind=DeviceKind(kind) if kind else None,
            output=output,
            workspace=app.workspace,
            seed=seed,
            on_progress=on_progress,
        )
    draft.write(force=force)
    app.ui.remarks(notes=draft.notes, warnings=draft.warnings)
    app.ui.emit("edgeq.init/1", draft.to_json())
    app.ui.table(["wrote", "with"], _rows(draft))
    app.ui.next("run", output)


def _rows(draft: Draft) -> list[list[str]]:
    limit = f"{draft.limit.key} {draft.limit.value:g}"
    rows = [[str(draft.path), f"schemes {', '.join(draft.schemes)}; {limit}"]]
    rows += [[str(new.path), f"{new.samples} samples"] for new in draft.new_files]
    return [*rows, [str(draft.schema), "the keys of the blueprint, for editors"]]
