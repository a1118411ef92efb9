"""Models of the quantization benchmark, trained when it runs, with their samples.

`python -m benchmarks.quantization_models NAME FOLDER` writes model.keras, calibration.npz, evaluation.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
NAMES = ("digits-mobilenet", "deep-96", "deep-224")


def build(name: str, folder: Path) -> None:
    """Train one model and write it with its samples; nothing is downloaded."""
    import keras

    keras.utils.set_random_seed(2026)
    if name == "digits-mobilenet":
        train, calibration, evaluation = digits()
        model = mobile_net(
            (32, 32, 1), 10, stem=16, plan=((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2)), head=128
        )
        fit(model, train, epochs=14, rate=3e-3)
    elif name == "deep-96":
        train, calibration, evaluation = crops(96, counts=(1200, 100, 300))
        model = mobile_net((96, 96, 3), 8, stem=16, plan=_DEEP, head=320, width=0.5)
        fit(model, train, epochs=4, rate=2e-3)
    else:
        train, calibration, evaluation = crops(224, counts=(160, 100, 100))
        model = mobile_net((224, 224, 3), 8, stem=32, plan=_DEEP, head=1280)
        spread_channels(model)
        settle(model, train[0])
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    for part, (x, y) in (("calibration", calibration), ("evaluation", evaluation)):
        np.savez(folder / f"{part}.npz", x=x, y=y)


# (expansion, channels, repeats, stride): 20 blocks with the stem and the head are 61 convolutions.
_DEEP = (
    (1, 16, 1, 1),
    (6, 24, 3, 2),
    (6, 40, 3, 2),
    (6, 80, 4, 2),
    (6, 112, 4, 1),
    (6, 192, 4, 2),
    (6, 320, 1, 1),
)


def mobile_net(
    shape: tuple[int, int, int],
    classes: int,
    *,
    stem: int,
    plan: tuple[tuple[int, int, int, int], ...],
    head: int,
    width: float = 1.0,
) -> Any:
    """Return inverted residuals with ReLU6 and a softmax (Sandler et al. 2018, arXiv 1801.04381)."""
    from keras import Model, layers

    def normed(x: Any, *, act: bool) -> Any:
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.ReLU(max_value=6.0)(x) if act else x

    inputs = layers.Input(shape)
    x = normed(layers.Conv2D(stem, 3, 2, "same", use_bias=False)(inputs), act=True)
    for expansion, channels, repeats, stride in plan:
        wide = max(int(channels * width + 4) // 8 * 8, 8)
        for number in range(repeats):
            before, inner = x, x.shape[-1] * expansion
            if expansion > 1:
                x = normed(layers.Conv2D(inner, 1, use_bias=False)(x), act=True)
            step = stride if number == 0 else 1
            x = normed(layers.DepthwiseConv2D(3, step, "same", use_bias=False)(x), act=True)
            x = normed(layers.Conv2D(wide, 1, use_bias=False)(x), act=False)
            if step == 1 and before.shape[-1] == wide:
                x = layers.Add()([before, x])
    x = normed(layers.Conv2D(head, 1, use_bias=False)(x), act=True)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(classes, activation="softmax")(x))


def fit(model: Any, train: tuple[Array, Array], *, epochs: int, rate: float) -> None:
    """Train with a decaying learning rate."""
    import keras

    steps = epochs * -(-len(train[0]) // 32)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        "sparse_categorical_crossentropy",
    )
    model.fit(*train, batch_size=32, epochs=epochs, verbose=0)


def spread_channels(model: Any) -> None:
    """Scale the channels by log-normal factors, as long training does."""
    import keras

    random = np.random.default_rng(2026)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            layer.gamma.assign(np.exp(random.normal(0.0, 0.5, size)).astype(np.float32))
            layer.beta.assign(random.normal(0.3, 0.4, size).astype(np.float32))


def settle(model: Any, images: Array) -> None:
    """Set the statistics of the batch normalizations, without training."""
    for _ in range(3):
        for start in range(0, len(images), 16):
            model(images[start : start + 16], training=True)


Part = tuple[Array, Array]


def digits() -> tuple[Part, Part, Part]:
    """Return scikit-learn's handwritten digits at 32x32: train, calibration (a part of it), evaluation."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.kron(pixels.reshape(-1, 8, 8), np.ones((4, 4)))[..., None].astype(np.float32) / 16
    order = np.random.default_rng(2026).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int64)
    return (images[:1100], labels[:1100]), (images[:200], labels[:200]), (images[1100:], labels[1100:])


def crops(size: int, *, counts: tuple[int, int, int]) -> tuple[Part, Part, Part]:
    """Return crops of two photographs; the class is which photograph and which way up. Values 0 to 1.

    Training and calibration crops are of the left two thirds, evaluation crops of the right third.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    random = np.random.default_rng(2026)

    def some(count: int, low: float, high: float) -> Part:
        images, labels = [], []
        for _ in range(count):
            which, turn = int(random.integers(2)), int(random.integers(4))
            image = photographs[which]
            edge = int(random.integers(80, 200))
            left = int(random.integers(int(image.width * low), int(image.width * high) - edge + 1))
            top = int(random.integers(0, image.height - edge + 1))
            crop = image.crop((left, top, left + edge, top + edge)).resize(
                (size, size), Image.Resampling.BILINEAR
            )
            images.append(np.rot90(np.asarray(crop, np.float32) / 255, turn))
            labels.append(which * 4 + turn)
        return np.stack(images), np.array(labels, np.int64)

    return some(counts[0], 0, 0.66), some(counts[1], 0, 0.66), some(counts[2], 0.66, 1)


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
