"""Models of one operation each, to find out which kernels a runtime has and how fast they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph.edit import packed
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize

Shape = tuple[int, ...]


def model_of(operation: str) -> Model:
    """Return a float model of one operation, large enough that a clock measures one inference.

    Weights are random and the same in every call.

    Args:
        operation: one of PROBED_OPERATIONS.
    """
    builder = _Builder(operation)
    OPERATIONS[operation](builder)
    return normalize(Model(data=packed(builder.model), subject=operation))


class _Builder:
    """A graph of one operation under construction."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._random = np.random.default_rng(0)
        self._graph = schema.SubGraphT()
        self._graph.tensors = []
        self.model: Any = schema.ModelT()
        self.model.version, self.model.subgraphs = 3, [self._graph]
        self.model.buffers, self.model.signatureDefs = [schema.BufferT()], []

    def tensor(self, name: str, shape: Shape, values: Any = None) -> int:
        """Add a float32 tensor, or a constant in the type of its values; return its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), np.array(shape, np.int32), 0
        tensor.type = schema.TensorType.FLOAT32
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
            if np.asarray(values).dtype == np.int32:
                tensor.type = schema.TensorType.INT32
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def weights(self, shape: Shape) -> int:
        """Add weights of size one over the root of their number for each output."""
        fan_in = int(np.prod(shape[1:]))
        values = self._random.normal(size=shape) / np.sqrt(fan_in)
        return self.tensor("weights", shape, values.astype(np.float32))

    def bias(self, count: int) -> int:
        """Add a bias of zeros."""
        return self.tensor("bias", (count,), np.zeros(count, np.float32))

    def integers(self, values: Sequence[int]) -> int:
        """Add a constant of int32."""
        return self.tensor("integers", (len(values),), np.array(values, np.int32))

    def finish(self, inputs: Sequence[int], constants: Sequence[int], shape: Shape, **options: Any) -> None:
        """Add the operation with its output.

        Args:
            inputs, constants: what it reads, in this order.
            options: `table` names the table of options, the others are its fields.
        """
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, self._operation)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), options.pop("version", 1)
        operator = schema.OperatorT()
        output = self.tensor("y", shape)
        operator.opcodeIndex = 0
        operator.inputs = np.array([*inputs, *constants], np.int32)
        operator.outputs = np.array([output], np.int32)
        table = options.pop("table", None)
        if table is not None:
            operator.builtinOptions = getattr(schema, f"{table}T")()
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            for key, value in options.items():
                setattr(operator.builtinOptions, key, value)
        self.model.operatorCodes, self._graph.operators = [code], [operator]
        self._graph.inputs, self._graph.outputs = np.array(inputs, np.int32), np.array([output], np.int32)


_IMAGE = (1, 32, 32, 32)


def _convolution(builder: _Builder) -> None:
    constants = (builder.weights((32, 3, 3, 16)), builder.bias(32))
    x = builder.tensor("x", (1, 24, 24, 16))
    builder.finish((x,), constants, (1, 24, 24, 32), table="Conv2DOptions", strideH=1, strideW=1)


def _depthwise(builder: _Builder) -> None:
    constants = (builder.weights((1, 3, 3, 32)), builder.bias(32))
    x = builder.tensor("x", _IMAGE)
    table = {"table": "DepthwiseConv2DOptions", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    builder.finish((x,), constants, _IMAGE, **table)


def _dense(builder: _Builder) -> None:
    constants = (builder.weights((512, 1024)), builder.bias(512))
    builder.finish((builder.tensor("x", (1, 1024)),), constants, (1, 512), table="FullyConnectedOptions")


def _product(builder: _Builder) -> None:
    inputs = (builder.tensor("x", (1, 4, 64, 32)), builder.tensor("z", (1, 4, 32, 64)))
    builder.finish(inputs, (), (1, 4, 64, 64), table="BatchMatMulOptions")


def _pair(table: str) -> Callable[[_Builder], None]:
    def build(builder: _Builder) -> None:
        builder.finish((builder.tensor("x", _IMAGE), builder.tensor("z", _IMAGE)), (), _IMAGE, table=table)

    return build


def _single(shape: Shape, **options: Any) -> Callable[[_Builder], None]:
    return lambda builder: builder.finish((builder.tensor("x", shape),), (), shape, **options)


def _pool(builder: _Builder) -> None:
    size = {"strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    builder.finish((builder.tensor("x", _IMAGE),), (), (1, 16, 16, 32), table="Pool2DOptions", **size)


def _mean(builder: _Builder) -> None:
    axes = builder.integers((1, 2))
    builder.finish((builder.tensor("x", _IMAGE),), (axes,), (1, 32), table="ReducerOptions")


def _resize(builder: _Builder) -> None:
    size = builder.integers((64, 64))
    builder.finish((builder.tensor("x", _IMAGE),), (size,), (1, 64, 64, 32), table="ResizeBilinearOptions")


OPERATIONS: Mapping[str, Callable[[_Builder], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _product,
    "ADD": _pair("AddOptions"),
    "MUL": _pair("MulOptions"),
    "AVERAGE_POOL_2D": _pool,
    "MEAN": _mean,
    "RESIZE_BILINEAR": _resize,
    "LOGISTIC": _single(_IMAGE),
    "TANH": _single(_IMAGE),
    "HARD_SWISH": _single(_IMAGE),
    "SOFTMAX": _single((1, 64, 256), table="SoftmaxOptions", beta=1.0),
}
