"""The options by which commands take, change and keep a recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgeq.conversion import Recipe

F = TypeVar("F", bound=Callable[..., Any])
CALIBRATORS = "minmax, ema, percentile[:P], clip[:SHARE], entropy, mse or auto"


def recipe_options(function: F) -> F:
    """Add the options by which a recipe is given, changed and kept."""
    options = (
        click.option(
            "--calibrator",
            help=f"How ranges follow from the samples: {CALIBRATORS}; ema is the mean of the samples' "
            "extremes, which unlike a moving average does not depend on their order.",
        ),
        click.option(
            "--bias-correction",
            type=click.Choice(["auto", "on", "off"]),
            help="Fit biases and weights layer by layer to the float model; auto: where held-out samples "
            "gain.",
        ),
        click.option(
            "--equalization",
            type=click.Choice(["auto", "on", "off"]),
            help="Scale channels to equal ranges first; auto: where held-out samples gain.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["auto", "litert", "tensorflow"]),
            help="Which quantizer; auto takes TensorFlow's where litert-quantizer leaves something float.",
        ),
        click.option(
            "--keep-float",
            "float_ops",
            multiple=True,
            help="Under int8-mixed: an operation that stays float, by the name of its output tensor.",
        ),
        click.option(
            "--int4-sqnr-db",
            type=float,
            help="Under int4: give as many operations weights of 4 bits as leave this SQNR at the logits on "
            "held-out samples; 0 gives them to all.  [default: 20]",
        ),
        click.option(
            "--histograms",
            type=click.Path(path_type=Path),
            help="What `edgeq calibrate` kept of this model, instead of running it on samples again.",
        ),
        click.option(
            "--recipe",
            "recipe_file",
            type=click.Path(path_type=Path),
            help="A recipe as JSON; other options override its keys.",
        ),
        click.option(
            "--save-recipe", type=click.Path(path_type=Path), help="Write the recipe that was used."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def given_recipe(scheme: str | None, recipe_file: Path | None, **options: Any) -> Recipe:
    """Return the recipe of the options, on top of a file's where one was given.

    Raises:
        UsageError: the key that is wrong.
    """
    from edgeq.conversion import load_recipe, recipe_of

    base = load_recipe(recipe_file) if recipe_file else None
    # Without --keep-float the recipe's own operations stay.
    options["float_ops"] = options.get("float_ops") or None
    return recipe_of(scheme, base=base, **options)


def keep_recipe(recipe: Recipe, path: Path | None) -> None:
    """Write the recipe where that was asked for."""
    if path is not None:
        from edgeq.conversion import save_recipe

        save_recipe(recipe, path)
