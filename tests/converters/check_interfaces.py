"""Loads sources of many forms as a float .tflite in one process, and prints what became of each as JSON.

Run as a program, so that TensorFlow stays out of pytest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers

from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import match
from edgeq_converters.errors import ConverterError
from edgeq_converters.sources.load import load_source
from edgeq_converters.sources.parity import check_parity
from edgeq_converters.sources.types import SourceOptions

Make = Callable[[Path], Path]
WEIGHTS = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)


def main(folder: Path) -> None:
    """Print {case: inputs, outputs, parity, or the error}, one JSON object."""
    keras.utils.set_random_seed(3)
    results = {}
    for name, (make, options) in CASES.items():
        place = folder / name
        place.mkdir()
        results[name] = outcome(make(place), place, options)
    sys.stdout.write(json.dumps(results))


def outcome(source: Path, place: Path, options: SourceOptions) -> dict[str, Any]:
    """Return what became of one source."""
    try:
        loaded = load_source(source, place, announce=lambda _what: None, options=options)
        random = np.random.default_rng(1)
        arrays = {
            tensor.name: random.integers(0, 2, (4, *tensor.shape)).astype(tensor.dtype)
            if np.dtype(tensor.dtype).kind in "iu"
            else random.normal(size=(4, *tensor.shape)).astype(np.float32)
            for tensor in loaded.model.inputs
        }
        # A sample is a row of the batch; it fills an input whose first axis is not a batch.
        arrays = {
            tensor.name: arrays[tensor.name][:, 0]
            if tensor.shape and tensor.shape[0] == 1
            else arrays[tensor.name]
            for tensor in loaded.model.inputs
        }
        samples = match(RawSamples(subject="data", arrays=arrays), loaded.model.inputs)
        assert loaded.reference is not None
        parity = check_parity(loaded.model, loaded.reference, samples=samples, seed=0)
    except ConverterError as error:
        return error.to_dict()
    return {
        "inputs": [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in loaded.model.inputs],
        "outputs": [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in loaded.model.outputs],
        "sqnr_db": min(parity.sqnr_db, 999.0),
        "repeatable": parity.repeatable,
        "notes": list(loaded.notes),
    }


def siamese(place: Path) -> Path:
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    encoder = layers.Dense(4, name="enc")
    return saved(keras.Model([left, right], [encoder(left), encoder(right)]), place)


def tower(place: Path) -> Path:
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    shared = keras.Sequential([keras.Input((6,)), layers.Dense(3)], name="tower")
    return saved(keras.Model([left, right], [shared(left), shared(right)]), place)


def three_states(place: Path) -> Path:
    sequence = keras.Input((5, 3), name="seq")
    outputs = layers.LSTM(4, unroll=True, return_state=True, name="rnn")(sequence)
    return saved(keras.Model(sequence, list(outputs)), place)


def split(place: Path) -> Path:
    x = keras.Input((6,), name="x")
    return saved(keras.Model(x, keras.ops.split(layers.Dense(6)(x), 3, axis=-1)), place)


def one_tensor_twice(place: Path) -> Path:
    x = keras.Input((6,), name="x")
    y = layers.Dense(4, name="h")(x)
    return saved(keras.Model(x, [y, y]), place)


def input_is_output(place: Path) -> Path:
    x = keras.Input((6,), name="x")
    return saved(keras.Model(x, {"same": x, "y": layers.Dense(4)(x)}), place)


def dictionaries(place: Path) -> Path:
    zeta, alpha = keras.Input((6,), name="zeta"), keras.Input((6,), name="alpha")
    outputs = {"scores": layers.Dense(2)(zeta), "boxes": layers.Dense(5)(alpha)}
    return saved(keras.Model({"zeta": zeta, "alpha": alpha}, outputs), place)


def nested(place: Path) -> Path:
    x = keras.Input((6,), name="x")
    outputs = {"b": [layers.Dense(2)(x), layers.Dense(3)(x)], "a": layers.Dense(4)(x)}
    return saved(keras.Model(x, outputs), place)


def numbered_layer_names(place: Path) -> Path:
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    shared, other = layers.Dense(4, name="enc"), layers.Dense(5, name="enc_1")
    return saved(keras.Model([left, right], [shared(left), other(left), shared(right)]), place)


def old_keras_shared(place: Path) -> Path:
    left, right = tf_keras.Input((6,), name="left"), tf_keras.Input((6,), name="right")
    encoder = tf_keras.layers.Dense(4, name="enc")
    model = tf_keras.Model([left, right], [encoder(left), encoder(right)])
    model.save(place / "model.h5")
    return place / "model.h5"


def reversed_names(place: Path) -> Path:
    first, second = keras.Input((6,), name="input_2"), keras.Input((4,), name="input_1")
    return saved(keras.Model([first, second], [layers.Dense(2)(first), layers.Dense(2)(second)]), place)


def random_layers(place: Path) -> Path:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.RandomShear(0.2, 0.2)(layers.RandomErasing()(layers.CutMix()(image)))
    x = layers.RandomCrop(12, 12)(layers.RandomRotation(0.1)(layers.RandomFlip()(x)))
    return saved(keras.Model(image, layers.GlobalAveragePooling2D()(x)), place)


def random_layer_and_custom_gradients(place: Path) -> Path:
    """Return a model whose activations have gradients of their own, behind a layer with a seed."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3)(layers.RandomFlip()(image))
    sums = layers.Add()(
        [layers.Activation(name)(x) for name in ("swish", "gelu", "mish", "relu6", "softplus")]
    )
    return saved(keras.Model(image, layers.GlobalAveragePooling2D()(sums)), place)


def half(place: Path) -> Path:
    keras.config.set_dtype_policy("mixed_float16")
    x = keras.Input((5, 3), name="x")
    source = saved(keras.Model(x, layers.Dense(3)(layers.LSTM(4)(x))), place)
    keras.config.set_dtype_policy("float32")
    return source


def saved(model: Any, place: Path) -> Path:
    """Save a Keras model and return its path."""
    model.save(place / "model.keras")
    return place / "model.keras"


def function(body: Callable[..., Any], *specs: tf.TensorSpec) -> Make:
    """Return what writes a SavedModel of one signature."""
    return functions({"serving_default": (body, specs)})


def functions(bodies: dict[str, tuple[Callable[..., Any], tuple[tf.TensorSpec, ...]]]) -> Make:
    """Return what writes a SavedModel of several signatures."""

    def make(place: Path) -> Path:
        module = tf.Module()
        module.w = tf.Variable(WEIGHTS)
        module.count = tf.Variable(0.0)
        signatures = {
            name: tf.function(lambda *a, b=body: b(module, *a), autograph=False).get_concrete_function(*specs)
            for name, (body, specs) in bodies.items()
        }
        tf.saved_model.save(module, str(place / "saved"), signatures=signatures)
        return place / "saved"

    return make


def spec(*shape: int | None, name: str = "x") -> tf.TensorSpec:
    """Return a float argument."""
    return tf.TensorSpec(shape, tf.float32, name=name)


def counted(module: Any, x: Any) -> dict[str, Any]:
    """Add what it is called with to a variable, which it returns."""
    module.count.assign_add(tf.reduce_sum(x))
    return {"total": tf.reshape(module.count, [1]) + tf.reduce_sum(x @ module.w) * 0}


NONE = SourceOptions()
TWO = functions(
    {
        "embed": (lambda m, x: {"e": x @ m.w}, (spec(None, 6),)),
        "classify": (lambda m, x: {"c": tf.nn.softmax(x @ m.w)}, (spec(None, 6),)),
    }
)
USUAL = functions(
    {
        "embed": (lambda m, x: {"e": x @ m.w}, (spec(None, 6),)),
        "serving_default": (lambda m, x: {"c": tf.nn.softmax(x @ m.w)}, (spec(None, 6),)),
    }
)
WAVE = function(lambda m, wave: {"y": tf.reshape(wave[:6], [1, 6]) @ m.w}, spec(None, name="wave"))
OPEN = function(lambda m, a: {"y": tf.reduce_mean(a, axis=1) @ m.w}, spec(None, None, 6, name="a"))
CASES: dict[str, tuple[Make, SourceOptions]] = {
    "siamese": (siamese, NONE),
    "tower": (tower, NONE),
    "three_states": (three_states, NONE),
    "split": (split, NONE),
    "one_tensor_twice": (one_tensor_twice, NONE),
    "input_is_output": (input_is_output, NONE),
    "dictionaries": (dictionaries, NONE),
    "nested": (nested, NONE),
    "numbered_layer_names": (numbered_layer_names, NONE),
    "old_keras_shared": (old_keras_shared, NONE),
    "reversed_names": (reversed_names, NONE),
    "same_tensor_in_signature": (
        function(lambda m, x: {"b": (y := x @ m.w), "a": y, "c": x}, spec(1, 6)),
        NONE,
    ),
    "constant_output": (
        function(lambda m, x: {"y": x @ m.w, "version": tf.constant([3.0])}, spec(1, 6)),
        NONE,
    ),
    "unused_input": (
        function(lambda m, x, z: {"y": x @ m.w}, spec(1, 6), spec(1, 3, name="z")),
        NONE,
    ),
    "scalar": (function(lambda m, x: {"score": tf.reduce_sum(tf.nn.relu(x @ m.w))}, spec(1, 6)), NONE),
    "rows": (function(lambda m, x: {"boxes": tf.reshape(x @ m.w, [3, 4])}, spec(1, 6)), NONE),
    "squeezed": (function(lambda m, x: {"p": tf.squeeze(x @ m.w, 0)}, spec(1, 6)), NONE),
    "no_batch": (function(lambda m, x: {"y": tf.reshape(x, [1, 6]) @ m.w}, spec(6)), NONE),
    "state": (
        function(
            lambda m, x, h: {"y": x @ m.w + tf.reduce_sum(h), "h": h * 0.5},
            spec(1, 6),
            spec(2, 1, 8, name="h"),
        ),
        NONE,
    ),
    "scalar_input": (function(lambda m, x, t: {"y": x @ m.w * t}, spec(1, 6), spec(name="t")), NONE),
    "two_signatures": (TWO, NONE),
    "two_signatures_one_chosen": (TWO, SourceOptions(signature="embed")),
    "unknown_signature": (TWO, SourceOptions(signature="nothing")),
    "usual_signature": (USUAL, NONE),
    "waveform": (WAVE, NONE),
    "waveform_of_given_length": (WAVE, SourceOptions(shapes=(("wave", (400,)),))),
    "open": (OPEN, NONE),
    "open_with_shape": (OPEN, SourceOptions(shapes=(("a", (1, 9, 6)),))),
    "shape_that_contradicts": (OPEN, SourceOptions(shapes=(("a", (1, 9, 5)),))),
    "shape_of_no_input": (OPEN, SourceOptions(shapes=(("b", (1, 9, 6)),))),
    "random_layers": (random_layers, NONE),
    "random_layer_and_custom_gradients": (random_layer_and_custom_gradients, NONE),
    "half": (half, NONE),
    "variable": (function(counted, spec(1, 6)), NONE),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
