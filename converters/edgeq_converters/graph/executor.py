"""A model run operation by operation over all samples, with only the tensors kept that are still needed."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, inference, tflite_file
from edgeq_converters.graph.layers import Layer

Array = npt.NDArray[Any]
_THREADS_FROM = 1 << 17
"""Values in an operation's output from which more than one thread pays."""


class Walk:
    """The frontier of a run: every tensor that is computed and still has a reader, for all samples at once.

    Arrays are (batches, *tensor shape): a model with a batch of one has the samples first and a one after it.
    A tensor is forgotten when its last reader ran, so that a chain costs the memory of two tensors.
    """

    def __init__(self, model: Any, samples: Samples, *, subject: str) -> None:
        self.model = model
        self._subject = subject
        graph = model.subgraphs[0]
        self._operators = graph.operators
        self._readers: dict[int, int] = {}
        for operator in graph.operators:
            for index in {int(i) for i in operator.inputs}:
                self._readers[index] = self._readers.get(index, 0) + 1
        for index in graph.outputs:
            self._readers[int(index)] = self._readers.get(int(index), 0) + 1
        inputs, _ = tflite_file.inputs_and_outputs(model)
        rows = [row for row, _ in inference.batches(samples, inputs)]
        self._values: dict[int, Array] = {
            int(index): np.stack([row[place] for row in rows]) for place, index in enumerate(graph.inputs)
        }
        self.position = 0

    def __len__(self) -> int:
        return len(self._operators)

    @property
    def values(self) -> Mapping[int, Array]:
        """The frontier by tensor index."""
        return self._values

    def reach(self, position: int) -> None:
        """Run all operations before `position`."""
        while self.position < position:
            self.step()

    def step(self) -> None:
        """Run the next operation as it now stands in the model.

        Raises:
            ConverterError: EQ303 when LiteRT does not run the operation alone.
        """
        self._run(self._operators[self.position])

    def step_linear(self, layer: Layer) -> Array:
        """Run the next operation, a layer, and return its outputs of before the fused activation.

        Raises:
            ConverterError: EQ303 when LiteRT does not run the operation alone.
        """
        open_ended = copy.copy(self._operators[self.position])
        open_ended.builtinOptions = copy.copy(open_ended.builtinOptions)
        open_ended.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        linear = self._run(open_ended)[0]
        if layer.target in self._values and (np.isfinite(layer.low) or np.isfinite(layer.high)):
            self._values[layer.target] = np.clip(linear, layer.low, layer.high)
        return linear

    def _run(self, operator: Any) -> list[Array]:
        data, inputs, outputs = edit.cut(self.model, operator)
        size = max(int(np.prod(self.model.subgraphs[0].tensors[i].shape)) for i in outputs)
        interpreter = _open(data, threads=_threads(size), subject=self._subject)
        sources = [detail["index"] for detail in interpreter.get_input_details()]
        targets = [detail["index"] for detail in interpreter.get_output_details()]
        fed = [self._values[i] for i in inputs]
        results: list[Array] = []
        count = len(next(iter(self._values.values()))) if not fed else len(fed[0])
        for number in range(count):
            inference.invoke(interpreter, sources, [rows[number] for rows in fed], subject=self._subject)
            found = [interpreter.get_tensor(target) for target in targets]
            if not results:
                results = [np.empty((count, *part.shape), part.dtype) for part in found]
            for into, part in zip(results, found, strict=True):
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


def _open(data: bytes, *, threads: int, subject: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise tflite_file.damaged(subject, str(error)) from error
    return interpreter
