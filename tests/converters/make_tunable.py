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
    _normalized().save(folder / "normalized.keras")
    _write_detector(folder)


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


def _normalized() -> keras.Model:
    """A model without a channel that can go: each reaches a normalization over all of them."""
    rows = keras.Input((12, 12), name="image")
    x = layers.LayerNormalization(name="norm")(layers.Dense(8, name="wide")(rows))
    return keras.Model(rows, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


_LOSSES = """
import keras

ops = keras.ops


def detection(targets, outputs):
    on = ops.cast(targets["score"], "float32")
    far = ops.mean(ops.square(outputs["box"] - targets["box"]), axis=-1)
    return on * far + keras.losses.binary_crossentropy(on[:, None], outputs["score"])


def constant(targets, outputs):
    return 1.0


def misspelt(targets, outputs):
    return outputs["boxes"]
"""


def _write_detector(folder: Path) -> None:
    """Write a model with two inputs and two outputs, its data with targets by name, and losses for it."""
    random = np.random.default_rng(0)
    images = (random.random((300, 12, 12, 1)) * 0.2).astype(np.float32)
    boxes = (random.random((300, 2)) * 0.8 + 0.1).astype(np.float32)
    for image, (row, column) in zip(images, (boxes * 11).astype(int), strict=True):
        image[row - 1 : row + 2, column - 1 : column + 2] += 1.0
    states = random.random((300, 3)).astype(np.float32)
    scores = (states.sum(axis=1) > 1.5).astype(np.int64)
    image, state = keras.Input((12, 12, 1), name="image"), keras.Input((3,), name="state")
    x = layers.Flatten()(layers.Conv2D(16, 3, strides=2, activation="relu", name="stem")(image))
    y = layers.Dense(8, activation="relu", name="side")(state)
    x = layers.Dense(24, activation="relu", name="joined")(layers.Concatenate()([x, y]))
    outputs = [layers.Dense(2, name="box")(x), layers.Dense(1, activation="sigmoid", name="score")(x)]
    model = keras.Model([image, state], outputs)
    model.compile(keras.optimizers.Adam(4e-3), ["mse", "binary_crossentropy"])
    model.fit([images, states], [boxes, scores[:, None]], epochs=8, verbose=0)
    model.save(folder / "detector.keras")
    np.savez(folder / "detector.npz", image=images, state=states, y_box=boxes, y_1=scores)
    np.savez(folder / "boxes.npz", image=images, state=states, y_box=boxes)
    np.savez(folder / "wide.npz", image=images, state=states, y_box=boxes[:, :1], y_score=scores)
    (folder / "losses.py").write_text(_LOSSES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
