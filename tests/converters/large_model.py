"""Writes a float .tflite of any size, a chain of dense layers, without TensorFlow and without much memory."""

from __future__ import annotations

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

WIDTH = 2048


def write_large(path: Path, *, layers: int, seed: int = 0) -> int:
    """Write a chain of `layers` dense layers of WIDTH x WIDTH weights (16 MiB each); return the size."""
    random = np.random.default_rng(seed)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, b"large"
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    model.operatorCodes = [code]
    model.buffers = [schema.BufferT()]
    graph.name, graph.tensors, graph.operators = b"main", [_tensor(b"x", [1, WIDTH], 0)], []
    for layer in range(layers):
        buffer = schema.BufferT()
        weights = random.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH))
        buffer.data = weights.reshape(-1).view(np.uint8)
        model.buffers.append(buffer)
        graph.tensors.append(_tensor(b"weights_%d" % layer, [WIDTH, WIDTH], len(model.buffers) - 1))
        graph.tensors.append(_tensor(b"y_%d" % layer, [1, WIDTH], 0))
        operator, options = schema.OperatorT(), schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        operator.opcodeIndex = 0
        operator.inputs = [2 * layer, 2 * layer + 1, -1]
        operator.outputs = [2 * layer + 2]
        operator.builtinOptionsType, operator.builtinOptions = (
            schema.BuiltinOptions.FullyConnectedOptions,
            options,
        )
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [2 * layers]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path.stat().st_size


def _tensor(name: bytes, shape: list[int], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, np.array(shape, np.int32), buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


if __name__ == "__main__":
    write_large(Path(sys.argv[1]), layers=18)
