"""`edgeq evaluate`: what a model is worth on data, and how far it is from its float reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.convert import followed
from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.values import Metrics


@command(
    "evaluate",
    help="Evaluate MODEL (.tflite) on data, and against a float reference.",
    examples=[
        "edgeq evaluate int8.tflite --data evaluation.npz",
        "edgeq evaluate int8.tflite --data evaluation.npz --reference float.tflite --json",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Samples and labels: .npz (x, y), .npy (no labels) or a folder of images a class.",
)
@click.option("--reference", type=click.Path(path_type=Path), help="The float .tflite to compare with.")
def evaluate_command(app: App, model: Path, data: Path, reference: Path | None) -> None:
    """Evaluate a model."""
    from edgeq.evaluation import evaluate
    from edgeq.files import sha256_of
    from edgeq.store import Store

    notes: list[str] = []
    with followed(app.ui) as on_progress:
        metrics = evaluate(model, data, reference=reference, on_progress=on_progress, on_note=notes.append)
    for note in notes:
        app.ui.warn(note)
    body = {
        "model": {"path": str(model), "sha256": sha256_of(model), "size_bytes": model.stat().st_size},
        "reference": None
        if reference is None
        else {"path": str(reference), "sha256": sha256_of(reference), "size_bytes": reference.stat().st_size},
        "data": str(data),
        "metrics": asdict(metrics),
        "notes": notes,
    }
    with Store.open(app.workspace) as store:
        store.record_run("evaluate", model.stem, body)
    app.ui.emit("edgeq.evaluate/1", body)
    app.ui.table(["metric", "value"], _rows(metrics))
    if reference is None:
        app.ui.next(f"edgeq evaluate {model} --data {data} --reference FLOAT.tflite")
    else:
        app.ui.next(f"edgeq select blueprint.toml --reference {reference} {model}")


def _rows(metrics: Metrics) -> list[list[str]]:
    from edgeq.units import format_percent

    rows = [["samples", str(metrics.samples)]]
    if metrics.accuracy is not None:
        rows.append(["accuracy", format_percent(metrics.accuracy)])
    if metrics.agreement is not None:
        rows.append(["agreement", format_percent(metrics.agreement)])
    if metrics.output_sqnr_db is not None:
        rows.append(["output SQNR", f"{metrics.output_sqnr_db:.2f} dB"])
    return rows
