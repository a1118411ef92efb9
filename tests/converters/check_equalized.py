"""Equalizes a Keras model and prints, as JSON, what became of its outputs, its weights and its .tflite.

Run as a program, so that TensorFlow stays out of pytest: `check_equalized.py MODEL SAMPLES FOLDER`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph.layers import read_layer
from edgeq_converters.graph.model import Model
from edgeq_converters.training.common import batch_norm
from edgeq_converters.training.qat import equalized, fake_quant
from edgeq_converters.training.qat.export import hub_of


def main(model: Path, samples: Path, folder: Path) -> None:
    """Print what equalization did."""
    whole = batch_norm.fold(keras.models.load_model(model, compile=False))
    x = np.load(samples)["x"][:100]
    hub = hub_of(whole, folder / "whole.keras", "x")
    before, weights = np.asarray(whole(x)), whole.get_weights()
    done = equalized.equalize(whole, hub, Samples(inputs=hub.inputs, arrays=(x,)))
    report = {
        "far": float(np.abs(np.asarray(whole(x)) - before).max() / np.abs(before).max()),
        "changed": sum(
            not np.array_equal(old, new) for old, new in zip(weights, whole.get_weights(), strict=True)
        ),
        "equalized": done is not None,
    }
    if done is not None:
        again = hub_of(whole, folder / "again.keras", "x")
        report["same_weights"] = all(
            np.allclose(one, other, rtol=1e-5)
            for one, other in zip(_kernels(done), _kernels(again), strict=True)
        )
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 4, 5)).astype(np.float32)
    ratio = random.uniform(0.4, 1.0, (1, 1, 1, 5)).astype(np.float32)
    grid = fake_quant.snapped(kernel, over=(0, 1, 2), bits=4, ratio=ratio)
    again_on_grid = fake_quant.snapped(grid, over=(0, 1, 2), bits=4)
    report["grid_kept"] = bool(np.allclose(grid, again_on_grid, rtol=1e-6, atol=1e-7))
    seen = np.asarray(fake_quant.weights(kernel, over=(0, 1, 2), bits=4, ratio=ratio))
    report["training_sees_the_grid"] = bool(np.allclose(seen, grid, rtol=1e-5, atol=1e-6))
    report["levels"] = len(np.unique(np.round(grid[..., 0] / np.abs(grid[..., 0]).max() * 7, 3)))
    print(json.dumps(report))  # noqa: T201 # its output is what the test reads


def _kernels(model: Model) -> list[np.ndarray]:
    from edgeq_converters.graph import edit

    layers = [read_layer(model.parsed, operator) for operator in model.graph.operators]
    return [
        edit.constant(model.parsed, model.graph.tensors[layer.weights])
        for layer in layers
        if layer is not None
    ]


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:]))
