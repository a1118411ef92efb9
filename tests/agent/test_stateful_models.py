"""Keras models that keep state, from the source to sessions on the device; compared with Keras itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.bundle import read_bundle
from edgeq.bundle.make import make_bundle
from edgeq.conversion import convert
from edgeq.store import UNRECORDED
from edgeq_agent import Runtime
from tests.once import Once

pytestmark = [pytest.mark.convert, pytest.mark.slow]

STEPS, SHAPE = 8, (3, 2)
_MAKE = """
import sys
import numpy as np
import tensorflow as tf

folder, kind = sys.argv[1:]
keras = tf.keras
keras.utils.set_random_seed(3)
steps = np.random.default_rng(3).normal(size=(8, 3, 2)).astype(np.float32)
np.save(folder + "/steps.npy", steps)
if kind == "Variable":
    class Mean(tf.Module):
        def __init__(self):
            self.mean = tf.Variable(np.full((1, 2), 0.5, np.float32))
        @tf.function(input_signature=[tf.TensorSpec([1, 3, 2], tf.float32, name="x")])
        def serve(self, x):
            return {"mean": self.mean.assign(0.75 * self.mean + 0.25 * tf.reduce_mean(x, axis=1))}
    model = Mean()
    function = model.serve.get_concrete_function()
    outputs = [np.asarray(function(tf.constant(step[None]))["mean"])[0] for step in steps]
    model.mean.assign(np.full((1, 2), 0.5, np.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    converter.experimental_enable_resource_variables = True
    open(folder + "/source.tflite", "wb").write(converter.convert())
else:
    x = keras.Input(batch_shape=(1, 3, 2))
    y = getattr(keras.layers, kind)(4, stateful=True, unroll=True)(x)
    model = keras.Model(x, keras.layers.Dense(3)(y))
    model.save(folder + "/source.keras")
    outputs = [np.asarray(model(step[None]))[0] for step in steps]
np.save(folder + "/outputs.npy", np.stack(outputs))
"""


@pytest.fixture(scope="session", params=["LSTM", "GRU", "Variable"])
def source(request: pytest.FixtureRequest, once: Once) -> Path:
    """Return a folder with a source, the steps of a sequence, and the source's own outputs for them."""
    kind = request.param

    def build(folder: Path) -> None:
        argv = [sys.executable, "-c", _MAKE, str(folder), kind]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return once.folder(f"stateful-{kind}", build)


@pytest.mark.parametrize("scheme", ["float32", "int8-mixed"])
def test_from_the_source_to_sessions(ready: Any, kit: Any, source: Path, tmp_path: Path, scheme: str) -> None:
    (path,) = source.glob("source.*")
    steps, expected = np.load(source / "steps.npy"), np.load(source / "outputs.npy")
    data = tmp_path / "data.npz"
    np.savez(data, x=np.concatenate([steps] * 8), sequence_id=np.repeat(np.arange(8), len(steps)))
    model = tmp_path / "model.tflite"
    calibration = None if scheme == "float32" else data
    done = convert(path, model, scheme=scheme, calibration=calibration, store=UNRECORDED)
    assert not any("parity" in note or "repeat" in note for note in (*done.notes, *done.warnings))
    close = {"atol": 1e-5} if scheme == "float32" else {"atol": 0.1 * np.abs(expected).max()}

    file = tmp_path / "m.eqb"
    make_bundle(file, model_file=model, name="rnn", variant=scheme, data=data, counter=2, store=UNRECORDED)
    made = read_bundle(file)
    files = {name: made.read(entry.sha256) for name, entry in made.parsed.files.items()}
    bundle = kit.Bundle(manifest=dict(made.manifest), files=files)
    bundle.send(ready)
    health = ready.call("activate", **bundle.request()).result["health"]
    assert health["golden"]["mismatches"] == 0
    answered = ready.call("infer", kit.npz(input_0=steps), model="rnn", sequence=True, outputs=True).result
    np.testing.assert_allclose(answered["outputs"], expected, **close)
    with Runtime("rnn", str(ready.home)) as rt:
        alone = [rt.infer(step) for step in steps]
        with rt.session() as one, rt.session() as other:
            for number, step in enumerate(steps):
                np.testing.assert_allclose(one.infer(step), expected[number], **close)
                np.testing.assert_allclose(other.infer(step), expected[number], **close)
                np.testing.assert_array_equal(rt.infer(step), alone[number])
    assert np.abs(np.stack(alone)[1:] - expected[1:]).max() > 1e-3, "the model keeps state"
