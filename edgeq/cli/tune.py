"""`edgeq tune`: train a Keras 3 model or a float .tflite with fake quantization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.evaluate import no_drop_shown
from edgeq.cli.options import training_options
from edgeq.cli.outputs import check_outputs
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, command
from edgeq.units import format_percent

if TYPE_CHECKING:
    from edgeq.conversion import Tuned


@command(
    "tune",
    help="Train MODEL (.keras, or a float .tflite with --distill) with fake quantization, for when plain "
    "conversion to integers loses accuracy.",
    examples=[
        "edgeq tune model.keras --qat --training train.npz -o tuned.keras",
        "edgeq convert tuned.keras -o model.tflite --recipe tuned.recipe.json --calibration calibration.npz",
        "edgeq tune model.keras --qat --distill --training unlabelled.npz -o tuned.keras --json",
        "edgeq tune model.tflite --qat --distill --training unlabelled.npz -o tuned.tflite",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--qat", is_flag=True, required=True, help="Quantization-aware training (currently the only method)."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write, of the kind of MODEL; its recipe goes next to it.",
)
@click.option(
    "--scheme",
    type=click.Choice(["int8", "int4"]),
    default="int8",
    show_default=True,
    help="Target of the later conversion. int4: 4-bit weights where the runtime has kernels for them.",
)
@training_options
@click.option("--strict", is_flag=True, help="Fail if the result is useless (EQ334).")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Random seed.")
def tune_command(
    app: App, model: Path, qat: bool, output: Path, scheme: str, strict: bool, seed: int, **training: Any
) -> None:
    """Tune a model."""
    from edgeq.conversion import tune
    from edgeq.store import Store

    check_outputs(
        (("-o", output), ("-o", output.with_suffix(".recipe.json"))),
        inputs=(model, training.get("training"), training.get("validation")),
    )
    with Store.open(app.workspace) as store, worker_progress(app.ui) as on_progress:
        tuned = tune(
            model,
            output,
            scheme=scheme,
            seed=seed,
            strict=strict,
            on_progress=on_progress,
            store=store,
            **training,
        )
    app.ui.remarks(notes=tuned.notes, warnings=tuned.warnings)
    app.ui.emit("edgeq.tune/1", tuned.to_json())
    app.ui.table(
        [f"on {tuned.samples} held-out samples", "accuracy", _agreement(tuned), "drop", "SQNR"],
        [
            [title, *_figures(tuned, name)]
            for name, title in (
                ("float", "float, before"),
                ("ptq", f"{scheme}, before"),
                ("tuned", "float, tuned"),
                ("qat", f"{scheme}, tuned"),
            )
        ],
    )
    if tuned.loss["qat"] is not None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in tuned.loss.items() if value is not None)
        app.ui.line(f"loss: {shown}")
    drops = [tuned.accuracy_drop_ci95[name] for name in ("ptq", "qat")]
    if tuned.smallest_drop is not None and any(ends and ends[0] <= 0 <= ends[1] for ends in drops):
        app.ui.line(no_drop_shown(tuned.samples, tuned.smallest_drop))
    app.ui.line()
    app.ui.line(f"{tuned.path}, {tuned.recipe_path}: {_kept(tuned)}")
    app.ui.next(
        *("convert", tuned.path, "-o", "MODEL.tflite", "--recipe", tuned.recipe_path),
        *("--calibration", "CALIBRATION.npz"),
    )


def _agreement(tuned: Tuned) -> str:
    of = "" if tuned.agreement_of in (None, "classes") else f" of {tuned.agreement_of}"
    return f"agreement{of} with float"


def _kept(tuned: Tuned) -> str:
    if tuned.kept == "ptq":
        return "unchanged: tuning did not help"
    return f"{tuned.tensors} learned ranges, epoch {tuned.best_epoch} of {tuned.epochs}, start: {tuned.began}"


def _figures(tuned: Tuned, name: str) -> list[str]:
    """Return accuracy, agreement and accuracy drop of one file, with their 95 % intervals, and its SQNR."""
    shown = [
        _share(shares.get(name), ends.get(name))
        for shares, ends in (
            (tuned.accuracy, tuned.accuracy_ci95),
            (tuned.agreement, tuned.agreement_ci95),
            (tuned.accuracy_drop, tuned.accuracy_drop_ci95),
        )
    ]
    decibels = tuned.sqnr_db.get(name)
    return [*shown, "-" if decibels is None else f"{decibels:.1f} dB"]


def _share(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    between = "" if ends is None else f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
    return format_percent(value) + between
