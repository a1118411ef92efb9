"""A small net with a depthwise convolution, a residual and a fully connected end, and its samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.ranges import calibrated_ranges
from edgeq_converters.data.samples import Samples, to_real
from edgeq_converters.graph import logits
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.quantization.quantize import quantize
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

from .graphs import Graph

CHANNELS = 8


def net(*, activation: int = 1, spread: float = 1.0, seed: int = 3, biased: bool = True) -> Model:
    """Return conv -> depthwise -> conv + skip -> mean -> dense -> softmax on 8x8x2 inputs.

    Args:
        activation: of the schema: 1 ReLU, 3 ReLU6.
        spread: the log of how much channels differ in size.
        biased: whether the fully connected end has a bias.
    """
    random = np.random.default_rng(seed)
    graph: Any = Graph()

    def weights(name: str, shape: tuple[int, ...], fan_in: int, size: Any = 1.0) -> int:
        values = random.normal(size=shape) / np.sqrt(fan_in) * size
        return int(graph.tensor(name, shape, values=values))

    def bias(name: str, count: int, size: Any = 1.0) -> int:
        return int(graph.tensor(name, (count,), values=random.normal(0.1, 0.2, count) * size))

    sizes = np.exp(random.normal(0, spread, CHANNELS))
    big = (1, 8, 8, CHANNELS)
    x = graph.tensor("x", (1, 8, 8, 2))
    a, b, c, d = (graph.tensor(name, big) for name in "abcd")
    conv = {"options": "Conv2DOptions", "strideH": 1, "strideW": 1}
    deep = {"options": "DepthwiseConv2DOptions", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    w = weights("w1", (CHANNELS, 3, 3, 2), 18, sizes[:, None, None, None])
    graph.op("CONV_2D", (x, w, bias("b1", CHANNELS, sizes)), (a,), fusedActivationFunction=activation, **conv)
    w = weights("w2", (1, 3, 3, CHANNELS), 9)
    graph.op(
        "DEPTHWISE_CONV_2D", (a, w, bias("b2", CHANNELS)), (b,), fusedActivationFunction=activation, **deep
    )
    w = weights("w3", (CHANNELS, 1, 1, CHANNELS), CHANNELS)
    graph.op("CONV_2D", (b, w, bias("b3", CHANNELS)), (c,), **conv)
    graph.op("ADD", (c, a), (d,), options="AddOptions", fusedActivationFunction=1)
    axes = graph.tensor("axes", (2,), dtype=np.int32, values=[1, 2])
    pooled, logits, y = (
        graph.tensor("pooled", (1, CHANNELS)),
        graph.tensor("logits", (1, 4)),
        graph.tensor("y", (1, 4)),
    )
    graph.op("MEAN", (d, axes), (pooled,), options="ReducerOptions")
    w = weights("w4", (4, CHANNELS), 2)
    read = (pooled, w, bias("b4", 4)) if biased else (pooled, w)
    graph.op("FULLY_CONNECTED", read, (logits,), options="FullyConnectedOptions")
    graph.op("SOFTMAX", (logits,), (y,), options="SoftmaxOptions", beta=1.0)
    model: Model = graph.ends([x], [y]).as_model("net")
    return model


def quiet(amount: int) -> None:
    assert amount >= 0


def samples(model: Model, count: int = 80, seed: int = 5) -> Samples:
    # Smooth in space, as inputs of convolutions are.
    coarse = np.random.default_rng(seed).normal(size=(count, 4, 4, 2)).astype(np.float32)
    return Samples(inputs=model.inputs, arrays=(np.kron(coarse, np.ones((1, 2, 2, 1), np.float32)),))


def quantized(model: Model, given: Samples, calibrator: str = "minmax") -> Model:
    histograms = observe(model, given, advance=quiet)
    ranges = calibrated_ranges(model, histograms, calibrator=calibrator)
    return quantize(model, recipe=Recipe(scheme=Scheme.INT8), ranges=ranges).model


def at_logits(model: Model, given: Samples) -> Any:
    cut = logits.cut(model).model
    return to_real(run_samples(cut, given, advance=quiet)[0], cut.outputs[0])
