"""One small float graph for each operation: what the integer forms are measured and tested on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize

from .graphs import Graph

IMAGE = (1, 4, 6, 8)
_random = np.random.default_rng(6)
_i32 = np.int32


@dataclass(frozen=True, kw_only=True)
class Example:
    """A graph with float inputs.

    Attributes:
        build: adds the operations, and sets the inputs and outputs.
        low, high: of the inputs' values.
        decibels: SQNR in int8; less where steps of the function fall between two integers.
    """

    build: Callable[[Graph], None]
    low: float = -3.0
    high: float = 4.0
    decibels: float = 35.0

    def model(self) -> Model:
        graph = Graph()
        self.build(graph)
        return normalize(graph.as_model())


def of(
    kind: str,
    *constants: Any,
    inputs: Sequence[Sequence[int]] = (IMAGE,),
    outputs: Sequence[Sequence[int]] = (IMAGE,),
    types: Sequence[Any] = (),
    first: Any = None,
    low: float = -3.0,
    high: float = 4.0,
    decibels: float = 35.0,
    **options: Any,
) -> Example:
    """Return the example of one operation on the inputs, and on constants after them or (`first`) before."""

    def build(graph: Graph) -> None:
        values = [graph.tensor(f"x{n}", shape) for n, shape in enumerate(inputs)]
        held = [
            graph.tensor(f"c{n}", each.shape, dtype=each.dtype, values=each)
            for n, each in enumerate(map(np.asarray, constants))
        ]
        before = []
        if first is not None:
            before = [graph.tensor("first", np.shape(first), dtype=np.asarray(first).dtype, values=first)]
        ends = [
            graph.tensor(f"y{n}", shape, dtype=types[n] if n < len(types) else np.float32)
            for n, shape in enumerate(outputs)
        ]
        graph.op(kind, [*before, *values, *held], ends, **options)
        graph.ends(values, ends)

    return Example(build=build, low=low, high=high, decibels=decibels)


def chain(*steps: tuple[Any, ...], low: float = -3.0, high: float = 4.0, decibels: float = 35.0) -> Example:
    """Return an example of several operations on images.

    Args:
        steps: (kind, inputs): each input is the number of an earlier tensor (0 is the graph's input) or a
            constant.
    """

    def build(graph: Graph) -> None:
        tensors = [graph.tensor("x", IMAGE)]
        for number, (kind, *inputs) in enumerate(steps):
            read = [
                tensors[each] if isinstance(each, int) else graph.tensor(f"c{number}.{n}", (), values=each)
                for n, each in enumerate(inputs)
            ]
            dtype = np.bool_ if kind in {"GREATER", "LESS"} else np.float32
            tensors.append(graph.tensor(f"t{number}", IMAGE, dtype=dtype))
            graph.op(kind, read, [tensors[-1]])
        graph.ends(tensors[:1], tensors[-1:])

    return Example(build=build, low=low, high=high, decibels=decibels)


def _one_hot(graph: Graph) -> None:
    ids = graph.tensor("ids", (3,), dtype=_i32, values=[1, 0, 2])
    depth = graph.tensor("depth", (), dtype=_i32, values=4)
    on, off = graph.tensor("x", ()), graph.tensor("off", (), values=0.0)
    out = graph.tensor("y", (3, 4))
    graph.op("ONE_HOT", [ids, depth, on, off], [out], options="OneHotOptions", axis=-1)
    graph.ends([on], [out])


_TWO: dict[str, Any] = {"inputs": (IMAGE, IMAGE)}
_LAST: dict[str, Any] = {"outputs": ((1, 4, 6, 1),), "options": "ReducerOptions", "keepDims": True}
_ROWS: dict[str, Any] = {"inputs": ((4, 8),)}
_PADS = np.array([[0, 0], [1, 1], [1, 2], [0, 0]], _i32)
_BLOCK = (np.array([2, 2], _i32), np.zeros((2, 2), _i32))
_BOOL: dict[str, Any] = {**_TWO, "types": (np.bool_,), "decibels": 15.0}
_MASK = _random.random(IMAGE) > 0.5

OPERATIONS: Mapping[str, Example] = {
    **{kind: of(kind) for kind in ("ABS", "ELU", "NEG", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1")},
    **{kind: of(kind) for kind in ("COS", "SIN")},
    **{kind: of(kind, decibels=20.0) for kind in ("CEIL", "FLOOR", "ROUND", "SIGN")},
    "ADD_N": of("ADD_N", **_TWO),
    "ARG_MAX": of("ARG_MAX", _i32(3), outputs=((1, 4, 6),), types=(_i32,), decibels=15.0,
                  options="ArgMaxOptions", outputType=2),
    "ARG_MIN": of("ARG_MIN", _i32(3), outputs=((1, 4, 6),), types=(_i32,), decibels=15.0,
                  options="ArgMinOptions", outputType=2),
    "BATCH_MATMUL": of("BATCH_MATMUL", _random.normal(size=(2, 6, 5)).astype(np.float32),
                       inputs=((2, 4, 6),), outputs=((2, 4, 5),), options="BatchMatMulOptions"),
    "BATCH_TO_SPACE_ND": of("BATCH_TO_SPACE_ND", *_BLOCK, inputs=((4, 2, 3, 8),)),
    "CAST": of("CAST", types=(_i32,), decibels=20.0),
    "CUMSUM": of("CUMSUM", _i32(2), options="CumsumOptions"),
    "DEPTH_TO_SPACE": of("DEPTH_TO_SPACE", outputs=((1, 8, 12, 2),),
                         options="DepthToSpaceOptions", blockSize=2),
    "DILATE": of("DILATE", np.array([2, 2], _i32), np.float32(0), inputs=((3, 4),), outputs=((5, 7),)),
    "EXP": of("EXP"),
    "EXPAND_DIMS": of("EXPAND_DIMS", _i32(0), outputs=((1, *IMAGE),)),
    "FILL": of("FILL", first=np.array([3, 4], _i32), inputs=((),), outputs=((3, 4),)),
    **{kind: of(kind, **_BOOL) for kind in ("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")},
    "L2_NORMALIZATION": of("L2_NORMALIZATION", options="L2NormOptions"),
    "L2_POOL_2D": of("L2_POOL_2D", outputs=((1, 2, 3, 8),), options="Pool2DOptions", filterHeight=2,
                     filterWidth=2, strideH=2, strideW=2, padding=1),
    "LEAKY_RELU": of("LEAKY_RELU", options="LeakyReluOptions", alpha=0.2),
    "LOCAL_RESPONSE_NORMALIZATION": of(
        "LOCAL_RESPONSE_NORMALIZATION", options="LocalResponseNormalizationOptions", radius=2, bias=1.0,
        alpha=0.5, beta=0.5,
    ),
    "LOG": of("LOG", low=0.5, high=9.0),
    "LOG_SOFTMAX": of("LOG_SOFTMAX"),
    "MATRIX_DIAG": of("MATRIX_DIAG", inputs=((2, 4),), outputs=((2, 4, 4),)),
    "MAXIMUM": of("MAXIMUM", np.float32(0.5)),
    "MINIMUM": of("MINIMUM", np.float32(0.5)),
    "MINIMUM of two": of("MINIMUM", **_TWO),
    "MIRROR_PAD": of("MIRROR_PAD", _PADS, outputs=((1, 6, 9, 8),), options="MirrorPadOptions"),
    "ONE_HOT": Example(build=_one_hot),
    "POW": of("POW", np.float32(1.7), low=0.1, high=3.0),
    "PRELU": of("PRELU", _random.uniform(0, 0.5, (1, 1, 8)).astype(np.float32)),
    **{f"REDUCE_{kind}": of(f"REDUCE_{kind}", np.array([3], _i32), **_LAST) for kind in ("MAX", "MIN")},
    "REDUCE_PROD": of("REDUCE_PROD", np.array([3], _i32), low=0.7, high=1.3, **_LAST),
    "RESIZE_BILINEAR": of("RESIZE_BILINEAR", np.array([8, 12], _i32), outputs=((1, 8, 12, 8),),
                          options="ResizeBilinearOptions", halfPixelCenters=True),
    "REVERSE_SEQUENCE": of("REVERSE_SEQUENCE", np.array([3, 5], _i32), inputs=((2, 6, 8),),
                           outputs=((2, 6, 8),), options="ReverseSequenceOptions", seqDim=1),
    "REVERSE_V2": of("REVERSE_V2", np.array([1, 2], _i32)),
    "SCATTER_ND": of("SCATTER_ND", np.array([5, 8], _i32), first=np.array([[1], [3]], _i32),
                     inputs=((2, 8),), outputs=((5, 8),)),
    "SEGMENT_SUM": of("SEGMENT_SUM", np.array([0, 0, 1, 1], _i32), **_ROWS, outputs=((2, 8),)),
    "SELECT_V2": of("SELECT_V2", first=_MASK, **_TWO),
    "SPACE_TO_BATCH_ND": of("SPACE_TO_BATCH_ND", *_BLOCK, outputs=((4, 2, 3, 8),)),
    "SPACE_TO_DEPTH": of("SPACE_TO_DEPTH", outputs=((1, 2, 3, 32),),
                         options="SpaceToDepthOptions", blockSize=2),
    "SPLIT_V": of("SPLIT_V", np.array([3, 5], _i32), _i32(3), outputs=((1, 4, 6, 3), (1, 4, 6, 5)),
                  options="SplitVOptions", numSplits=2),
    "SQUEEZE": of("SQUEEZE", outputs=((4, 6, 8),), options="SqueezeOptions", squeezeDims=[0]),
    "TILE": of("TILE", np.array([1, 2, 1, 1], _i32), outputs=((1, 8, 6, 8),)),
    "TOPK_V2": of("TOPK_V2", _i32(3), **_ROWS, outputs=((4, 3), (4, 3)), types=(np.float32, _i32),
                  decibels=15.0, options="TopKV2Options"),
    "softplus": chain(("EXP", 0), ("ADD", 1, 1.0), ("LOG", 2), low=-20.0, high=20.0),
    "softplus with a limit": chain(
        ("EXP", 0), ("ADD", 1, 1.0), ("LOG", 2), ("GREATER", 0, 14.0), ("SELECT_V2", 4, 0, 3),
        low=-20.0, high=20.0,
    ),
    "mish": chain(("EXP", 0), ("ADD", 1, 1.0), ("LOG", 2), ("TANH", 3), ("MUL", 4, 0), low=-8.0, high=8.0),
    "wide exponential": chain(("EXP", 0), ("ADD", 1, 1.0), ("DIV", 1, 2), low=-20.0, high=20.0),
    "logarithm of magnitudes": chain(("ABS", 0), ("ADD", 1, 1e-3), ("LOG", 2), decibels=20.0),
    "mask": chain(("GREATER", 0, 0.5), ("CAST", 1), ("MUL", 2, 0), decibels=25.0),
}  # fmt: skip
"""By kind, or by a name for several operations."""
