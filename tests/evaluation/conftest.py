"""One tiny .tflite with known weights, in float and in int8, and labelled data for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeq.conversion import convert

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


@pytest.fixture(scope="session")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float model: its class is the index of the largest of four inputs."""
    path = tmp_path_factory.mktemp("evaluate") / "float.tflite"
    done = subprocess.run(
        [sys.executable, "-P", "-c", MAKE, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return path


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
def int8_model(float_model: Path, data: Path) -> Path:
    """The same model as full integer."""
    return convert(float_model, float_model.with_name("int8.tflite"), scheme="int8", calibration=data).path
