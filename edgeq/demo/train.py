"""Train the demo's small CNN; run as a program, so that TensorFlow stays out of the caller's process."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeq.demo.digits import CLASSES, SEED, load_digits

EPOCHS = 20


def train(path: Path) -> None:
    """Train a CNN with 10 thousand parameters on the training part and save it as `.keras`."""
    import keras

    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(CLASSES, activation="softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy")
    training = load_digits().training
    model.fit(training.x, training.y, epochs=EPOCHS, batch_size=32, verbose=0)
    model.save(path)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
