"""One tiny .tflite with known weights, in float and in int8, and labelled data for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeq.conversion import convert
from edgeq.store import Store
from tests.once import Once

# y = softmax(x W) with W the identity: the class is the index of the largest input.
MAKE = """
import sys, numpy as np, tensorflow as tf
class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="features")])
    def serve(self, features):
        return {"probability": tf.nn.softmax(tf.matmul(features, tf.constant(np.eye(4, dtype=np.float32))))}
model = Model()
function = model.serve.get_concrete_function()
content = tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert()
open(sys.argv[1], "wb").write(content)
"""


@pytest.fixture(autouse=True)
def _own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a temporary folder: the Python API records into the current folder's workspace."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def float_model(once: Once) -> Path:
    """The float model: its class is the index of the largest of four inputs."""
    return once.folder("evaluate-float", _make_float) / "float.tflite"


def _make_float(folder: Path) -> None:
    path = folder / "float.tflite"
    done = subprocess.run(
        [sys.executable, "-P", "-c", MAKE, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 samples whose label is the index of their largest value, but for the first 15, which are wrong."""
    x = np.random.default_rng(2).normal(size=(60, 4)).astype(np.float32)
    y = x.argmax(axis=1)
    y[:15] = (y[:15] + 1) % 4
    path = tmp_path_factory.mktemp("data") / "evaluation.npz"
    np.savez(path, x=x, y=y)
    return path


@pytest.fixture(scope="session")
def int8_model(float_model: Path, data: Path, once: Once) -> Path:
    """The same model as full integer."""

    def make(folder: Path) -> None:
        with Store.open(folder) as store:
            convert(float_model, folder / "int8.tflite", scheme="int8", calibration=data, store=store)

    return once.folder("evaluate-int8", make) / "int8.tflite"
