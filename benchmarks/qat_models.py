"""Models of the QAT benchmark, trained on handwritten digits when it runs.

`python -m benchmarks.qat_models NAME SEED FOLDER` writes model.keras, training.npz, calibration.npz (a part
of it) and test.npz, and further.keras: the same model after as much further training in float as tuning does.
The seed decides the split of the data, the initial weights and the order of training.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TRAINED = 1000
EPOCHS, FURTHER = 24, 16


def build(name: str, seed: int, folder: Path) -> None:
    """Train one model and write it with its data."""
    import keras

    keras.utils.set_random_seed(seed)
    (x, y), (test_x, test_y) = digits(seed)
    model = MODELS[name](seed)
    folder.mkdir(parents=True, exist_ok=True)
    for file, epochs, start in (("model.keras", EPOCHS, 3e-3), ("further.keras", FURTHER, 1e-3)):
        steps = epochs * -(-len(x) // 32)
        rate = keras.optimizers.schedules.CosineDecay(start, steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss)
        model.fit(x, y, epochs=epochs, batch_size=32, verbose=0)
        model.save(folder / file)
    np.savez(folder / "training.npz", x=x, y=y)
    np.savez(folder / "calibration.npz", x=x[:300])
    np.savez(folder / "test.npz", x=test_x, y=test_y)


def digits(seed: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return scikit-learn's digits at 16x16, shifted and noisy to make the task harder (train, test)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.kron(pixels.reshape(-1, 8, 8), np.ones((2, 2))).astype(np.float32) / 16
    random = np.random.default_rng(seed)
    for number, image in enumerate(images):
        moved = np.roll(image, random.integers(-1, 2, 2), (0, 1))
        images[number] = moved + random.normal(0, 0.15, image.shape)
    order = random.permutation(len(images))
    x, y = images[order][..., None], labels[order].astype(np.int64)
    return (x[:TRAINED], y[:TRAINED]), (x[TRAINED:], y[TRAINED:])


def _normed(x: Any, activation: str | None) -> Any:
    from keras import layers

    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation(activation)(x) if activation else x


def spread(model: Any, sigma: float, seed: int) -> Any:
    """Start training from channels of unequal size: normalized, times a log-normal factor."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.gamma.assign(np.exp(random.normal(0.0, sigma, layer.gamma.shape)).astype(np.float32))
    return model


def mobile(activation: str, *, excited: bool = False, width: int = 16) -> Any:
    """Return inverted residuals, optionally with squeeze and excitation (arXiv 1905.02244)."""
    from keras import Model, layers

    image = layers.Input((16, 16, 1), name="image")
    x = _normed(layers.Conv2D(width, 3, 2, "same", use_bias=False)(image), activation)
    for channels, stride in ((width, 1), (width * 3 // 2, 2), (width * 3 // 2, 1)):
        before, inner = x, x.shape[-1] * 3
        x = _normed(layers.Conv2D(inner, 1, use_bias=False)(x), activation)
        x = _normed(layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x), activation)
        if excited:
            s = layers.GlobalAveragePooling2D(keepdims=True)(x)
            s = layers.Conv2D(inner // 4, 1, activation="relu")(s)
            s = layers.Conv2D(inner, 1, activation="sigmoid")(s)
            x = layers.Multiply()([x, s])
        x = _normed(layers.Conv2D(channels, 1, use_bias=False)(x), None)
        if stride == 1 and before.shape[-1] == channels:
            x = layers.Add()([before, x])
    x = _normed(layers.Conv2D(width * 4, 1, use_bias=False)(x), activation)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, layers.Dense(10, name="logits")(x))


MODELS: dict[str, Callable[[int], Any]] = {
    "hswish": lambda _seed: mobile("hard_swish", width=8),
    "hswish-spread": lambda seed: spread(mobile("hard_swish", width=8), 1.5, seed),
}

if __name__ == "__main__":
    build(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
