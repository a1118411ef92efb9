"""Integer outputs whose slices have scales of their own become real values by them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from edgeq_agent import Runtime  # noqa: E402
from edgeq_agent.inference import model as models  # noqa: E402
from edgeq_agent.sdk.tensors import Drain  # noqa: E402
from tests.converters.graphs import Graph  # noqa: E402

SCALES = np.array([0.5, 0.001, 4.0], np.float32)
ZERO_POINTS = np.array([-3, 7, 0])
INPUT_SCALE = 0.25


def by_slices(shape: tuple[int, ...], axis: int) -> bytes:
    """Return a model that gives its int8 input back, with a scale for each slice of the output."""
    graph = Graph()
    x = graph.tensor("x", shape, dtype=np.int8, scale=INPUT_SCALE)
    y = graph.tensor("y", shape, dtype=np.int8)
    parameters = graph.graph.tensors[y].quantization
    parameters.scale, parameters.zeroPoint = SCALES, ZERO_POINTS.astype(np.int64)
    parameters.quantizedDimension = axis
    sizes = graph.tensor("sizes", (len(shape),), dtype=np.int32, values=shape)
    graph.op("RESHAPE", [x, sizes], [y], options="ReshapeOptions")
    return graph.ends([x], [y]).data()


def real(integers: np.ndarray, axis: int) -> np.ndarray:
    shape = [1] * integers.ndim
    shape[axis] = -1
    return np.asarray((integers.astype(np.float64) - ZERO_POINTS.reshape(shape)) * SCALES.reshape(shape))


@pytest.mark.parametrize(("shape", "axis"), [((1, 2, 3), 2), ((1, 3, 2), 1), ((1, 3), 1)])
def test_each_slice_has_its_scale(shape: tuple[int, ...], axis: int, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(by_slices(shape, axis))
    loaded = models.load("ai_edge_litert", str(path))
    (tensor,) = loaded.outputs
    assert tensor.quantized
    integers = np.random.default_rng(0).integers(-128, 128, size=shape).astype(np.int8)
    np.testing.assert_allclose(models.to_real(integers, tensor), real(integers, axis))
    many = np.concatenate([integers, integers])
    np.testing.assert_allclose(models.to_real(many, tensor), real(many, axis))
    drain = Drain(tensor)
    assert drain.info.quantized
    np.testing.assert_allclose(drain.real(integers), real(integers, axis), rtol=1e-6)
    assert drain.real(integers).dtype == np.float32


@pytest.mark.slow
def test_the_verb_and_the_sdk_give_real_values(ready: Any, kit: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(by_slices((1, 3), 1))
    samples = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32) * 8
    bundle = kit.bundle_of(path, samples, kit.reference_of(samples, classes=3, channels=3), name="sliced")
    bundle.send(ready)
    ready.call("activate", **bundle.request())
    integers = np.rint(samples / INPUT_SCALE).astype(np.int8)
    by_verb = ready.call("infer", kit.npz(input_0=samples), model="sliced", outputs=True).result["outputs"]
    np.testing.assert_allclose(by_verb, real(integers, 1), rtol=1e-6)
    with Runtime("sliced", str(ready.home), telemetry=False) as rt:
        np.testing.assert_allclose([rt.infer(each) for each in samples], real(integers, 1), rtol=1e-6)
        np.testing.assert_array_equal(rt.infer(samples[0], raw=True), integers[0])
