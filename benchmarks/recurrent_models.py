"""Models of the recurrent benchmark, trained on digits or spoken words when it runs.

`python -m benchmarks.recurrent_models NAME SEED FOLDER` writes float.tflite with the loops that Keras makes,
unrolled.tflite with the same weights and `unroll=True`, calibration.npz (100 samples that it was trained on)
and evaluation.npz, which neither training nor conversion sees.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.transformer_models import words

Array = npt.NDArray[Any]
ROWS = 28
_CALIBRATION = 100
_EPOCHS = {"digits": 15, "words": 40}
_TRAINED_DIGITS = 1000


def build(name: str, seed: int, folder: Path) -> None:
    """Train one model and write it in both forms with its data."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    kind, make = MODELS[name]
    (x, y), (test_x, test_y) = digits(seed) if kind == "digits" else _frames()
    model = make(unroll=False)
    steps = _EPOCHS[kind] * -(-len(x) // 32)
    rate = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss)
    model.fit(x, y, epochs=_EPOCHS[kind], batch_size=32, verbose=0)
    unrolled = make(unroll=True)
    unrolled.set_weights(model.get_weights())
    folder.mkdir(parents=True, exist_ok=True)
    for each, file in ((model, "float"), (unrolled, "unrolled")):
        saved = folder / file
        given = keras.InputSpec(shape=(1, *x.shape[1:]), dtype="float32")
        each.export(saved, input_signature=[given], verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        (folder / f"{file}.tflite").write_bytes(converter.convert())
    np.savez(folder / "calibration.npz", x=x[:_CALIBRATION])
    np.savez(folder / "evaluation.npz", x=test_x, y=test_y)


def digits(seed: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return scikit-learn's digits at 28x28, one time step for each row, as (train, test)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    resized = [Image.fromarray(each).resize((ROWS, ROWS), Image.Resampling.BILINEAR) for each in small]
    order = np.random.default_rng(seed).permutation(len(small))
    x, y = np.stack([np.asarray(each) for each in resized])[order], labels[order].astype(np.int64)
    return (x[:_TRAINED_DIGITS], y[:_TRAINED_DIGITS]), (x[_TRAINED_DIGITS:], y[_TRAINED_DIGITS:])


def _frames() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return features of spoken words, (n, 49 frames, 10), as (train, test)."""
    (x, y), (test_x, test_y) = words()
    return (x[..., 0], y), (test_x[..., 0], test_y)


def _classifier(shape: tuple[int, int], classes: int, *layers: Any) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *layers, keras.layers.Dense(classes)])


def word_gru(*, unroll: bool) -> Any:
    """Return a GRU over the frames of a word."""
    from keras import layers

    return _classifier((49, 10), 12, layers.GRU(48, unroll=unroll))


def word_gru_before(*, unroll: bool) -> Any:
    """Return a GRU that resets the state before its product."""
    from keras import layers

    return _classifier((49, 10), 12, layers.GRU(48, reset_after=False, unroll=unroll))


def word_lstm(*, unroll: bool) -> Any:
    """Return an LSTM over the frames of a word."""
    from keras import layers

    return _classifier((49, 10), 12, layers.LSTM(48, unroll=unroll))


def digit_lstm(*, unroll: bool) -> Any:
    """Return an LSTM over the rows of a digit."""
    from keras import layers

    return _classifier((ROWS, ROWS), 10, layers.LSTM(32, unroll=unroll))


def digit_stacked(*, unroll: bool) -> Any:
    """Return two LSTMs, one on the steps of the other."""
    from keras import layers

    stacked = layers.LSTM(24, return_sequences=True, unroll=unroll), layers.LSTM(24, unroll=unroll)
    return _classifier((ROWS, ROWS), 10, *stacked)


def digit_bidirectional(*, unroll: bool) -> Any:
    """Return LSTMs over the rows of a digit from above and from below."""
    from keras import layers

    return _classifier((ROWS, ROWS), 10, layers.Bidirectional(layers.LSTM(24, unroll=unroll)))


MODELS: dict[str, tuple[str, Callable[..., Any]]] = {
    "word_gru": ("words", word_gru),
    "word_gru_before": ("words", word_gru_before),
    "word_lstm": ("words", word_lstm),
    "digit_lstm": ("digits", digit_lstm),
    "digit_stacked": ("digits", digit_stacked),
    "digit_bidirectional": ("digits", digit_bidirectional),
}
"""Name -> (data, model)."""

if __name__ == "__main__":
    build(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
