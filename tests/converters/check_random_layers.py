"""Convert models with each random layer of Keras at each position; run as a program: it prints JSON."""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import state
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.sources.load import load_source
from edgeq_converters.sources.parity import check_parity

layers = keras.layers
BASE = next(each for each in layers.RandomFlip.__mro__ if each.__name__ == "BaseImagePreprocessingLayer")
# Values of arguments without a default.
ARGUMENTS = {"height": 8, "width": 8, "max_number": 3}
SIZE = (16, 16, 3)
# One that moves pixels, one that changes values, one of noise, and one that Keras does not load everywhere.
EVERYWHERE = (layers.RandomFlip, layers.RandomBrightness, layers.Dropout, layers.Equalization)


def random_layers() -> list[type[Any]]:
    """Return the layers for images that Keras exports, and those that drop values or add noise."""
    classes = [each for _, each in inspect.getmembers(layers, inspect.isclass)]
    images = [each for each in classes if issubclass(each, BASE) and each is not BASE]
    noise = [layers.Dropout, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise]
    return [*images, *noise, layers.SpatialDropout2D]


def made(kind: type[Any]) -> Any:
    """Return a layer with its usual arguments, and factors that have an effect."""
    if kind is layers.RandomPosterization:
        return kind(4)
    if kind is layers.RandomShear:
        return kind(0.1, 0.1)
    if kind is layers.RandomColorJitter:
        return kind(brightness_factor=0.1, contrast_factor=0.1, saturation_factor=0.1, hue_factor=0.1)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    required = [
        each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    ]
    return kind(**{name: ARGUMENTS.get(name, 0.1) for name in required})


def end(x: Any) -> Any:
    """Return the class scores of an image; swish has a gradient of its own."""
    return layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="swish")(x))


def first(kind: type[Any]) -> Any:
    image = keras.Input(SIZE)
    return keras.Model(image, end(made(kind)(image)))


def between(kind: type[Any]) -> Any:
    image = keras.Input(SIZE)
    x = layers.Conv2D(3, 3, padding="same", activation="relu")(image)
    return keras.Model(image, end(made(kind)(x)))


def nested(kind: type[Any]) -> Any:
    image = keras.Input(SIZE)
    return keras.Model(image, end(keras.Sequential([made(kind), layers.RandomFlip()])(image)))


def twice(kind: type[Any]) -> Any:
    image = keras.Input(SIZE)
    return keras.Model(image, end(made(kind)(made(kind)(image))))


def beside_another_input(kind: type[Any]) -> Any:
    image, vector = keras.Input(SIZE, name="zeta"), keras.Input((3,), name="alpha")
    both = layers.Concatenate()([end(made(kind)(image)), layers.Dense(2)(vector)])
    return keras.Model({"zeta": image, "alpha": vector}, both)


def activations(kind: type[Any]) -> Any:
    """Return a model with every activation of Keras that needs no arguments behind the layer."""
    image = keras.Input(SIZE)
    x, parts = made(kind)(image), []
    for name, function in inspect.getmembers(keras.activations, inspect.isfunction):
        if name not in {"get", "serialize", "deserialize"}:
            needed = [
                each for each in inspect.signature(function).parameters.values() if each.default is each.empty
            ]
            if len(needed) == 1:
                parts.append(layers.Conv2D(2, 3, activation=name)(x))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.Concatenate()(parts)))


@keras.saving.register_keras_serializable()
class Sampling(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds noise in inference too."""

    def __init__(self, **given: Any) -> None:
        """Make the layer."""
        super().__init__(**given)
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, x: Any) -> Any:
        """Return the sum of the input and noise."""
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def sampled(kind: type[Any]) -> Any:
    """Return a model whose outputs are random."""
    vector = keras.Input((8,))
    return keras.Model(vector, Sampling()(made(kind)(layers.Dense(4)(vector))))


def outcome(build: Callable[[type[Any]], Any], kind: type[Any]) -> dict[str, Any]:
    """Return what became of a model: {} if Keras itself cannot save and load it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            build(kind).save(folder / "m.keras")
        except (TypeError, ValueError):
            return {}
        try:
            loaded = load_source(folder / "m.keras", folder, announce=lambda _what: None)
        except ConverterError as error:
            try:
                keras.models.load_model(folder / "m.keras", compile=False)
            except (TypeError, ValueError):
                return {}
            return {"problem": str(error)}
        assert loaded.reference is not None
        parity = check_parity(loaded.model, loaded.reference, samples=None, seed=0)
        return {
            "sqnr_db": parity.sqnr_db,
            "keeps_state": state.read(loaded.model).kept,
            "clean": without_dead(loaded.model) is loaded.model,
        }


def main() -> None:
    """Print {case: outcome}; a word on the command line chooses the layers that it begins with."""
    chosen = [kind for kind in random_layers() if kind.__name__.startswith(tuple(sys.argv[1:] or [""]))]
    positions = (first, between, nested, twice, beside_another_input)
    outcomes = {
        f"{kind.__name__} {build.__name__}": outcome(build, kind)
        for number, kind in enumerate(chosen)
        for at, build in enumerate(positions)
        # Every layer at one position, and a few of different kinds at all positions.
        if at == number % len(positions) or kind in EVERYWHERE
    }
    outcomes["a layer that is random in inference"] = outcome(sampled, layers.Dropout)
    for kind in (layers.RandomFlip, layers.RandomHue, layers.Dropout):
        outcomes[f"{kind.__name__} activations"] = outcome(activations, kind)
    print(json.dumps(outcomes))  # noqa: T201 # the result of the program


if __name__ == "__main__":
    main()
