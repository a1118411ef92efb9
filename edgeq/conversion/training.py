"""Options of pruning and tuning, checked before the worker starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeq.errors import UsageError
from edgeq_converters.errors import ConverterError
from edgeq_converters.recipe import Recipe
from edgeq_converters.sources.detect import SourceKind, detect
from edgeq_converters.training.common.keras_graph import require_keras3
from edgeq_converters.training.loss_source import LossSource
from edgeq_converters.training.settings import PruningRequest


def with_pruning(
    recipe: Recipe, *, prune: str | None, epochs: int | None, distill: bool, loss: LossSource | None
) -> Recipe:
    """Return the recipe with the given options; None and False keep the recipe's own values.

    Raises:
        UsageError: an unknown kind of pruning, a ratio out of range, fewer than one epoch, or a loss that is
            not used.
    """
    pruning = recipe.prune if prune is None else prune
    if pruning is not None:
        try:
            pruning = str(PruningRequest.parse(pruning))
        except ValueError as error:
            raise UsageError("--prune", str(error), got=repr(pruning), hint="--prune channels:0.5") from error
    epochs = recipe.epochs if epochs is None else epochs
    check_epochs(epochs)
    least = 1 if pruning is None else PruningRequest.parse(pruning).trainings
    if epochs is not None and epochs < least:
        raise UsageError(
            "--epochs",
            expected=f"at least {least}, one for each training of {pruning}",
            got=str(epochs),
            hint="leave --epochs out, or give fewer rounds",
        )
    distill = recipe.distill or distill
    check_one_loss(loss, distill=distill)
    if loss is not None and pruning is None:
        raise UsageError("--loss", "nothing is trained without --prune", hint="add --prune channels:0.5")
    named = "" if loss is None else str(loss)
    return replace(recipe, prune=pruning, epochs=epochs, distill=distill, loss=named)


def check_one_loss(loss: LossSource | None, *, distill: bool) -> None:
    """Check that a training has one loss.

    Raises:
        UsageError: both a loss and a distillation.
    """
    if loss is not None and distill:
        raise UsageError("--loss", "--distill is a loss of its own", hint="give one of --loss and --distill")


def check_epochs(epochs: int | None) -> None:
    """Check a number of epochs.

    Raises:
        UsageError: it is below one.
    """
    if epochs is not None and epochs < 1:
        raise UsageError("--epochs", expected="at least 1", got=str(epochs), hint="leave --epochs out")


def check_tunable(source: Path, training: Path | None, *, distill: bool) -> None:
    """Check that `edgeq tune` can train the source, without loading TensorFlow.

    A .tflite is trained towards its own outputs only: its graph keeps no trace of how it was trained.

    Raises:
        ConverterError: EQ220 no training data; EQ301, EQ302, EQ305, EQ314 another kind of model, or a .tflite
            without a distillation.
    """
    if detect(source) is not SourceKind.TFLITE:
        check_trainable(source, training, option="edgeq tune")
        return
    if not distill:
        raise ConverterError(
            "EQ314",
            str(source),
            "a .tflite is tuned towards its own outputs, without labels or another loss",
            expected="--distill, or the Keras model",
            got="a .tflite without --distill",
            hint="add --distill: `edgeq tune MODEL.tflite --qat --distill --training UNLABELLED.npz"
            " -o TUNED.tflite`",
        )
    if training is None:
        raise ConverterError(
            "EQ220",
            str(source),
            "edgeq tune trains the model and needs training data",
            expected="--training with samples; labels are not needed",
            got="none",
            hint="add --training UNLABELLED.npz",
        )


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
