"""A tiny classifier, as a .tflite and as the part of a .keras file that a draft reads; and data for it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.converters.graphs import Graph

FEATURES, CLASSES = 4, 3
Writer = Callable[..., Path]


def classifier(features: int = FEATURES, classes: int = CLASSES) -> bytes:
    """Return a float .tflite: a dense layer and a softmax."""
    built = Graph()
    x = built.tensor("x", (1, features))
    weights = built.tensor("w", (classes, features), values=np.eye(classes, features))
    bias = built.tensor("b", (classes,), values=np.zeros(classes))
    logits = built.tensor("logits", (1, classes))
    scores = built.tensor("scores", (1, classes))
    built.op("FULLY_CONNECTED", [x, weights, bias], [logits], options="FullyConnectedOptions")
    built.op("SOFTMAX", [logits], [scores], options="SoftmaxOptions", beta=1.0)
    return built.ends([x], [scores]).data()


def keras_archive(path: Path, *, features: int = FEATURES, classes: int = CLASSES) -> Path:
    """Write a .keras file with its configuration, as Keras 3 writes it, and without weights."""
    given = {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, features], "keras_history": ["x", 0, 0]},
    }
    dense = {"name": "scores", "units": classes, "activation": "softmax", "dtype": "float32"}
    layers = [
        {
            "class_name": "InputLayer",
            "config": {"name": "x", "batch_shape": [None, features], "dtype": "float32"},
        },
        {
            "class_name": "Dense",
            "config": dense,
            "build_config": {"input_shape": [None, features]},
            "inbound_nodes": [{"args": [given], "kwargs": {}}],
        },
    ]
    config = {"layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["scores", 0, 0]]}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": config}))
    return path


def samples(count: int, *, seed: int = 0, features: int = FEATURES) -> dict[str, Any]:
    """Return `x` and labels `y`, all different."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, features)).astype(np.float32)
    return {"x": x, "y": x[:, :CLASSES].argmax(axis=1)}


@pytest.fixture
def model(workspace: Path) -> Path:
    """The .keras file in the workspace, which is the current folder. Reading it starts no process."""
    return keras_archive(Path("model.keras"))


@pytest.fixture
def tflite(workspace: Path) -> Path:
    """The .tflite in the workspace; a worker runs it once."""
    Path("model.tflite").write_bytes(classifier())
    return Path("model.tflite")


@pytest.fixture
def write(workspace: Path) -> Writer:
    """Write arrays to an .npz in the workspace and return its name."""

    def written(name: str, **arrays: Any) -> Path:
        np.savez(workspace / name, **arrays)
        return Path(name)

    return written
