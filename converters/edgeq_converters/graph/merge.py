"""Put several models beside each other into one, as independent parts of one graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import packed
from edgeq_converters.graph.model import Model


def merged(models: Mapping[str, Model], *, subject: str) -> Model:
    """Return one model that computes all of them, with their inputs and outputs in order.

    Args:
        models: of one subgraph each, by names; the tensors are then called `<name>_<tensor>`.
    """
    graph, into = schema.SubGraphT(), schema.ModelT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
    into.version, into.subgraphs, into.operatorCodes = 3, [graph], []
    into.buffers, into.signatureDefs = [schema.BufferT()], []
    for name, model in models.items():
        _add(into, tflite_file.copied(model.parsed), name, [each.name for each in model.inputs])
    graph.inputs, graph.outputs = np.array(graph.inputs, np.int32), np.array(graph.outputs, np.int32)
    return Model(data=packed(into), subject=subject)


def _add(into: Any, part: Any, name: str, inputs: list[str]) -> None:
    graph, source = into.subgraphs[0], part.subgraphs[0]
    first_tensor, first_code, first_buffer = len(graph.tensors), len(into.operatorCodes), len(into.buffers)
    for index, given in zip(source.inputs, inputs, strict=True):
        source.tensors[int(index)].name = given.encode()
    for tensor in source.tensors:
        tensor.name = f"{name}_{tflite_file.tensor_name(tensor)}".encode()
        tensor.buffer += first_buffer
    for operator in source.operators:
        operator.opcodeIndex += first_code
        operator.inputs, operator.outputs = (
            np.array([index + first_tensor if index >= 0 else index for index in indices], np.int32)
            for indices in (operator.inputs, operator.outputs)
        )
    into.operatorCodes += part.operatorCodes
    into.buffers += part.buffers
    graph.tensors += source.tensors
    graph.operators += source.operators
    graph.inputs += [int(index) + first_tensor for index in source.inputs]
    graph.outputs += [int(index) + first_tensor for index in source.outputs]
