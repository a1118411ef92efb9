"""Run a model operation by operation over all samples, keeping only the tensors that are still read."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import batching, edit, tflite_file
from edgeq_converters.graph.interpreter import Interpreter, batches
from edgeq_converters.graph.layers import Layer
from edgeq_converters.graph.model import HasGraph, Model

Array = npt.NDArray[Any]
_THREADS_FROM = 1 << 17
"""Values in an operation's output from which more than one thread pays."""
_SHARED = 1 << 16
"""Values of an operation's output, over a batch, up to which equal operations share what runs them."""
_RUNNERS_BYTES = 32 << 20
"""Bytes of the models that are kept to be shared."""
BATCH_VALUES = 1 << 20
"""Values of an operation's output that are computed in one run: a few megabytes, which caches hold."""


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
        self._runners: dict[tuple[Any, ...], tuple[Runner, int]] = {}

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
        tensors = self.parsed.subgraphs[0].tensors
        size = sum(int(np.prod(tensors[int(i)].shape)) for i in operator.outputs)
        count = len(next(iter(self._values.values())))
        batch = min(count, max(BATCH_VALUES // max(size, 1), 1))
        if batch > 1 and not batching.is_possible(self.parsed, [operator]):
            batch = 1
        runner, inputs, outputs = self._runner(operator, size, batch)
        results = runner.run([self._values[i] for i in inputs], count=count)
        for index, result in zip(outputs, results, strict=True):
            if self._readers.get(index):
                self._values[index] = result
        for index in {int(i) for i in operator.inputs}:
            self._readers[index] -= 1
            if not self._readers[index]:
                self._values.pop(index, None)
        self.position += 1
        return results

    def _runner(
        self, operator: Any, size: int, batch: int
    ) -> tuple[Runner, tuple[int, ...], tuple[int, ...]]:
        """Return (what runs an operation, its inputs, its outputs).

        Small operations that a recurrent layer repeats for each step share one.
        """
        key = _key(self.parsed, operator, batch) if size * batch <= _SHARED else ()
        if key in self._runners:
            return self._runners[key][0], *edit.ends_of(self._source, operator)
        model, inputs, outputs = edit.extract_operation(self._source, operator, batch=batch)
        runner = Runner(model, threads=_threads(size * batch), batch=batch)
        if key:
            self._runners[key] = runner, len(model.data)
            while sum(each for _, each in self._runners.values()) > _RUNNERS_BYTES:
                self._runners.pop(next(iter(self._runners)))
        return runner, inputs, outputs


def _key(parsed: Any, operator: Any, batch: int) -> tuple[Any, ...]:
    """Return what decides the result of an operation beside its inputs: equal keys, equal operations."""
    graph = parsed.subgraphs[0]
    indices = tflite_file.index_list(operator.inputs)
    tensors: list[Any] = []
    for index in [*indices, *tflite_file.index_list(operator.outputs)]:
        if index < 0:
            tensors.append(None)
            continue
        tensor = graph.tensors[index]
        scales = tensor.quantization
        constant = tflite_file.is_constant(parsed, tensor)
        tensors.append(
            (
                # The values themselves: a later change of a constant makes another array of it.
                _Same(parsed.buffers[tensor.buffer].data)
                if constant
                else indices.index(index)
                if index in indices
                else -1,
                int(tensor.type),
                bool(tensor.isVariable),
                _value(tensor.shape),
                None if scales is None else tuple(_value(each) for each in vars(scales).values()),
            )
        )
    options = operator.builtinOptions
    return (
        batch,
        int(operator.opcodeIndex),
        _value(operator.customOptions),
        None if options is None else tuple((name, _value(each)) for name, each in vars(options).items()),
        len(indices),
        *tensors,
    )


def _value(given: Any) -> Any:
    if given is None or isinstance(given, (int, float, bytes, str)):
        return given
    return np.asarray(given).tobytes() if not hasattr(given, "__dict__") else _Same(given)


class _Same:
    """A value that equals only itself, and that is kept as long as it is compared."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


class Runner:
    """Runs a part of a graph on all samples, as many at a time as its batch."""

    def __init__(self, part: Model, *, threads: int, batch: int = 1) -> None:
        self._interpreter = Interpreter(part, threads=threads)
        self._batch = batch

    def run(self, arguments: Sequence[Array], *, count: int) -> list[Array]:
        """Return the outputs, each of shape (count, *tensor shape of one sample).

        Args:
            arguments: (count, *tensor shape of one sample) of each input.
            count: samples; a part without inputs computes from constants alone.
        """
        results: list[Array] = []
        for start in range(0, count, self._batch):
            rows = [array[start : start + self._batch] for array in arguments]
            stop = min(start + self._batch, count)
            self._interpreter.run([self._joined(each) for each in rows])
            outputs = self._interpreter.results()
            if self._batch > 1:
                outputs = [part[: stop - start, None] for part in outputs]
            else:
                outputs = [part[None] for part in outputs]
            if stop - start == count:
                return outputs
            if not results:
                results = [np.empty((count, *part.shape[1:]), part.dtype) for part in outputs]
            for into, part in zip(results, outputs, strict=True):
                into[start:stop] = part
        return results

    def _joined(self, rows: Array) -> Array:
        if self._batch == 1:
            first: Array = rows[0]
            return first
        joined = rows.reshape(len(rows), *rows.shape[2:])
        missing = self._batch - len(rows)
        return np.concatenate([joined, np.repeat(joined[-1:], missing, axis=0)]) if missing else joined


def _threads(size: int) -> int:
    return min(os.cpu_count() or 1, 4) if size >= _THREADS_FROM else 1
