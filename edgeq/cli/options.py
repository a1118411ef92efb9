"""Options that several commands share: bounded numbers, recipes and training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeq.errors import UsageError
from edgeq.values import DeviceKind

if TYPE_CHECKING:
    from edgeq.conversion import Recipe
    from edgeq.values import Device

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A number within bounds. Click's own type accepts `nan`, which is within no bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail as click does."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class CalibratorOption(click.Option):
    """The option --calibrator, whose help lists the table of calibrators; loading that needs numpy."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option's line of the help."""
        from edgeq_converters.calibration.calibrators import usage

        self.help = (
            f"How ranges are derived from the samples: {usage()}. ema averages the extremes of the samples; "
            "unlike a moving average it does not depend on their order."
        )
        return super().get_help_record(ctx)


_RECIPE = (
    click.option("--calibrator", cls=CalibratorOption, metavar="NAME[:VALUE]"),
    click.option(
        "--bias-correction",
        type=click.Choice(["auto", "on", "off"]),
        help="Correct biases and weights layer by layer against the float model. auto: if it improves "
        "held-out samples.",
    ),
    click.option(
        "--equalization",
        type=click.Choice(["auto", "on", "off"]),
        help="Equalize the ranges of channels across layers first. auto: if it improves held-out samples.",
    ),
    click.option(
        "--effort",
        type=click.Choice(["quick", "standard", "best"]),
        help="How much to try where the recipe leaves a choice. quick tries two calibrators and corrects on "
        "few samples; best tries more and takes several times as long.  [default: standard]",
    ),
    click.option(
        "--backend",
        type=click.Choice(["auto", "litert", "tensorflow"]),
        help="Quantizer. auto uses TensorFlow's if litert-quantizer leaves an operation float.",
    ),
    click.option(
        "--keep-float",
        "float_ops",
        multiple=True,
        metavar="NAME",
        help="int8-mixed or --allow-float: keep operations in float: the name of an output tensor, a pattern "
        "such as 'head/*', or `head`, the operations from the last layers with weights to the outputs "
        "(repeatable).",
    ),
    click.option(
        "--allow-float",
        is_flag=True,
        help="int8, int16x8, int4: leave operations without an integer kernel in float (else EQ307), and "
        "measure what that costs.",
    ),
    click.option(
        "--int16",
        "int16_ops",
        multiple=True,
        metavar="NAME",
        help="int8, int8-mixed, int4: compute operations in int16, named as for --keep-float (repeatable). "
        "`none` for none.  [default: the statistics of normalizations]",
    ),
    click.option(
        "--int4-sqnr-db",
        type=Number(0, 1000),
        help="int4: minimum SQNR at the logits on held-out samples. As many operations as possible get 4-bit "
        "weights; 0 means all.  [default: 20]",
        metavar="DB",
    ),
    click.option(
        "--histograms",
        type=click.Path(path_type=Path),
        help="Histograms from `edgeq calibrate` for this model, in place of --calibration.",
    ),
    click.option(
        "--recipe",
        "recipe_file",
        type=click.Path(path_type=Path),
        help="Read the recipe from this JSON file; other options override its keys.",
    ),
    click.option("--save-recipe", type=click.Path(path_type=Path), help="Write the recipe to this file."),
)
_TRAINING = (
    click.option(
        "--training",
        type=click.Path(path_type=Path),
        help="Training data: a .npz with samples x and labels y.",
    ),
    click.option(
        "--validation",
        type=click.Path(path_type=Path),
        help="Data for measuring accuracy.  [default: a fifth of the training data, held out]",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(1, 1_000_000),
        help="Number of epochs.  [default: derived from the size of the data]",
        metavar="N",
    ),
    click.option(
        "--loss",
        metavar="LOSS",
        help="Loss to train: mse, mae, huber, binary_crossentropy, categorical_crossentropy or "
        "sparse_categorical_crossentropy, or FILE.py:FUNCTION or MODULE:FUNCTION, a function "
        "(targets, outputs) whose code is run.  [default: the cross-entropy of a classifier]",
    ),
    click.option("--distill", is_flag=True, help="Train on the float model's outputs; needs no labels."),
)
_PRUNE = click.option(
    "--prune",
    metavar="KIND:RATIO[,OPTION=VALUE]",
    help="magnitude:0.8 sets 80 % of the weights to zero (compresses better); channels:0.5 removes half of "
    "the channels, neurons and attention heads (smaller and faster). Options: heads=0.25, by=l1|l2|group, "
    "rounds=3, lasso=0.1, as in channels:0.5,rounds=3. Keras 3 models; needs --training to re-tune.",
)


class InputShape(click.ParamType[Any]):
    """The shape of an input: `NAME=SIZE,SIZE,...`; the value is (name, sizes)."""

    name = "INPUT=SIZES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Return the name and the sizes, or fail as click does."""
        if isinstance(value, tuple):
            return value
        name, equals, sizes = str(value).rpartition("=")
        parts = [part.strip() for part in sizes.lower().replace("x", ",").split(",")]
        if not (name and equals and all(part.isdecimal() and int(part) > 0 for part in parts)):
            self.fail(f"{value!r} is not an input and its sizes, as in audio=1,16000.", param, ctx)
        return name, tuple(int(part) for part in parts)


class InputConstant(click.ParamType[Any]):
    """The value that an input always has: `NAME=NUMBER`; the value is (name, number)."""

    name = "INPUT=NUMBER"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """Return the name and the number, or fail as click does."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).rpartition("=")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (name and equals and math.isfinite(number)):
            self.fail(f"{value!r} is not an input and its value, as in sr=16000.", param, ctx)
        return name, number


class CarriedStateOption(click.ParamType[Any]):
    """A state: `INPUT=OUTPUT`; the value is (input, output)."""

    name = "INPUT=OUTPUT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return both names, or fail as click does."""
        if isinstance(value, tuple):
            return value
        given, equals, taken = str(value).partition("=")
        if not (given and equals and taken):
            self.fail(f"{value!r} is not an input and an output, as in state=stateN.", param, ctx)
        return given, taken


STATE_OPTION = click.option(
    "--state",
    "states",
    type=CarriedStateOption(),
    multiple=True,
    metavar="INPUT=OUTPUT",
    help="A state: the output is the input's value at the next step of a sequence, as in state=stateN "
    "(repeatable).  [default: what the file says, else certain names]",
)
_SOURCE = (
    click.option(
        "--signature",
        metavar="NAME",
        help="Convert this one of several signatures of a SavedModel or .tflite.  [default: serving_default]",
    ),
    click.option(
        "--shape",
        "shapes",
        type=InputShape(),
        multiple=True,
        metavar="INPUT=SIZES",
        help="Shape of an input with open dimensions, the batch included: audio=1,16000 (repeatable).",
    ),
    click.option(
        "--constant",
        "constants",
        type=InputConstant(),
        multiple=True,
        metavar="INPUT=NUMBER",
        help="Make an input of an ONNX source a constant, as a sample rate: sr=16000 (repeatable).",
    ),
    STATE_OPTION,
)


def source_options(function: F) -> F:
    """Add the options that choose what of a source is converted."""
    for option in reversed(_SOURCE):
        function = option(function)
    return function


def recipe_options(function: F) -> F:
    """Add the options that build, read and write a recipe."""
    for option in reversed(_RECIPE):
        function = option(function)
    return function


def training_options(function: F) -> F:
    """Add --training, --validation, --epochs, --loss and --distill."""
    for option in reversed(_TRAINING):
        function = option(function)
    return function


def pruning_options(function: F) -> F:
    """Add --prune and the options of its re-tuning."""
    return _PRUNE(training_options(function))


def recipe_from_options(scheme: str | None, recipe_file: Path | None, **options: Any) -> Recipe:
    """Return the recipe of a file, if one is given, with the options on top.

    Raises:
        UsageError: names the invalid option or key.
    """
    from edgeq.conversion import load_recipe, recipe_of

    base = load_recipe(recipe_file) if recipe_file else None
    # Without --keep-float the recipe's own operations stay.
    options["float_ops"] = options.get("float_ops") or None
    options["allow_float"] = options.get("allow_float") or None
    given = options.get("int16_ops") or None
    options["int16_ops"] = () if given == ("none",) else given
    options["shapes"] = options.get("shapes") or None
    options["constants"] = options.get("constants") or None
    options["states"] = options.get("states") or None
    return recipe_of(scheme, base=base, **options)


def write_recipe(recipe: Recipe, path: Path | None) -> None:
    """Write the recipe if a path is given."""
    if path is not None:
        from edgeq.conversion import save_recipe

        save_recipe(recipe, path)


LIMITS_KIND_OPTION = click.option(
    "--kind",
    type=click.Choice([kind.value for kind in DeviceKind]),
    help="Apply the limits of this kind of device.  [default: the kind of --device]",
)


def require_kind(kind: str | None, device: Device) -> None:
    """Check that --kind, where it is given, is the kind of a device.

    Raises:
        UsageError: it is another one.
    """
    if kind not in (None, device.kind.value):
        raise UsageError(
            "--kind",
            expected=f"{device.kind.value}, the kind of {device.name}",
            got=str(kind),
            hint="omit --kind: the limits are those of the device",
        )
