"""Options of pruning and tuning, checked before the worker starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeq.errors import UsageError
from edgeq_converters.errors import ConverterError
from edgeq_converters.recipe import Recipe
from edgeq_converters.training.common.keras_graph import require_keras3
from edgeq_converters.training.settings import PruningRequest


def with_pruning(recipe: Recipe, *, prune: str | None, epochs: int | None, distill: bool) -> Recipe:
    """Return the recipe with the given options; None and False keep the recipe's own values.

    Raises:
        UsageError: an unknown kind of pruning, a ratio out of range, or fewer than one epoch.
    """
    pruning = recipe.prune if prune is None else prune
    if pruning is not None:
        try:
            pruning = str(PruningRequest.parse(pruning))
        except ValueError as error:
            raise UsageError("--prune", str(error), got=repr(pruning), hint="--prune channels:0.5") from error
    epochs = recipe.epochs if epochs is None else epochs
    check_epochs(epochs)
    return replace(recipe, prune=pruning, epochs=epochs, distill=recipe.distill or distill)


def check_epochs(epochs: int | None) -> None:
    """Check a number of epochs.

    Raises:
        UsageError: it is below one.
    """
    if epochs is not None and epochs < 1:
        raise UsageError("--epochs", expected="at least 1", got=str(epochs), hint="leave --epochs out")


def check_trainable(source: Path, training: Path | None, *, option: str) -> None:
    """Check that the source is a Keras 3 model and that there is training data, without loading TensorFlow.

    Args:
        option: the option or command that trains, for the message.

    Raises:
        ConverterError: EQ220 no training data; EQ301, EQ302, EQ305, EQ314 another kind of model.
    """
    require_keras3(source)
    if training is None:
        raise ConverterError(
            "EQ220",
            str(source),
            f"{option} trains the model and needs training data",
            expected="--training with samples `x` and labels `y`",
            got="none",
            hint="add --training T.npz",
        )
