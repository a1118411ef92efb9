"""Makes float models with a known weak spot, and data for them; run as a program, as make_models.py is."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

CLASSES = 4


def main(folder: Path) -> None:
    """Write `even`, `outlier` and `channels` (.tflite), `calibration.npz` and `evaluation.npz`."""
    keras.utils.set_random_seed(5)
    model = _model()
    _shake(model)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)
    calibration = random.normal(size=(60, 8, 8, 3)).astype(np.float32)
    evaluation = random.normal(size=(150, 8, 8, 3)).astype(np.float32)
    _center(model, evaluation)
    labels = np.argmax(model.predict(evaluation, verbose=0), axis=1)
    np.savez(folder / "calibration.npz", x=calibration)
    np.savez(folder / "evaluation.npz", x=evaluation, y=labels)
    _tflite(model, folder / "even.tflite")
    _tflite(_with_outlier(model), folder / "outlier.tflite")
    _tflite(_with_apart_channels(model), folder / "channels.tflite")
    _tflite(_logits_only(model), folder / "logits.tflite")


def _model() -> keras.Model:
    image = keras.Input((8, 8, 3), batch_size=1, name="image")
    x = image
    for number, filters in enumerate((12, 12, 12, 12)):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(image, keras.layers.Softmax(name="probability")(x))


def _shake(model: keras.Model) -> None:
    random = np.random.default_rng(6)
    for layer in model.layers:
        weights = layer.get_weights()
        if weights:
            kernel, bias = weights
            layer.set_weights([kernel, random.normal(scale=0.1, size=bias.shape)])
    # The first filter of conv1 is dead, so that what reads it may have any weight.
    kernel, bias = model.get_layer("conv1").get_weights()
    kernel[..., 0], bias[0] = 0.0, -1.0
    model.get_layer("conv1").set_weights([kernel, bias])
    # Scale the logits to a few units, so that the classes have distinct probabilities.
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 30, bias])


def _center(model: keras.Model, samples: np.ndarray) -> None:
    """Shift the logits so that every class is some sample's."""
    kernel, bias = model.get_layer("logits").get_weights()
    mean = _logits_only(model).predict(samples, verbose=0).mean(axis=0)
    model.get_layer("logits").set_weights([kernel, bias - mean])


def _copy(model: keras.Model) -> keras.Model:
    other = _model()
    other.set_weights(model.get_weights())
    return other


def _with_outlier(model: keras.Model) -> keras.Model:
    """The same function; conv2 has weights 1000 times the others', which only ever meet zeros."""
    other = _copy(model)
    kernel, bias = other.get_layer("conv2").get_weights()
    kernel[1, 1, 0, :] = 1000 * np.abs(kernel).max()
    other.get_layer("conv2").set_weights([kernel, bias])
    return other


def _with_apart_channels(model: keras.Model) -> keras.Model:
    """The same function; one channel between conv2 and conv3 is 1000 times the others."""
    other = _copy(model)
    kernel, bias = other.get_layer("conv2").get_weights()
    kernel[..., 3] *= 1000
    bias[3] *= 1000
    other.get_layer("conv2").set_weights([kernel, bias])
    kernel, bias = other.get_layer("conv3").get_weights()
    kernel[:, :, 3, :] /= 1000
    other.get_layer("conv3").set_weights([kernel, bias])
    return other


def _logits_only(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("logits").output)


def _tflite(model: keras.Model, path: Path) -> None:
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
