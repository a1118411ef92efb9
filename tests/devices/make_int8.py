"""Write a small int8 model of convolutions and samples for it: `python make_int8.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(folder: Path) -> None:
    tf.keras.utils.set_random_seed(7)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input((24, 24, 3)),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu6"),
            layers.DepthwiseConv2D(3, padding="same", activation="relu6"),
            layers.Conv2D(32, 1, activation="relu6"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(8),
            layers.Softmax(),
        ]
    )
    # Initial weights are too even: the softmax would say 1/8 for everything.
    for weights in model.trainable_variables:
        weights.assign(weights * 2.5)
    samples = np.random.default_rng(7).uniform(-1, 1, (64, 24, 24, 3)).astype(np.float32)
    samples *= np.linspace(0.2, 1.0, 64, dtype=np.float32)[:, None, None, None]
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())
    np.savez(folder / "samples.npz", x=samples)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
