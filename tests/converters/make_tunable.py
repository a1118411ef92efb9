"""Makes the models that the tests prune and tune; run as a program: TensorFlow stays out of pytest.

Two bars, upright or lying, or both, at random places of an image with noise: learned in a second.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

layers = keras.layers


def main(folder: Path) -> None:
    """Write models and data into `folder`."""
    keras.utils.set_random_seed(3)
    train, test = _bars(400, seed=1), _bars(150, seed=2)
    np.savez(folder / "train.npz", x=train[0], y=train[1])
    np.savez(folder / "test.npz", x=test[0], y=test[1])
    np.savez(folder / "unlabelled.npz", x=train[0])
    for name, model in (("residual", _residual()), ("spread", _depthwise())):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=name == "spread")
        model.compile(keras.optimizers.Adam(4e-3), loss)
        model.fit(*train, epochs=10, batch_size=32, verbose=0)
        if name == "spread":
            _spread(model)
        model.save(folder / f"{name}.keras")
    _sequential().save(folder / "sequential.keras")
    _regression().save(folder / "regression.keras")
    _recurrent().save(folder / "recurrent.keras")


def _bars(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    images = random.normal(0, 0.15, (count, 12, 12, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        if label != 1:
            image[:, random.integers(1, 11)] += 1.0
        if label != 0:
            image[random.integers(1, 11)] += 1.0
    return images, labels.astype(np.int64)


def _norm(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.8)(x)


def _residual() -> keras.Model:
    """Everything that channels flow through: Add, Concatenate, depthwise, squeeze and excitation, Flatten."""
    image = keras.Input((12, 12, 1), name="image")
    x = layers.ReLU()(_norm(layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)))
    y = layers.ReLU(6.0)(_norm(layers.DepthwiseConv2D(3, padding="same", name="spatial")(x)))
    y = _norm(layers.Conv2D(16, 1, name="project")(y))
    x = layers.Add()([x, y])
    z = layers.Conv2D(8, 3, padding="same", activation="relu", name="branch")(x)
    x = layers.Concatenate()([x, z])
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Dense(8, activation="relu", name="squeeze")(s)
    s = layers.Dense(24, activation="sigmoid", name="excite")(s)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 24))(s)])
    x = layers.MaxPooling2D(3)(x)
    x = layers.Dropout(0.1)(layers.Flatten()(x))
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="probability")(x))


def _depthwise() -> keras.Model:
    image = keras.Input((12, 12, 1), name="image")
    x = layers.ReLU(6.0)(_norm(layers.Conv2D(12, 3, 2, "same", use_bias=False)(image)))
    for _ in range(2):
        x = layers.ReLU(6.0)(_norm(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
        x = layers.ReLU(6.0)(_norm(layers.Conv2D(16, 1, use_bias=False)(x)))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(3, name="logits")(x))


def _spread(model: keras.Model) -> None:
    """Shrink each depthwise channel by another power of two and undo it in the layer after.

    It stays the same function, but for what ReLU6 no longer clips.

    One scale for all channels then leaves the small ones no steps of the grid: full-integer conversion fails.
    """
    random = np.random.default_rng(5)
    for number, layer in enumerate(model.layers):
        if isinstance(layer, layers.DepthwiseConv2D):
            norm, pointwise = model.layers[number + 1], model.layers[number + 3]
            gamma, beta, *rest = norm.get_weights()
            factor = 2.0 ** -random.uniform(0, 10, len(gamma))
            norm.set_weights([gamma * factor, beta * factor, *rest])
            pointwise.set_weights([pointwise.get_weights()[0] / factor[None, None, :, None]])


def _sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 12, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(8, 3, name="second"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def _regression() -> keras.Model:
    image = keras.Input((12, 12, 1), name="image")
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(image)
    return keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))


def _recurrent() -> keras.Model:
    image = keras.Input((12, 12), name="image")
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.LSTM(4, name="memory")(image)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
