"""Gain of pruning a convolutional model and a small vision transformer on handwritten digits.

`python benchmarks/pruning.py [--json]` trains the models (scikit-learn's digits, enlarged to 32x32), prunes
them with `edgeq.convert(..., prune=)` and measures the files before and after, interleaved: LiteRT, one
thread, medians. No peer maintains pruning for Keras 3, so the comparison is with the unpruned model. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SEED = 2026
CASES = (
    ("model", "channels:0.5", "float32"),
    ("model", "channels:0.5", "int8"),
    ("model", "magnitude:0.8", "int8"),
    ("model", "channels:0.75", "float32"),
    ("model", "channels:0.75,by=group", "float32"),
    ("model", "channels:0.75,rounds=3", "float32"),
    ("model", "channels:0.75,rounds=3,lasso=1", "float32"),
    ("transformer", "channels:0.5", "float32"),
    ("transformer", "channels:0.5", "int8"),
    ("transformer", "channels:0.5,heads=0", "float32"),
)
"""(model, what is pruned, scheme)"""


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="print only the JSON line")
    arguments.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.build:
        build(given.build)
        return
    with tempfile.TemporaryDirectory(prefix="edgeq-benchmark-") as folder:
        reports = measure(Path(folder))
    if not given.json:
        show(reports)
    print(json.dumps({"schema": "edgeq.benchmark/1", "figures": figures(reports)}))


def build(folder: Path) -> None:
    """Train the model and write it with its data. Only this child process loads TensorFlow."""
    import keras
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(SEED)
    bunch = load_digits()
    x = np.kron((bunch.images / 16.0).astype(np.float32), np.ones((1, 4, 4), np.float32))[..., None]
    y = bunch.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(x))
    train, test = order[:1297], order[1297:]
    np.savez(folder / "training.npz", x=x[train], y=y[train])
    np.savez(folder / "evaluation.npz", x=x[test], y=y[test])
    np.savez(folder / "calibration.npz", x=x[train][:200])
    for name, model, epochs in (("model", _convolutions(), 10), ("transformer", _transformer(), 20)):
        steps = epochs * -(-len(train) // 32)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        model.fit(x[train], y[train], epochs=epochs, batch_size=32, verbose=0)
        model.save(folder / f"{name}.keras")


def _convolutions() -> Any:
    import keras

    layers = keras.layers
    image = keras.Input((32, 32, 1), name="image")
    value = image
    for channels, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        value = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(value)
        value = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(value))
    value = layers.GlobalAveragePooling2D()(value)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="probability")(value))


def _transformer() -> Any:
    """Return a vision transformer: 16 patches of 8x8, 3 blocks of 6 heads, width 48."""
    import keras

    layers = keras.layers
    image = keras.Input((32, 32, 1), name="image")
    value = layers.Reshape((16, 48))(layers.Conv2D(48, 8, strides=8)(image))
    value = layers.Add()([value, layers.Conv1D(48, 5, padding="same")(value)])  # the order of the patches
    for _ in range(3):
        normal = layers.LayerNormalization()(value)
        value = layers.Add()([value, layers.MultiHeadAttention(6, 8)(normal, normal)])
        wide = layers.Dense(192, activation="relu")(layers.LayerNormalization()(value))
        value = layers.Add()([value, layers.Dense(48)(wide)])
    value = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(value))
    return keras.Model(image, layers.Dense(10, activation="softmax", name="probability")(value))


def measure(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {case: the conversion's `pruning` report}."""
    import edgeq

    subprocess.run([sys.executable, __file__, "--build", str(folder)], check=True, capture_output=True)
    reports = {}
    for name, prune, scheme in CASES:
        done = edgeq.convert(
            folder / f"{name}.keras",
            folder / "pruned.tflite",
            scheme=scheme,
            calibration=folder / "calibration.npz",
            prune=prune,
            training=folder / "training.npz",
            validation=folder / "evaluation.npz",
            epochs=12,
        )
        if done.pruning is None:
            raise TypeError("the conversion was asked to prune")
        which = "" if name == "model" else f"{name}: "
        reports[f"{which}{prune} {scheme}"] = done.pruning.to_json()
    return reports


def show(reports: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    print(
        f"{'case':<40} latency us     speed  file KiB       zlib KiB       accuracy: whole, cut, tuned, file"
    )
    for case, report in reports.items():
        before, after = report["latency_ns"]["before"]["p50"], report["latency_ns"]["after"]["p50"]
        size, wire, good = report["size_bytes"], report["compressed_bytes"], report["accuracy"]
        print(
            f"{case:<40} {before / 1e3:6.1f} {after / 1e3:6.1f}  {report['speedup']:5.2f}x "
            f"{size['before'] / 1024:6.1f} {size['after'] / 1024:6.1f}  "
            f"{wire['before'] / 1024:6.1f} {wire['after'] / 1024:6.1f}  "
            f"{good['before']:.4f} {good['pruned']:.4f} {good['tuned']:.4f} {good['file_after']:.4f}"
        )


def figures(reports: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures with their goals."""
    goals = []
    for case, report in reports.items():
        good = report["accuracy"]
        drop = 100.0 * (good["file_before"] - good["file_after"])
        wire = report["compressed_bytes"]["before"] / report["compressed_bytes"]["after"]
        speed = report["speedup"]
        if "channels" in case:
            goals.append(_figure(f"{case}: speed", speed, "ratio", 1.6, least=True))
        else:
            goals.append(_figure(f"{case}: compressed size", wire, "ratio", 2.0, least=True))
        goals.append(_figure(f"{case}: accuracy drop, held out", drop, "points", 1.0, least=False))
    return goals


def _figure(name: str, value: float, unit: str, reach: float, *, least: bool) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "peer": None,
        "reach": f"{'>=' if least else '<='}{reach:g}",
        "holds": value >= reach if least else value <= reach,
    }


if __name__ == "__main__":
    main()
