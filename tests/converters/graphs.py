"""Tiny .tflite graphs written tensor by tensor, for what no converter would write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph.model import Model

KINDS = {
    np.dtype(np.bool_): schema.TensorType.BOOL,
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}


@dataclass
class Graph:
    """A graph under construction; tensors and operations are added in order."""

    model: Any = field(default_factory=schema.ModelT)
    graph: Any = field(default_factory=schema.SubGraphT)

    def __post_init__(self) -> None:
        if self.model.subgraphs is None:
            self.model.version, self.model.operatorCodes = 3, []
            self.model.buffers, self.model.subgraphs = [schema.BufferT()], []
        self.model.subgraphs.append(self.graph)
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []

    def subgraph(self) -> Graph:
        """Return another graph of the same model, which operations may name by `number`."""
        return Graph(model=self.model)

    @property
    def number(self) -> int:
        """The number of the graph in the model."""
        return next(n for n, each in enumerate(self.model.subgraphs) if each is self.graph)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        *,
        dtype: Any = np.float32,
        values: Any = None,
        signature: Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
    ) -> int:
        """Add a tensor and return its index; `values` make it a constant."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = (
            name.encode(),
            np.array(shape, np.int32),
            KINDS[np.dtype(dtype)],
        )
        tensor.buffer = 0
        if signature is not None:
            tensor.shapeSignature = np.array(signature, np.int32)
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if np.dtype(dtype) == np.int8:
            parameters = schema.QuantizationParametersT()
            parameters.scale = np.atleast_1d(np.array(scale or 0.5, np.float32))
            parameters.zeroPoint = np.zeros(len(parameters.scale), np.int64)
            tensor.quantization = parameters
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Add an operation by its name in the schema, with its options; `CUSTOM x` is a custom one."""
        code = schema.OperatorCodeT()
        plain, _, custom = name.partition(" ")
        code.builtinCode = getattr(schema.BuiltinOperator, plain)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = options.pop("version", 1)
        code.customCode = custom.encode() if custom else None
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        kind = options.pop("options", None)
        if kind is not None:
            values = getattr(schema, f"{kind}T")()
            for key, value in options.items():
                assert hasattr(values, key), key
                setattr(values, key, value)
            operator.builtinOptions, operator.builtinOptionsType = (
                values,
                getattr(schema.BuiltinOptions, kind),
            )
        self.graph.operators.append(operator)

    def ends(self, inputs: Sequence[int], outputs: Sequence[int]) -> Graph:
        """Set the graph's inputs and outputs."""
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        return self

    def data(self) -> bytes:
        """Return the .tflite."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def as_model(self, subject: str = "graph") -> Model:
        """Return the .tflite as a value."""
        return Model(data=self.data(), subject=subject)
