"""Pruning and tuning as edgeq's users ask for them: arguments checked before anything is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeq.errors import UsageError
from edgeq_converters.errors import ConverterError
from edgeq_converters.recipe import Recipe
from edgeq_converters.training.common.keras_graph import require_keras3
from edgeq_converters.training.pruning.request import PruningRequest


def with_pruning(recipe: Recipe, *, prune: str | None, epochs: int | None, distill: bool) -> Recipe:
    """Return the recipe with what was asked for beside it; what is None or False leaves the recipe's own.

    Raises:
        UsageError: an unknown kind of pruning, a ratio out of range, epochs below one.
    """
    asked = recipe.prune if prune is None else prune
    if asked is not None:
        try:
            asked = str(PruningRequest.parse(asked))
        except ValueError as error:
            raise UsageError("--prune", str(error), got=repr(asked), hint="--prune channels:0.5") from error
    epochs = recipe.epochs if epochs is None else epochs
    check_epochs(epochs)
    return replace(recipe, prune=asked, epochs=epochs, distill=recipe.distill or distill)


def check_epochs(epochs: int | None) -> None:
    """Check a number of epochs.

    Raises:
        UsageError: it is below one.
    """
    if epochs is not None and epochs < 1:
        raise UsageError("--epochs", expected="at least 1", got=str(epochs), hint="leave --epochs out")


def check_trainable(source: Path, training: Path | None, *, what: str) -> None:
    """Check that there is a Keras 3 model and training data; both without loading TensorFlow.

    Raises:
        ConverterError: EQ220 no training data, EQ301, EQ302, EQ305, EQ314 another kind of model.
    """
    require_keras3(source)
    if training is None:
        raise ConverterError(
            "EQ220",
            str(source),
            f"{what} trains the model and needs training data",
            expected="--training with samples `x` and labels `y`",
            got="none",
            hint="add --training T.npz",
        )
