"""`edgeq tune`: a Keras 3 model trained with fake quantization, and the recipe that converts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.convert import followed
from edgeq.cli.training_options import training_options
from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.conversion import Tuned


@command(
    "tune",
    help="Train MODEL (.keras) with fake quantization, where plain conversion to integers loses accuracy.",
    examples=[
        "edgeq tune model.keras --qat --training train.npz -o tuned.keras",
        "edgeq convert tuned.keras -o model.tflite --recipe tuned.recipe.json --calibration calibration.npz",
        "edgeq tune model.keras --qat --distill --training unlabelled.npz -o tuned.keras --json",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--qat", is_flag=True, required=True, help="Train with fake quantization (the only kind).")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .keras to write.")
@click.option(
    "--scheme",
    type=click.Choice(["int8", "int4"]),
    default="int8",
    show_default=True,
    help="What the model will become; int4 is about the weights, where the runtime has kernels for it.",
)
@training_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
def tune_command(
    app: App, model: Path, qat: bool, output: Path, scheme: str, seed: int, **training: Any
) -> None:
    """Tune a model."""
    from edgeq.conversion import tune
    from edgeq.store import Store

    with followed(app.ui) as on_progress:
        done = tune(model, output, scheme=scheme, seed=seed, on_progress=on_progress, **training)
    for note in done.notes:
        app.ui.warn(note)
    document = {
        "source": str(model),
        "path": str(done.path),
        "sha256": done.sha256,
        "recipe_path": str(done.recipe_path),
        "recipe": done.recipe.to_dict(),
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "kept": done.kept,
        "began": done.began,
        "seed": seed,
        "tensors": done.tensors,
        "accuracy": dict(done.accuracy),
        "agreement": dict(done.agreement),
        "samples": done.samples,
        "tools": dict(done.tools),
        "notes": list(done.notes),
        "lineage": dict(done.lineage),
        "seconds": round(done.seconds, 3),
    }
    with Store.open(app.workspace) as store:
        store.record_run("tune", output.stem, document)
    app.ui.emit("edgeq.tune/1", document)
    app.ui.table(
        [f"on {done.samples} held-out samples", "accuracy", "agreement with float"],
        [
            ["float, before", _share(done.accuracy["float"]), "-"],
            [f"{scheme}, before", _share(done.accuracy["ptq"]), _share(done.agreement["ptq"])],
            ["float, tuned", _share(done.accuracy["tuned"]), "-"],
            [f"{scheme}, tuned", _share(done.accuracy["qat"]), _share(done.agreement["qat"])],
        ],
    )
    app.ui.line()
    app.ui.line(f"{done.path}, {done.recipe_path}: {_kept(done)}")
    app.ui.next(f"edgeq convert {done.path} -o MODEL.tflite --recipe {done.recipe_path} --calibration C.npz")


def _kept(done: Tuned) -> str:
    if done.kept == "ptq":
        return "the model as it was: tuning brought nothing"
    return f"{done.tensors} learned ranges, epoch {done.best_epoch} of {done.epochs} from {done.began}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
