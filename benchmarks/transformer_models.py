"""Models of the transformer benchmark, trained on digits or spoken words when it runs.

`python -m benchmarks.transformer_models NAME FOLDER` writes model.keras, calibration.npz (100 samples that it
was trained on) and evaluation.npz, which neither training nor conversion sees.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
WORDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "kws"
_SEED = 5
_CALIBRATION = 100
_EPOCHS = {"digits": 16, "words": 30}
_TRAINED_DIGITS, _TRAINED_WORDS = 1000, 500


def build(name: str, folder: Path) -> None:
    """Train one model and write it with its data."""
    import keras

    keras.utils.set_random_seed(_SEED)
    kind, make = MODELS[name]
    (x, y), (test_x, test_y) = digits() if kind == "digits" else words()
    model = make()
    steps = _EPOCHS[kind] * -(-len(x) // 32)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3), loss)
    model.fit(x, y, epochs=_EPOCHS[kind], batch_size=32, verbose=0)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    np.savez(folder / "calibration.npz", x=x[:_CALIBRATION])
    np.savez(folder / "evaluation.npz", x=test_x, y=test_y)


def digits() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return scikit-learn's digits at 16x16 as (train, test)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.kron(pixels.reshape(-1, 8, 8), np.ones((2, 2))).astype(np.float32) / 16
    order = np.random.default_rng(_SEED).permutation(len(images))
    x, y = images[order][..., None], labels[order].astype(np.int64)
    return (x[:_TRAINED_DIGITS], y[:_TRAINED_DIGITS]), (x[_TRAINED_DIGITS:], y[_TRAINED_DIGITS:])


def words() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return features of spoken words, (n, 49, 10, 1), as (train, test)."""
    with np.load(WORDS / "evaluation.npz") as kept:
        x, y = kept["x"].astype(np.float32), kept["y"]
    middle, spread = x[:_TRAINED_WORDS].mean(), x[:_TRAINED_WORDS].std()
    x = (x - middle) / spread
    return (x[:_TRAINED_WORDS], y[:_TRAINED_WORDS]), (x[_TRAINED_WORDS:], y[_TRAINED_WORDS:])


def _positions(tokens: Any) -> Any:
    from keras import layers

    count, width = tokens.shape[1:]
    places = layers.Embedding(count, width)(np.arange(count)[None])
    return layers.Add()([tokens, places])


def _block(x: Any, *, heads: int = 2, wide: int = 2) -> Any:
    """Return a block of a transformer: normalized attention and normalized neurons, each added."""
    from keras import layers

    width = x.shape[-1]
    normed = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(normed, normed)])
    inner = layers.LayerNormalization(epsilon=1e-6)(x)
    inner = layers.Dense(width * wide, activation="gelu")(inner)
    return layers.Add()([x, layers.Dense(width)(inner)])


def _classifier(inputs: Any, x: Any, classes: int) -> Any:
    from keras import Model, layers

    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return Model(inputs, layers.Dense(classes)(layers.GlobalAveragePooling1D()(x)))


def vit() -> Any:
    """Return a vision transformer on patches of 4x4 pixels (arXiv 2010.11929)."""
    from keras import layers

    image = layers.Input((16, 16, 1), name="image")
    x = layers.Conv2D(32, 4, 4)(image)
    x = _positions(layers.Reshape((16, 32))(x))
    return _classifier(image, _block(_block(x)), 10)


def mobile_vit() -> Any:
    """Return convolutions with a transformer on patches in between (arXiv 2110.02178)."""
    from keras import layers, ops

    image = layers.Input((16, 16, 1), name="image")
    local = layers.Conv2D(24, 3, 2, "same", activation="silu")(image)
    x = layers.Conv2D(32, 1)(layers.Conv2D(24, 3, padding="same", activation="silu")(local))
    x = ops.transpose(ops.reshape(x, (-1, 4, 2, 4, 2, 32)), (0, 2, 4, 1, 3, 5))
    x = ops.reshape(x, (-1, 16, 32))
    x = _block(_block(x))
    x = ops.transpose(ops.reshape(x, (-1, 2, 2, 4, 4, 32)), (0, 3, 1, 4, 2, 5))
    x = layers.Conv2D(24, 1, activation="silu")(ops.reshape(x, (-1, 8, 8, 32)))
    x = layers.Conv2D(32, 3, padding="same", activation="silu")(layers.Concatenate()([local, x]))
    x = layers.Reshape((64, 32))(x)
    return _classifier(image, x, 10)


def conv_next() -> Any:
    """Return wide depthwise convolutions with normalized neurons and scaled branches (arXiv 2201.03545)."""
    from keras import initializers, layers

    image = layers.Input((16, 16, 1), name="image")
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(32, 2, 2)(image))
    for _ in range(3):
        branch = layers.DepthwiseConv2D(5, padding="same")(x)
        branch = layers.LayerNormalization(epsilon=1e-6)(branch)
        branch = layers.Dense(96, activation="gelu")(branch)
        start = initializers.Constant(0.1)
        scaled = layers.EinsumDense("bhwc,c->bhwc", (8, 8, 32), kernel_initializer=start)
        x = layers.Add()([x, scaled(layers.Dense(32)(branch))])
    x = layers.Reshape((64, 32))(x)
    return _classifier(image, x, 10)


def word_transformer() -> Any:
    """Return a transformer whose tokens are the frames of a word (arXiv 2104.00769)."""
    from keras import layers

    frames = layers.Input((49, 10, 1), name="frames")
    x = _positions(layers.Dense(32)(layers.Reshape((49, 10))(frames)))
    return _classifier(frames, _block(_block(x)), 12)


def word_attention() -> Any:
    """Return convolutions over time and frequency, then attention over time."""
    from keras import layers

    frames = layers.Input((49, 10, 1), name="frames")
    x = layers.Conv2D(24, (5, 3), (2, 2), "same", activation="relu")(frames)
    x = layers.Conv2D(32, (3, 3), (1, 1), "same", activation="relu")(x)
    x = layers.Dense(32)(layers.Reshape((25, 160))(x))
    return _classifier(frames, _block(_positions(x)), 12)


MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "vit": ("digits", vit),
    "mobile_vit": ("digits", mobile_vit),
    "conv_next": ("digits", conv_next),
    "word_transformer": ("words", word_transformer),
    "word_attention": ("words", word_attention),
}
"""Name -> (data, model)."""

if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
