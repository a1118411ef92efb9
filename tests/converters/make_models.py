"""Makes the tiny models that the tests convert; run as a program, so that TensorFlow stays out of pytest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras


def main(folder: Path) -> None:
    """Write one model of each kind of source into `folder`."""
    keras.utils.set_random_seed(7)
    model = _keras3()
    model.save(folder / "model.keras")
    _keras3(leaky=True).save(folder / "leaky.keras")
    old = _keras2()
    old.save(folder / "legacy.h5")
    old.save(folder / "keras2_saved_model", save_format="tf")
    image = keras.Input((None, None, 1), name="image")
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(folder / "open.keras")
    plain = Plain()
    tf.saved_model.save(plain, str(folder / "plain_saved_model"), signatures=plain.serve)
    _tflite(_keras3(batch=1, like=model), folder / "float.tflite")
    _tflite(_keras3(batch=4, like=model), folder / "batch4.tflite")
    _tflite(_keras3(batch=1, leaky=True), folder / "leaky.tflite")
    _tflite(_angle(), folder / "angle.tflite")
    _tflite(_recurrent(tf_keras), folder / "lstm.tflite")
    _tflite(_recurrent(keras), folder / "loop.tflite")


def _keras3(*, leaky: bool = False, batch: int | None = None, like: keras.Model | None = None) -> keras.Model:
    image = keras.Input((8, 8, 1), batch_size=batch, name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", activation=None if leaky else "relu")(image)
    x = keras.layers.LeakyReLU()(x) if leaky else x
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="probability")(x))
    if like is not None:
        model.set_weights(like.get_weights())
    return model


def _angle() -> keras.Model:
    # No backend has integers for the angle of two values.
    image = keras.Input((8, 8, 1), batch_size=1, name="image")
    angle = keras.ops.arctan2(image, image * np.linspace(1, 2, 8, dtype=np.float32).reshape(8, 1, 1))
    return keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(angle)))


def _recurrent(library: Any) -> Any:
    # Of the old Keras the converter makes one operation, of the new one a loop.
    image = library.Input((8, 8), batch_size=1, name="image")
    return library.Model(image, library.layers.Dense(3)(library.layers.LSTM(6)(image)))


def _keras2() -> tf_keras.Model:
    image = tf_keras.Input((8, 8, 1), name="image")
    # DepthwiseConv2D is what Keras 3 cannot read from a legacy file ('groups').
    x = tf_keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(image)
    x = tf_keras.layers.BatchNormalization()(x)
    x = tf_keras.layers.Flatten()(x)
    model = tf_keras.Model(image, tf_keras.layers.Dense(3, activation="softmax", name="probability")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


class Plain(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A SavedModel without Keras, with an open batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(3).normal(size=(64, 3)).astype(np.float32))

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")]
    )
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": tf.matmul(tf.reshape(image, [-1, 64]), self.weights)}


def _tflite(model: Any, path: Path) -> None:
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
