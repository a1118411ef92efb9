"""Find the producers and readers of tensors in a graph, and insert operations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import edit, tflite_file

Array = npt.NDArray[Any]
_OPTIONS = {
    "ADD": "AddOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "RESHAPE": "ReshapeOptions",
    "SLICE": "SliceOptions",
    "SPLIT": "SplitOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SUB": "SubOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "UNPACK": "UnpackOptions",
}
"""The schema's options of the operations that a rewrite inserts."""
_VERSIONS = {"CONCATENATION": 2, "DEQUANTIZE": 5, "PACK": 2, "QUANTIZE": 2, "TRANSPOSE_CONV": 3}
"""Versions above 1: integer values, a scale per axis (DEQUANTIZE), a bias (TRANSPOSE_CONV)."""
_TYPES = {
    np.dtype(np.bool_): schema.TensorType.BOOL,
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
}


class GraphEditor:
    """The main graph of a parsed model, which rewrites change in place.

    Tensors are indices, operations the schema's OperatorT. New operations are inserted before a given one, so
    that the order of execution stays valid.
    """

    def __init__(self, parsed: Any, *, subject: str = "the model") -> None:
        self.parsed = parsed
        self.subject = subject
        self.graph = parsed.subgraphs[0]
        self._names = {tflite_file.tensor_name(tensor) for tensor in self.graph.tensors}
        self._producers: dict[int, Any] = {}
        self._readers: dict[int, list[Any]] = {}
        self.reindex()

    def reindex(self) -> None:
        """Find producers and readers again, after the list of operations changed."""
        self._producers = {i: each for each in self.operators for i in tflite_file.index_list(each.outputs)}
        self._readers = {}
        for operator in self.operators:
            for index in dict.fromkeys(tflite_file.index_list(operator.inputs)):
                self._readers.setdefault(index, []).append(operator)

    @property
    def operators(self) -> list[Any]:
        """The operations in the order of execution."""
        operators: list[Any] = self.graph.operators
        return operators

    def kind(self, operator: Any) -> str:
        """Return the kind of an operation as the schema spells it; empty for None."""
        return "" if operator is None else tflite_file.op_name(self.parsed, operator)

    def activation(self, operator: Any) -> int:
        """Return the activation that is fused into an operation; 0 for none."""
        return int(getattr(operator.builtinOptions, "fusedActivationFunction", 0) or 0)

    def producer(self, index: int, kind: str | None = None) -> Any:
        """Return the operation that computes a tensor; None if there is none, or it is of another kind."""
        operator = self._producers.get(index)
        return operator if kind is None or self.kind(operator) == kind else None

    def readers(self, index: int) -> list[Any]:
        """Return the operations that read a tensor."""
        return self._readers.get(index, [])

    def is_output(self, index: int) -> bool:
        """Return whether a tensor is an output of the graph."""
        return index in tflite_file.index_list(self.graph.outputs)

    def has_one_reader(self, index: int) -> bool:
        """Return whether exactly one operation reads a tensor, and nothing else."""
        return len(self.readers(index)) == 1 and not self.is_output(index)

    def shape(self, index: int) -> tuple[int, ...]:
        """Return a tensor's shape; empty for a scalar."""
        return tuple(tflite_file.index_list(self.graph.tensors[index].shape))

    def type_name(self, index: int) -> str:
        """Return a tensor's type as the schema spells it."""
        return tflite_file.type_name(self.graph.tensors[index])

    def name(self, index: int) -> str:
        """Return a tensor's name."""
        return tflite_file.tensor_name(self.graph.tensors[index])

    def constant(self, index: int) -> Array | None:
        """Return a constant's values; None if it is computed, given, omitted (-1), or of a rare type."""
        if index < 0 or not tflite_file.is_constant(self.parsed, self.graph.tensors[index]):
            return None
        if self.type_name(index) not in {*edit.STORED, "INT4"}:
            return None
        return edit.constant(self.parsed, self.graph.tensors[index])

    def values(self, index: int) -> Array:
        """Return a constant's values.

        Raises:
            ValueError: the tensor is not a constant, or of a rare type.
        """
        values = self.constant(index)
        if values is None:
            raise ValueError(f"{self.name(index)} is not a constant")
        return values

    def add_constant(self, name: str, values: Array) -> int:
        """Add a constant and return its index."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.parsed.buffers.append(buffer)
        index = self.add_tensor(name, values.shape, _TYPES[values.dtype])
        self.graph.tensors[index].buffer = len(self.parsed.buffers) - 1
        return index

    def add_tensor(self, name: str, shape: Sequence[int], kind: int = schema.TensorType.FLOAT32) -> int:
        """Add a tensor that an operation will compute, and return its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = self._unique(name).encode(), np.array(shape, np.int32)
        tensor.type, tensor.buffer = kind, 0
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_copy(self, tensor: Any, *, suffix: str = "") -> int:
        """Add a tensor like one of another graph, with the same buffer, and return its index."""
        copied = copy.copy(tensor)
        copied.name = self._unique(f"{tflite_file.tensor_name(tensor)}{suffix}").encode()
        self.graph.tensors.append(copied)
        return len(self.graph.tensors) - 1

    def rename(self, index: int, name: str) -> None:
        """Give a tensor another name, and free its own."""
        self._names.discard(self.name(index))
        self.graph.tensors[index].name = self._unique(name).encode()

    def require_version(self, kind: str) -> None:
        """Let the operations of a kind have the version that rewrites need."""
        self._code(kind)

    def _unique(self, name: str) -> str:
        number, unique = 1, name
        while unique in self._names:
            number, unique = number + 1, f"{name}#{number}"
        self._names.add(unique)
        return unique

    def insert(
        self, before: Any, kind: str, inputs: Sequence[int], output: int | Sequence[int], **options: Any
    ) -> Any:
        """Insert an operation before another operation, and return it.

        Args:
            options: fields of the schema's options of this kind.
        """
        operator = self.operation(kind, inputs, output, **options)
        self.operators.insert(_position(self.operators, before), operator)
        self.reindex()
        return operator

    def append(self, kind: str, inputs: Sequence[int], output: int, **options: Any) -> Any:
        """Add an operation with one output at the end, and return it; the arguments are those of `insert`."""
        operator = self.operation(kind, inputs, output, **options)
        self.operators.append(operator)
        self.reindex()
        return operator

    def operation(self, kind: str, inputs: Sequence[int], output: int | Sequence[int], **options: Any) -> Any:
        """Return an operation that is not yet in the graph; the arguments are those of `insert`."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(kind)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.atleast_1d(output).astype(np.int32)
        name = _OPTIONS.get(kind)
        if name is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            operator.builtinOptions = getattr(schema, f"{name}T")()
            for field, value in options.items():
                setattr(operator.builtinOptions, field, value)
        return operator

    def replace(self, operator: Any, kind: str, inputs: Sequence[int], **options: Any) -> None:
        """Compute the one output of an operation by another operation, at the same place."""
        self.insert(operator, kind, inputs, int(operator.outputs[0]), **options)
        self.operators.pop(_position(self.operators, operator))
        self.reindex()

    def position(self, operator: Any) -> int:
        """Return the place of an operation in the order of execution."""
        return _position(self.operators, operator)

    def first(self, operators: Iterable[Any]) -> Any:
        """Return the one of some operations that is executed first."""
        return min(operators, key=self.position)

    def remove(self, operator: Any) -> None:
        """Take an operation out; call `reindex` after the last change."""
        self.operators.pop(self.position(operator))

    def redirect(self, old: int, new: int) -> None:
        """Let every operation and output that reads one tensor read another one."""
        for operator in self.readers(old):
            operator.inputs = np.array(
                [new if i == old else i for i in tflite_file.index_list(operator.inputs)], np.int32
            )
        self.graph.outputs = np.array(
            [new if i == old else i for i in tflite_file.index_list(self.graph.outputs)], np.int32
        )
        for signature in self.parsed.signatureDefs or []:
            if signature.subgraphIndex == 0:
                for entry in signature.outputs or []:
                    entry.tensorIndex = new if int(entry.tensorIndex) == old else entry.tensorIndex
        self.reindex()

    def make_constant(self, index: int, values: Array) -> None:
        """Turn a computed tensor into a constant, and drop the operation that computed it."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.parsed.buffers.append(buffer)
        tensor = self.graph.tensors[index]
        tensor.buffer, tensor.shape = len(self.parsed.buffers) - 1, np.array(values.shape, np.int32)
        tensor.shapeSignature = None
        producer = self.producer(index)
        if producer is not None:
            self.operators.pop(_position(self.operators, producer))
        self.reindex()

    def _code(self, kind: str) -> int:
        number, version = getattr(schema.BuiltinOperator, kind), _VERSIONS.get(kind, 1)
        for index, code in enumerate(self.parsed.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                code.version = max(code.version, version)
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.version = version
        self.parsed.operatorCodes.append(code)
        return len(self.parsed.operatorCodes) - 1


def _position(operators: Sequence[Any], operation: Any) -> int:
    return next(position for position, operator in enumerate(operators) if operator is operation)
