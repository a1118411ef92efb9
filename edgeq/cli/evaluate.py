"""`edgeq evaluate`: measure a model on data, and against its float reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.evaluate_details import parse_names, parse_slice, show_details
from edgeq.cli.options import STATE_OPTION
from edgeq.cli.progress import worker_progress
from edgeq.cli.ui import App, command
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.blueprint import Slice
    from edgeq.evaluation import Evaluation
    from edgeq.values import Metrics
    from edgeq_converters.values import OutputSqnr


# The blueprint's tasks; importing them takes longer than `edgeq --help` may. A test compares.
TASKS = ("classification", "multi-label", "regression", "anomaly", "detection", "segmentation")


@command(
    "evaluate",
    help="Measure MODEL (.tflite) on data: accuracy, and agreement and SQNR against a float reference.",
    examples=[
        "edgeq evaluate int8.tflite --data evaluation.npz",
        "edgeq evaluate int8.tflite --data evaluation.npz --reference float.tflite --json",
        "edgeq evaluate int8.tflite --data evaluation.npz --reference float.tflite --details --robustness",
        "edgeq evaluate int8.tflite --data evaluation.npz --reference float.tflite --details "
        "--slice 'noisy=snr_db < 5'",
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
@click.option(
    "--details",
    is_flag=True,
    help="Show where it is worse than --reference: classes, probabilities, slices, edge inputs.",
)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="With --details: what the first output means.  [default: what shapes and labels say]",
)
@click.option(
    "--labels",
    callback=parse_names,
    metavar="A,B,...",
    help="With --details: names of the classes, in the order of the output.",
)
@click.option(
    "--slice",
    "slices",
    multiple=True,
    callback=parse_slice,
    metavar="NAME=CONDITION",
    help="With --details: a part of the data, as in night=night or noisy='snr_db < 5'. Repeatable.",
)
@click.option(
    "--robustness",
    is_flag=True,
    help="With --details: compare on corrupted inputs, too: noise, blur, contrast, brightness, and others.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="With --details: of the bootstrap and the corruptions.",
)
def evaluate_command(
    app: App,
    model: Path,
    data: Path,
    reference: Path | None,
    sequence: bool,
    states: tuple[tuple[str, str], ...],
    strict: bool,
    details: bool,
    task: str | None,
    labels: tuple[str, ...],
    slices: tuple[Slice, ...],
    robustness: bool,
    seed: int,
) -> None:
    """Evaluate a model."""
    from edgeq.blueprint import Task
    from edgeq.evaluation import evaluate_model, examine
    from edgeq.store import Store

    _require_details(details, reference, task=task, labels=labels, slices=slices, robustness=robustness)
    stated = None if task is None else Task(task)
    with Store.open(app.workspace) as store, worker_progress(app.ui) as on_progress:
        examined = None
        if details and reference is not None:
            examined = examine(
                model,
                reference,
                data,
                task=stated,
                labels=labels,
                slices=slices,
                robustness=robustness,
                seed=seed,
                sequence=sequence,
                states=states,
                on_progress=on_progress,
            )
        evaluation = evaluate_model(
            model,
            data,
            reference=reference,
            sequence=sequence,
            states=states,
            task=stated if examined is None else examined.task,
            columns=tuple(part.where.column for part in slices),
            strict=strict,
            on_progress=on_progress,
            store=store,
        )
    if sequence and evaluation.sequences is None:
        app.ui.note(f"{model} keeps no state: --sequence changes nothing")
    app.ui.remarks(
        notes=_once(evaluation.notes, () if examined is None else examined.notes),
        warnings=_once(evaluation.warnings, () if examined is None else examined.warnings),
    )
    document = evaluation.to_json()
    app.ui.emit(
        "edgeq.evaluate/1", document if examined is None else {**document, "details": examined.to_json()}
    )
    app.ui.table(["metric", "value"], _rows(evaluation))
    if examined is not None:
        show_details(app.ui, examined)
    metrics = evaluation.metrics
    if metrics.smallest_drop is not None and not metrics.drop_is_shown:
        app.ui.line(no_drop_shown(metrics.samples, metrics.smallest_drop))
    if reference is None:
        app.ui.next("evaluate", model, "--data", data, "--reference", "FLOAT.tflite")
    else:
        app.ui.next("select", "BLUEPRINT.toml", "--reference", reference, model)


def _require_details(details: bool, reference: Path | None, **given: object) -> None:
    """Refuse options that have no effect, and details without a model to compare with.

    Raises:
        UsageError: EQ101.
    """
    if details and reference is None:
        raise UsageError(
            "--details",
            "compares with a float model",
            expected="--reference FLOAT.tflite",
            got="none",
            hint="name the float .tflite from which MODEL was converted",
        )
    used = [name for name, value in given.items() if value]
    if used and not details:
        option = {"slices": "--slice"}.get(used[0], f"--{used[0]}")
        raise UsageError(option, "has no effect without --details", hint="add --details, or leave it out")


def _once(texts: Sequence[str], more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys((*texts, *more)))


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
