"""Compares each translated operation with the runtime in one process, and prints the SQNRs as JSON.

Run as a program, so that TensorFlow stays out of pytest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import sqnr_db
from edgeq_converters.training.tflite.translation import OPERATIONS, Translation, as_units

from .graphs import Graph
from .operation_examples import IMAGE, Example, chain, of
from .operation_examples import OPERATIONS as EXAMPLES

_random = np.random.default_rng(8)
_i32 = np.int32


def _normal(*shape: int) -> Any:
    return _random.normal(size=shape).astype(np.float32)


def _conv(out: tuple[int, ...], **options: Any) -> Example:
    weights, bias = _normal(out[-1], 3, 3, options.pop("inputs_of", 8)), _normal(out[-1])
    return of("CONV_2D", weights, bias, outputs=(out,), options="Conv2DOptions", **options)


def _depthwise(out: tuple[int, ...], **options: Any) -> Example:
    weights, bias = _normal(1, 3, 3, out[-1]), _normal(out[-1])
    options = {"depthMultiplier": out[-1] // 8, **options}
    return of("DEPTHWISE_CONV_2D", weights, bias, outputs=(out,), options="DepthwiseConv2DOptions", **options)


def _embedding(graph: Graph) -> None:
    """GATHER and EMBEDDING_LOOKUP of a table of constants at integer inputs."""
    ids = graph.tensor("ids", (1, 3), dtype=_i32)
    flat, shape = graph.tensor("flat", (3,), dtype=_i32), graph.tensor("s", (1,), dtype=_i32, values=[3])
    table = graph.tensor("table", (4, 5), values=_normal(4, 5))
    rows, looked = graph.tensor("rows", (1, 3, 5)), graph.tensor("looked", (3, 5))
    graph.op("GATHER", [table, ids], [rows], options="GatherOptions")
    graph.op("RESHAPE", [ids, shape], [flat], options="ReshapeOptions")
    graph.op("EMBEDDING_LOOKUP", [flat, table], [looked])
    graph.ends([ids], [rows, looked])


def _one_hot_of_ids(graph: Graph) -> None:
    ids, depth = graph.tensor("ids", (1, 3), dtype=_i32), graph.tensor("d", (), dtype=_i32, values=4)
    on, off = graph.tensor("on", (), values=2.0), graph.tensor("off", (), values=-1.0)
    out = graph.tensor("y", (1, 3, 4))
    graph.op("ONE_HOT", [ids, depth, on, off], [out], options="OneHotOptions", axis=-1)
    graph.ends([ids], [out])


def _two_of_a_kind(kind: str, **options: Any) -> Example:
    return of(kind, inputs=(IMAGE, IMAGE), **options)


def _logical(graph: Graph) -> None:
    x, y = graph.tensor("x", IMAGE), graph.tensor("y", IMAGE)
    flags = [graph.tensor(f"flag{n}", IMAGE, dtype=np.bool_) for n in range(5)]
    low, high = graph.tensor("low", (), values=0.5), graph.tensor("high", (), values=1.5)
    graph.op("GREATER", [x, low], [flags[0]])
    graph.op("LESS", [x, high], [flags[1]])
    graph.op("LOGICAL_AND", flags[:2], [flags[2]])
    graph.op("LOGICAL_NOT", [flags[2]], [flags[3]])
    graph.op("LOGICAL_OR", [flags[3], flags[0]], [flags[4]])
    graph.op("SELECT_V2", [flags[4], x, low], [y])
    graph.ends([x], [y])


def _constant_output(graph: Graph) -> None:
    x, y = graph.tensor("x", IMAGE), graph.tensor("y", (1, 3))
    graph.op("TANH", [graph.tensor("known", (1, 3), values=_normal(1, 3))], [y])
    z = graph.tensor("z", IMAGE)
    graph.op("TANH", [x], [z])
    graph.ends([x], [z, y])


_STRIDES: dict[str, Any] = {"strideH": 1, "strideW": 1}
_POOL: dict[str, Any] = {
    "options": "Pool2DOptions",
    "filterHeight": 2,
    "filterWidth": 3,
    "strideH": 2,
    "strideW": 2,
}
_AXES = np.array([1, -2], _i32)
_MEANS: dict[str, Any] = {"options": "ReducerOptions", "keepDims": False, "outputs": ((1, 8),)}
_SLICED = (np.array([0, 3, -1, 0], _i32), np.array([1, 0, -5, 8], _i32), np.array([1, -1, -2, 1], _i32))
MORE: Mapping[str, Example] = {
    "ADD": chain(("ADD", 0, 1.5)),
    "ADD of ranks": of("ADD", inputs=(IMAGE, (6, 1)), options="AddOptions", fusedActivationFunction=3),
    "AVERAGE_POOL_2D": of("AVERAGE_POOL_2D", outputs=((1, 2, 3, 8),), **_POOL),
    "BATCH_MATMUL": of("BATCH_MATMUL", inputs=((2, 4, 6), (1, 5, 6)), outputs=((2, 4, 5),),
                       options="BatchMatMulOptions", adjY=True),
    "BROADCAST_TO": of("BROADCAST_TO", np.array([2, 3, 8], _i32), inputs=((3, 1),), outputs=((2, 3, 8),),
                       version=2),
    "CONCATENATION": of("CONCATENATION", _normal(1, 4, 6, 2), inputs=(IMAGE, IMAGE), outputs=((1, 4, 6, 18),),
                        options="ConcatenationOptions", axis=-1),
    "CONV_2D": _conv((1, 4, 6, 5), fusedActivationFunction=1, **_STRIDES),
    "CONV_2D apart": _conv((1, 4, 6, 5), dilationHFactor=2, dilationWFactor=1, **_STRIDES),
    "CONV_2D in groups": _conv((1, 4, 6, 6), inputs_of=4, **_STRIDES),
    "CONV_2D strided": _conv((1, 2, 2, 5), strideH=2, strideW=3),
    "CONV_2D valid": _conv((1, 1, 2, 5), strideH=2, strideW=2, padding=1),
    "DEPTHWISE_CONV_2D": _depthwise(IMAGE, **_STRIDES),
    "DEPTHWISE_CONV_2D strided": _depthwise((1, 4, 3, 16), strideH=1, strideW=2),
    "DEPTHWISE_CONV_2D apart": _depthwise((1, 4, 6, 8), dilationHFactor=1, dilationWFactor=2, **_STRIDES),
    "DIV": _two_of_a_kind("DIV", options="DivOptions", low=0.5),
    "EMBEDDING_LOOKUP": Example(build=_embedding, low=0, high=3),
    **{kind: _two_of_a_kind(kind, types=(np.bool_,)) for kind in ("EQUAL", "NOT_EQUAL")},
    "FULLY_CONNECTED": of("FULLY_CONNECTED", _normal(5, 8), _normal(5), inputs=((3, 8),), outputs=((3, 5),),
                          options="FullyConnectedOptions", fusedActivationFunction=1),
    "FULLY_CONNECTED in axes": of("FULLY_CONNECTED", _normal(5, 8), outputs=((1, 4, 6, 5),),
                                  options="FullyConnectedOptions", keepNumDims=True),
    "GATHER": of("GATHER", np.array([2, 0], _i32), outputs=((1, 4, 2, 8),), options="GatherOptions", axis=2),
    "GATHER_ND": of("GATHER_ND", np.array([[0, 3], [0, 1]], _i32), outputs=((2, 6, 8),)),
    "GELU": of("GELU", options="GeluOptions"),
    "GELU by TANH": of("GELU", options="GeluOptions", approximate=True),
    "HARD_SWISH": of("HARD_SWISH"),
    "LOGICAL": Example(build=_logical),
    "LOGISTIC": of("LOGISTIC"),
    "MAXIMUM": _two_of_a_kind("MAXIMUM"),
    "MAX_POOL_2D": of("MAX_POOL_2D", outputs=((1, 2, 2, 8),), **_POOL, padding=1),
    "MEAN": of("MEAN", _AXES, **_MEANS),
    "MUL": of("MUL", _normal(8), options="MulOptions", fusedActivationFunction=1),
    "ONE_HOT": Example(build=_one_hot_of_ids, low=0, high=3),
    "PACK": of("PACK", inputs=((4, 8), (4, 8)), outputs=((4, 2, 8),), options="PackOptions", axis=1,
               valuesCount=2),
    "PAD": of("PAD", np.array([[0, 0], [1, 0], [0, 2], [0, 0]], _i32), outputs=((1, 5, 8, 8),)),
    "PADV2": of("PADV2", np.array([[0, 0], [1, 0], [0, 2], [0, 0]], _i32), np.float32(1.5),
                outputs=((1, 5, 8, 8),)),
    "RELU": of("RELU"),
    "RESHAPE": of("RESHAPE", np.array([6, 32], _i32), outputs=((6, 32),), options="ReshapeOptions"),
    "RESIZE_BILINEAR by corners": of("RESIZE_BILINEAR", np.array([7, 5], _i32), outputs=((1, 7, 5, 8),),
                                     options="ResizeBilinearOptions", alignCorners=True),
    "RESIZE_NEAREST_NEIGHBOR": of("RESIZE_NEAREST_NEIGHBOR", np.array([8, 9], _i32),
                                  outputs=((1, 8, 9, 8),), options="ResizeNearestNeighborOptions",
                                  halfPixelCenters=True),
    "RSQRT": of("RSQRT", low=0.5),
    "SELECT": of("SELECT", first=_random.random(IMAGE) > 0.5, inputs=(IMAGE, IMAGE)),
    "SLICE": of("SLICE", np.array([0, 1, 2, 0], _i32), np.array([1, 2, -1, 8], _i32), outputs=((1, 2, 4, 8),),
                options="SliceOptions"),
    "SOFTMAX": of("SOFTMAX", options="SoftmaxOptions", beta=0.5),
    "SPLIT": of("SPLIT", first=_i32(3), outputs=((1, 4, 6, 4),) * 2, options="SplitOptions", numSplits=2),
    "SQRT": of("SQRT", low=0.1),
    "SQUARE": of("SQUARE"),
    "SQUARED_DIFFERENCE": _two_of_a_kind("SQUARED_DIFFERENCE"),
    "STRIDED_SLICE": of("STRIDED_SLICE", *_SLICED, outputs=((1, 3, 2, 8),), options="StridedSliceOptions"),
    "STRIDED_SLICE to one": of("STRIDED_SLICE", np.array([0, 2, 0, 0], _i32), np.array([1, 3, 6, 8], _i32),
                               np.array([1, 1, 1, 1], _i32), outputs=((1, 6, 8),),
                               options="StridedSliceOptions", shrinkAxisMask=2, endMask=4),
    "SUB": of("SUB", first=_normal(8), options="SubOptions"),
    "SUM": of("SUM", _AXES, **_MEANS),
    "TANH": of("TANH"),
    "TANH of a constant": Example(build=_constant_output),
    "TRANSPOSE": of("TRANSPOSE", np.array([3, 0, 2, 1], _i32), outputs=((8, 1, 6, 4),)),
    "TRANSPOSE_CONV": Example(build=lambda graph: _transpose_conv(graph)),
    "UNPACK": of("UNPACK", outputs=((1, 4, 8),) * 6, options="UnpackOptions", num=6, axis=2),
}  # fmt: skip


def _transpose_conv(graph: Graph) -> None:
    x, out = graph.tensor("x", IMAGE), graph.tensor("y", (1, 8, 12, 5))
    shape = graph.tensor("shape", (4,), dtype=_i32, values=[1, 8, 12, 5])
    weights, bias = (
        graph.tensor("w", (5, 3, 3, 8), values=_normal(5, 3, 3, 8)),
        graph.tensor("b", (5,), values=_normal(5)),
    )
    graph.op(
        "TRANSPOSE_CONV", [shape, weights, x, bias], [out], options="TransposeConvOptions", strideH=2,
        strideW=2, version=3,
    )  # fmt: skip
    graph.ends([x], [out])


def main() -> None:
    """Print what became of each example, and the kinds that have a translation."""
    results: dict[str, Any] = {}
    for name, example in {**EXAMPLES, **{f"{name}.": each for name, each in MORE.items()}}.items():
        results[name] = outcome(example)
    sys.stdout.write(json.dumps({"examples": results, "kinds": sorted(OPERATIONS)}))


def outcome(example: Example) -> dict[str, Any]:
    """Return what became of one example."""
    model = example.model()
    kinds = [tflite_file.op_name(model.parsed, each) for each in model.graph.operators]
    try:
        return {"kinds": kinds, **measured(model, example)}
    except ConverterError as error:
        return {"kinds": kinds, "error": str(error)}


def measured(model: Model, example: Example) -> dict[str, Any]:
    """Return the SQNR of the worst output against the runtime, and whether all gradients are finite."""
    translation = Translation(model)
    random = np.random.default_rng(1)
    # A sample fills the whole input, so that no axis counts as a batch.
    arrays = tuple(
        random.uniform(example.low, example.high, (4, *tensor.shape)).astype(tensor.dtype)
        for tensor in model.inputs
    )
    samples = Samples(inputs=model.inputs, arrays=arrays)
    interpreter = Interpreter(model)
    runs = []
    for row in range(4):
        interpreter.run([each[row] for each in arrays])
        runs.append(interpreter.results())
    inputs = [tf.constant(each) for each in as_units(samples.arrays, samples)]
    with tf.GradientTape() as tape:
        tape.watch([each for each in inputs if each.dtype == tf.float32])
        made = translation(inputs)
        total = tf.add_n([tf.reduce_sum(each) for each in made if each.dtype == tf.float32] or [0.0])
    gradients = tape.gradient(total, inputs)
    worst = min(
        sqnr_db([np.asarray(own)], [np.array(each)]) if own.shape == np.shape(each) else -999.0
        for own, each in zip(made, zip(*runs, strict=True), strict=True)
    )
    finite = all(np.isfinite(np.asarray(each)).all() for each in gradients if each is not None)
    return {"decibels": min(worst, 999.0), "finite": bool(finite)}


if __name__ == "__main__":
    main()
