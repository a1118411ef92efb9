"""`edgeq evaluate`: measure a model on data, and against its float reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.options import STATE_OPTION
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, command

if TYPE_CHECKING:
    from edgeq.evaluation import Evaluation
    from edgeq.values import Metrics
    from edgeq_converters.values import OutputSqnr


@command(
    "evaluate",
    help="Measure MODEL (.tflite) on data: accuracy, and agreement and SQNR against a float reference.",
    examples=[
        "edgeq evaluate int8.tflite --data evaluation.npz",
        "edgeq evaluate int8.tflite --data evaluation.npz --reference float.tflite --json",
        "edgeq evaluate lstm.tflite --data stream.npz --sequence",
        "edgeq evaluate gru.tflite --data stream.npz --sequence --state h=hn",
    ],
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Samples and labels: .npz (x, y), .npy (no labels), or a folder of images per class.",
)
@click.option("--reference", type=click.Path(path_type=Path), help="Float .tflite to compare with.")
@click.option(
    "--sequence",
    is_flag=True,
    help="The samples follow each other: do not reset the state of a model that keeps one. An array "
    "sequence_id in the data separates several sequences.",
)
@STATE_OPTION
@click.option("--strict", is_flag=True, help="Fail if the result is useless (EQ334).")
def evaluate_command(
    app: App,
    model: Path,
    data: Path,
    reference: Path | None,
    sequence: bool,
    states: tuple[tuple[str, str], ...],
    strict: bool,
) -> None:
    """Evaluate a model."""
    from edgeq.evaluation import evaluate_model
    from edgeq.store import Store

    with Store.open(app.workspace) as store, worker_progress(app.ui) as on_progress:
        evaluation = evaluate_model(
            model,
            data,
            reference=reference,
            sequence=sequence,
            states=states,
            strict=strict,
            on_progress=on_progress,
            store=store,
        )
    if sequence and evaluation.sequences is None:
        app.ui.note(f"{model} keeps no state: --sequence changes nothing")
    app.ui.remarks(notes=evaluation.notes, warnings=evaluation.warnings)
    app.ui.emit("edgeq.evaluate/1", evaluation.to_json())
    app.ui.table(["metric", "value"], _rows(evaluation))
    metrics = evaluation.metrics
    if metrics.smallest_drop is not None and not metrics.drop_is_shown:
        app.ui.line(no_drop_shown(metrics.samples, metrics.smallest_drop))
    if reference is None:
        app.ui.next("evaluate", model, "--data", data, "--reference", "FLOAT.tflite")
    else:
        app.ui.next("select", "BLUEPRINT.toml", "--reference", reference, model)


def no_drop_shown(samples: int, smallest: float) -> str:
    """Return the sentence on what a number of samples can show."""
    from edgeq.units import format_percent

    return f"{samples} samples cannot show a drop below {format_percent(smallest)}"


def _rows(evaluation: Evaluation) -> list[list[str]]:
    from edgeq.units import format_percent, format_percent_ci95

    metrics = evaluation.metrics
    rows = [["samples", str(metrics.samples) + _independence(evaluation)]]
    for name, share, ends in (
        ("accuracy", metrics.accuracy, metrics.accuracy_ci95),
        (_agreement(metrics), metrics.agreement, metrics.agreement_ci95),
        ("accuracy drop", metrics.accuracy_drop, metrics.accuracy_drop_ci95),
    ):
        if share is not None:
            rows.append([name, format_percent(share) + format_percent_ci95(ends)])
    if metrics.output_sqnr_db is not None:
        rows.append(["output SQNR", f"{metrics.output_sqnr_db:.2f} dB"])
        rows += _worst(metrics.outputs)
    return rows


def _agreement(metrics: Metrics) -> str:
    return (
        "agreement" if metrics.agreement_of in (None, "classes") else f"agreement of {metrics.agreement_of}"
    )


def _worst(outputs: Sequence[OutputSqnr]) -> list[list[str]]:
    """Return the rows of single outputs and of their worst slices; none for one output without slices."""
    rows = []
    for each in outputs:
        if len(outputs) > 1:
            rows.append([f"SQNR of `{each.name}`", _db(each.sqnr_db)])
        if each.worst_slice is not None:
            where = f"slice {each.worst_slice} of 0 to {each.slices - 1} along axis {each.axis}"
            rows.append([f"worst slice of `{each.name}`", f"{_db(each.worst_slice_db)} ({where})"])
    return rows


def _db(ratio: float | None) -> str:
    return "equal" if ratio is None else f"{ratio:.2f} dB"


def _independence(evaluation: Evaluation) -> str:
    """Say what the state of a model saw; nothing for a model that keeps none."""
    count = evaluation.sequences
    if count is None:
        return ""
    if count == evaluation.metrics.samples:
        return ", independent (the state is reset before each)"
    return f" in {count} sequence{'s' if count > 1 else ''} (the state is reset before each sequence)"
