"""Run a model operation by operation over all samples, keeping only the tensors that are still read."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.interpreter import Interpreter, batches
from edgeq_converters.graph.layers import Layer
from edgeq_converters.graph.model import HasGraph

Array = npt.NDArray[Any]
_THREADS_FROM = 1 << 17
"""Values in an operation's output from which more than one thread pays."""


class Executor:
    """A run of the main graph that stops after each operation, for all samples at once.

    Its values are those of every tensor that is computed and still has a reader. Arrays are
    (batches, *tensor shape): with a batch of one, the samples come first and a dimension of one follows. A
    tensor is dropped after its last reader, so that a chain of operations needs the memory of two tensors.
    """

    def __init__(self, source: HasGraph, samples: Samples) -> None:
        """Start before the first operation.

        Args:
            source: an editor may change operations that have not run yet.
            samples: for the inputs of the graph.
        """
        self.parsed = source.parsed
        self._source = source
        graph = self.parsed.subgraphs[0]
        self._operators = graph.operators
        self._readers: dict[int, int] = {}
        for operator in graph.operators:
            for index in {int(i) for i in operator.inputs}:
                self._readers[index] = self._readers.get(index, 0) + 1
        for index in graph.outputs:
            self._readers[int(index)] = self._readers.get(int(index), 0) + 1
        inputs, _ = tflite_file.inputs_and_outputs(self.parsed)
        rows = [row for row, _ in batches(samples, inputs)]
        self._values: dict[int, Array] = {
            int(index): np.stack([row[number] for row in rows]) for number, index in enumerate(graph.inputs)
        }
        self.position = 0

    def __len__(self) -> int:
        return len(self._operators)

    @property
    def values(self) -> Mapping[int, Array]:
        """The live tensors' values by tensor index."""
        return self._values

    def advance_to(self, position: int) -> None:
        """Run all operations before `position`."""
        while self.position < position:
            self.step()

    def step(self) -> None:
        """Run the next operation as it now stands in the graph.

        Raises:
            ConverterError: EQ303 LiteRT does not run the operation on its own.
        """
        self._run(self._operators[self.position])

    def step_linear(self, layer: Layer) -> Array:
        """Run the next operation, a layer, and return its output before the fused activation.

        Raises:
            ConverterError: EQ303 LiteRT does not run the operation on its own.
        """
        linear = copy.copy(self._operators[self.position])
        linear.builtinOptions = copy.copy(linear.builtinOptions)
        linear.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        output = self._run(linear)[0]
        if layer.target in self._values and (np.isfinite(layer.low) or np.isfinite(layer.high)):
            self._values[layer.target] = np.clip(output, layer.low, layer.high)
        return output

    def _run(self, operator: Any) -> list[Array]:
        model, inputs, outputs = edit.extract_operation(self._source, operator)
        size = max(int(np.prod(self.parsed.subgraphs[0].tensors[i].shape)) for i in outputs)
        interpreter = Interpreter(model, threads=_threads(size))
        arguments = [self._values[i] for i in inputs]
        count = len(arguments[0]) if arguments else len(next(iter(self._values.values())))
        results: list[Array] = []
        for number in range(count):
            interpreter.run([rows[number] for rows in arguments])
            batch = interpreter.results()
            if not results:
                results = [np.empty((count, *part.shape), part.dtype) for part in batch]
            for into, part in zip(results, batch, strict=True):
                into[number] = part
        for index, result in zip(outputs, results, strict=True):
            if self._readers.get(index):
                self._values[index] = result
        for index in {int(i) for i in operator.inputs}:
            self._readers[index] -= 1
            if not self._readers[index]:
                self._values.pop(index, None)
        self.position += 1
        return results


def _threads(size: int) -> int:
    return min(os.cpu_count() or 1, 4) if size >= _THREADS_FROM else 1
