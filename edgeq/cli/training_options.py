"""The options of commands that train, and how what pruning bought is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeq.cli.ui import Ui

Decorated = Callable[..., Any]
_TRAINING = (
    click.option(
        "--training",
        type=click.Path(path_type=Path),
        help="Training data: a .npz with samples x and labels y.",
    ),
    click.option(
        "--validation",
        type=click.Path(path_type=Path),
        help="Data to measure accuracy on.  [default: a fifth of the training data, held out]",
    ),
    click.option("--epochs", type=int, help="Epochs of training.  [default: by the size of the data]"),
    click.option(
        "--distill", is_flag=True, help="Train towards the float model's own outputs; needs no labels."
    ),
)
_PRUNE = click.option(
    "--prune",
    metavar="KIND:RATIO",
    help="magnitude:0.8 sets weights to zero (smaller on the wire); channels:0.5 removes channels (faster, "
    "smaller). Keras 3 models; re-tunes with --training.",
)


def training_options(function: Decorated) -> Decorated:
    """Add --training, --validation, --epochs and --distill."""
    for option in reversed(_TRAINING):
        function = option(function)
    return function


def pruning_options(function: Decorated) -> Decorated:
    """Add --prune and the options of its re-tuning."""
    return _PRUNE(training_options(function))


def show_pruning(ui: Ui, pruning: Mapping[str, Any]) -> None:
    """Write what was pruned, what it cost and what it bought."""
    from edgeq.units import format_duration, format_size

    def two(what: str, form: Callable[[Any], str]) -> list[str]:
        return [form(pruning[what]["before"]), form(pruning[what]["after"])]

    accuracy = pruning["accuracy"]
    ui.line()
    ui.table(
        [f"pruned {pruning['kind']}:{pruning['ratio']:g}", "before", "after"],
        [
            ["parameters", *two("parameters", str)],
            ["of them not zero", "", str(pruning["parameters"]["nonzero"])],
            ["file", *two("size_bytes", format_size)],
            ["file, compressed", *two("compressed_bytes", format_size)],
            ["latency here, p50", *two("latency_ns", lambda item: format_duration(item["p50"]))],
            ["accuracy, float", _share(accuracy["before"]), _share(accuracy["tuned"])],
            ["  not re-tuned yet", "", _share(accuracy["pruned"])],
            ["accuracy, file", _share(accuracy["file_before"]), _share(accuracy["file_after"])],
        ],
    )
    ui.line(f"bought: {pruning['bought']}")
    for item in pruning["left"]:
        ui.say(f"left as it is: {item['layer']} ({item['reason']})")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
