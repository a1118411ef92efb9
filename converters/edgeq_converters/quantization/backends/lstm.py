"""The integer form of fused LSTMs, and the ranges of their cells.

8-bit weights, biases of 32 bits, a 16-bit cell whose scale is a power of two (the kernel requires it), and an
output that is also the state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.calibration.ranges import Ranges, TensorRange
from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.interpreter import Interpreter, batches
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.quantization import per_axis

KINDS = frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM"})
_INPUTS = 24
_OF_INPUT, _OF_STATE = range(1, 5), range(5, 9)
_PEEPHOLES, _BIASES = range(9, 12), range(12, 16)
_PROJECTION, _PROJECTION_BIAS, _STATE, _CELL = 16, 17, 18, 19
_NORMALIZATIONS = range(20, 24)
_CELL_BITS = 15
BITS = 8
"""Of the inputs and outputs: the kernel has no 16-bit form."""


def is_plain(editor: GraphEditor, operator: Any) -> bool:
    """Return whether an LSTM has constant weights, and none of peepholes, projection and normalization."""
    inputs = _inputs(operator)
    if any(inputs[i] >= 0 for i in (*_PEEPHOLES, _PROJECTION, _PROJECTION_BIAS, *_NORMALIZATIONS)):
        return False
    given = [inputs[i] for i in (*_OF_INPUT, *_OF_STATE, *_BIASES) if inputs[i] >= 0]
    return all(editor.constant(i) is not None and editor.type_name(i) == "FLOAT32" for i in given)


def cell_name(editor: GraphEditor, operator: Any) -> str:
    """Return the name of the variable tensor that is the cell, under which `inner_ranges` gives its range."""
    return editor.name(_inputs(operator)[_CELL])


def write(
    editor: GraphEditor,
    operator: Any,
    *,
    source: int,
    scale: float,
    output: tuple[float, int],
    cell: TensorRange,
) -> None:
    """Give a plain LSTM integer inputs, weights and state.

    Args:
        source: the integer tensor of its inputs.
        scale: of this tensor.
        output: the scale of its output.
        cell: the range of its cell.
    """
    inputs = _inputs(operator)
    inputs[0] = source
    steps: dict[int, float] = {}
    for place in (*_OF_INPUT, *_OF_STATE):
        if inputs[place] >= 0:
            inputs[place], steps[place] = _weights(editor, inputs[place])
    for gate, place in enumerate(_BIASES):
        if inputs[place] >= 0:
            inputs[place] = _bias(editor, inputs[place], scale * steps[_OF_INPUT[gate]])
    kind = schema.TensorType.INT8
    inputs[_STATE] = _variable(editor, inputs[_STATE], kind, output)
    largest = max(abs(float(cell.low.ravel()[0])), abs(float(cell.high.ravel()[0])), 1e-6)
    power = int(np.ceil(np.log2(largest)))
    inputs[_CELL] = _variable(
        editor, inputs[_CELL], schema.TensorType.INT16, (2.0 ** (power - _CELL_BITS), 0)
    )
    operator.inputs = np.array(inputs, np.int32)
    operator.intermediates = []
    for gate in range(4):
        operator.intermediates.append(editor.add_tensor(f"{editor.name(source)}.gate{gate}", ()))
    hidden = editor.add_tensor(f"{editor.name(source)}.hidden", (), kind)
    editor.graph.tensors[hidden].quantization = per_axis.scales(*output)
    operator.intermediates.append(hidden)
    editor.reindex()


def _inputs(operator: Any) -> list[int]:
    given = tflite_file.index_list(operator.inputs)
    return given + [-1] * (_INPUTS - len(given))


def _weights(editor: GraphEditor, index: int) -> tuple[int, float]:
    values = editor.values(index)
    step = max(float(np.abs(values).max()), 1e-9) / 127
    made = editor.add_constant(f"{editor.name(index)}.q", np.rint(values / step).astype(np.int8))
    editor.graph.tensors[made].quantization = per_axis.scales(step, 0)
    return made, float(np.float32(step))


def _bias(editor: GraphEditor, index: int, step: float) -> int:
    values = editor.values(index)
    whole = np.clip(np.rint(values.astype(np.float64) / step), -(2**31) + 1, 2**31 - 1)
    made = editor.add_constant(f"{editor.name(index)}.q", whole.astype(np.int32))
    editor.graph.tensors[made].quantization = per_axis.scales(step, 0)
    return made


def _variable(editor: GraphEditor, index: int, kind: int, scale: tuple[float, int]) -> int:
    made = editor.add_tensor(f"{editor.name(index)}.q", editor.shape(index), kind)
    tensor = editor.graph.tensors[made]
    tensor.isVariable, tensor.quantization = True, per_axis.scales(*scale)
    return made


def inner_ranges(model: Model, samples: Samples) -> Ranges:
    """Return the range of each fused LSTM's cell over the samples, by the name of the cell's tensor.

    The LSTM runs alone, one time step after another, because its cell can be read between runs only.

    Args:
        model: a normalized float model.

    Raises:
        ConverterError: EQ303 the model does not run.
    """
    editor = GraphEditor(model.parsed, subject=model.subject)
    fused = [each for each in editor.operators if editor.kind(each) in KINDS]
    if not fused:
        return {}
    whole = Interpreter(model, every_tensor=True)
    steppers = [_Stepper(model, each) for each in fused]
    for number, (rows, _) in enumerate(batches(samples, model.inputs)):
        first = samples.begins_at(number)
        if first:
            whole.reset()
        whole.run(rows)
        for stepper in steppers:
            stepper.run(whole.tensor(stepper.source), first=first)
    return {each.cell: TensorRange.per_tensor(each.low, each.high) for each in steppers}


class _Stepper:
    """One LSTM as a model of one time step, and the extremes of its cell."""

    def __init__(self, model: Model, operator: Any) -> None:
        editor = GraphEditor(model.parsed)
        self.source = int(operator.inputs[0])
        self.cell = cell_name(editor, operator)
        self.low = self.high = 0.0
        options = operator.builtinOptions
        self._time = 0 if options is not None and options.timeMajor else 1
        part, _, _ = edit.extract_operation(model, operator)
        step = Editor(part)
        graph = step.parsed.subgraphs[0]
        names = [tflite_file.tensor_name(tensor) for tensor in graph.tensors]
        variables = [number for number, tensor in enumerate(graph.tensors) if tensor.isVariable]
        graph.inputs = np.array([i for i in graph.inputs if int(i) not in variables], np.int32)
        for index in (*graph.inputs, *graph.outputs):
            shape = tflite_file.index_list(graph.tensors[int(index)].shape)
            shape[self._time] = 1
            graph.tensors[int(index)].shape = np.array(shape, np.int32)
            graph.tensors[int(index)].shapeSignature = None
        self._index = names.index(self.cell)
        self._interpreter = Interpreter(step.pack(), every_tensor=True)

    def run(self, values: Any, *, first: bool) -> None:
        if first:
            self._interpreter.reset()
        for step in np.split(values, values.shape[self._time], axis=self._time):
            self._interpreter.run([step])
            cell = self._interpreter.tensor(self._index)
            self.low, self.high = min(self.low, float(cell.min())), max(self.high, float(cell.max()))
