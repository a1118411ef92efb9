"""The translated function with the grids of an integer file: what training with fake quantization runs.

The grids are read from the file that a plain conversion of the same model makes: which tensors it holds as
int8, which weights as int4, per channel or not, and which tensors share a scale. So the student has the noise
of that file, with its corrected weights and its ranges as the starting point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.calibration.scale_groups import scale_groups
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.training.qat import fake_quant
from edgeq_converters.training.qat.fake_quant import LearnedRange, LearnedRatio
from edgeq_converters.training.tflite.trained_constants import Place, TrainedConstant
from edgeq_converters.training.tflite.translation import Translation

Array = npt.NDArray[Any]
FIXED = frozenset({"L2_NORMALIZATION", "LOGISTIC", "LOG_SOFTMAX", "SOFTMAX", "TANH"})
"""Kinds of operations whose integer kernels fix the scale of the output."""
_SPEED = 50.0
"""Steps of the grid that a weight moves for a change of its variable by one."""
_WEIGHTS = {"INT8": 8, "INT4": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How a constant is quantized.

    Attributes:
        over: the axes that share a scale.
        symmetric: whether the zero point is 0.
    """

    bits: int
    over: tuple[int, ...]
    symmetric: bool

    def steps(self, values: Array) -> Array:
        """Return the step of each channel, in an array that broadcasts over the values."""
        if self.symmetric:
            widest = np.abs(values).max(axis=self.over, keepdims=True)
            return np.asarray(widest / float(2 ** (self.bits - 1) - 1))
        width = max(float(values.max()), 0.0) - min(float(values.min()), 0.0)
        return np.full((1,) * values.ndim, width / 255.0, values.dtype)

    def rounded(self, values: Any, ratio: Any = 1.0) -> Any:
        """Return the values on the grid, with a straight-through gradient."""
        import keras

        ops = keras.ops
        if self.symmetric:
            return fake_quant.weights(values, over=self.over, bits=self.bits, ratio=ratio)
        low = ops.stop_gradient(ops.minimum(ops.min(values), 0.0))
        high = ops.stop_gradient(ops.maximum(ops.max(values), 0.0))
        return fake_quant.activations(values, low, ops.maximum(high, low + 1e-9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grids:
    """The grids of an integer file, by tensor index of the prepared float graph.

    Attributes:
        constants: of constants.
        converted: the values of constants in the integer file.
        groups: {tensor: key of the range that it shares}; a key is a number.
        ranges: {key: (low, high)}.
        fixed: ranges that a kernel fixes.
    """

    constants: Mapping[int, Grid]
    converted: Mapping[int, Array]
    groups: Mapping[int, int]
    ranges: Mapping[int, tuple[float, float]]
    fixed: Mapping[int, tuple[float, float]]


def grids_of(prepared: Model, integer: Model, *, except_for: frozenset[int] = frozenset()) -> Grids:
    """Return the grids of an integer file that was made of a prepared model.

    Args:
        except_for: tensors whose values the conversion scales, so that its grids are not theirs.
    """
    tensors = {tflite_file.tensor_name(each): each for each in integer.graph.tensors}

    def integer_form(name: str) -> Any:
        for candidate in (name, f"{name}_quantized", f"{name}.q"):
            tensor = tensors.get(candidate)
            if tensor is None or tflite_file.type_name(tensor) not in {"INT8", "INT4", "INT32"}:
                continue
            if tflite_file.is_quantized(tensor):
                return tensor
        return None

    kinds = {
        int(output): tflite_file.op_name(prepared.parsed, operator)
        for operator in prepared.graph.operators
        for output in operator.outputs
    }
    constants: dict[int, Grid] = {}
    converted: dict[int, Array] = {}
    groups: dict[int, int] = {}
    ranges: dict[int, tuple[float, float]] = {}
    fixed: dict[int, tuple[float, float]] = {}
    keys: dict[Any, int] = {}
    shared = scale_groups(prepared)
    for index, tensor in enumerate(prepared.graph.tensors):
        name = tflite_file.tensor_name(tensor)
        form = integer_form(name)
        if form is None or tflite_file.type_name(tensor) != "FLOAT32":
            continue
        if tflite_file.is_constant(prepared.parsed, tensor):
            if not tflite_file.is_constant(integer.parsed, form):
                continue
            values = _real(integer, form)
            if values.size == int(np.prod(tflite_file.index_list(tensor.shape))):
                converted[index] = values.reshape(tflite_file.index_list(tensor.shape))
                if tflite_file.type_name(form) in _WEIGHTS:
                    constants[index] = _grid(form, converted[index].ndim)
            continue
        pair = tflite_file.quantization(form)
        if pair is None or tflite_file.type_name(form) != "INT8" or index in except_for:
            continue
        scale, zero = pair
        ends = ((-128 - zero) * scale, (127 - zero) * scale)
        if kinds.get(index) in FIXED:
            fixed[index] = ends
            continue
        key = keys.setdefault((shared.get(name, (name,)), scale, zero), len(keys))
        groups[index] = key
        ranges[key] = ends
    return Grids(constants=constants, converted=converted, groups=groups, ranges=ranges, fixed=fixed)


def _real(model: Model, tensor: Any) -> Array:
    steps = edit.constant(model.parsed, tensor).astype(np.float64)
    parameters = tensor.quantization
    scale = np.asarray(parameters.scale, np.float64)
    zero = np.asarray(0 if parameters.zeroPoint is None else parameters.zeroPoint, np.float64)
    if scale.size > 1:
        shape = [1] * steps.ndim
        shape[int(parameters.quantizedDimension)] = scale.size
        scale, zero = scale.reshape(shape), np.broadcast_to(zero, scale.shape).reshape(shape)
    return np.asarray((steps - zero) * scale, np.float32)


def _grid(form: Any, rank: int) -> Grid:
    parameters = form.quantization
    bits = _WEIGHTS[tflite_file.type_name(form)]
    symmetric = parameters.zeroPoint is None or not np.asarray(parameters.zeroPoint).any()
    axis = int(parameters.quantizedDimension) if len(parameters.scale) > 1 else None
    return Grid(bits=bits, over=tuple(each for each in range(rank) if each != axis), symmetric=symmetric)


class Student:
    """A forward pass with fake quantization, from the values of each input, samples first.

    Args:
        starts: {buffer: the values to start from}; those that are missing start from the file's.
        forward: the teacher's.
    """

    def __init__(
        self,
        translation: Translation,
        trained: Sequence[TrainedConstant],
        grids: Grids,
        starts: Mapping[int, Array],
        *,
        forward: Callable[..., list[Any]],
    ) -> None:
        import keras

        self._translation, self._grids, self._forward = translation, grids, forward
        self._ranges = {key: LearnedRange(*ends) for key, ends in grids.ranges.items()}
        self._places = {place.index: (each, place) for each in trained for place in each.places}
        self._starts = {each.buffer: starts.get(each.buffer, each.values) for each in trained}
        self._units = {each.buffer: self._unit(each) for each in trained}
        self._moves = {
            each.buffer: keras.Variable(np.zeros(each.values.shape, np.float32)) for each in trained
        }
        self._ratios = {
            index: LearnedRatio(np.ones_like(grid.steps(self._start_of(index))))
            for index, grid in grids.constants.items()
            if grid.bits < 8 and index in self._places
        }

    @property
    def variables(self) -> list[Any]:
        """The trainable variables: constants, ends of ranges, and ends of 4-bit grids."""
        ends = [variable for each in self._ranges.values() for variable in each.variables]
        ratios = [each.variable for each in self._ratios.values()]
        return [*self._moves.values(), *ends, *ratios]

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Return the outputs of a batch."""
        return self._forward(inputs, constant=self._constant, activation=self._activation)

    def _start_of(self, index: int) -> Array:
        each, place = self._places[index]
        values: Array = place.of(self._starts[each.buffer])
        return values

    def _unit(self, each: TrainedConstant) -> Array:
        """Return how far a change of a variable by one moves each value."""
        place: Place = each.places[0]
        start = place.of(self._starts[each.buffer])
        grid = self._grids.constants.get(place.index)
        if grid is not None:
            steps = np.broadcast_to(grid.steps(start), start.shape)
        else:  # a bias: integers of 32 bits, and what matters is the step of what it is added to
            steps = np.full(start.shape, self._output_step(place.index, start), np.float32)
        unit: Array = place.back(np.ascontiguousarray(steps), each.values.shape) * _SPEED
        return unit

    def _output_step(self, index: int, start: Array) -> float:
        for operator in self._translation.model.graph.operators:
            if index in tflite_file.index_list(operator.inputs):
                key = self._grids.groups.get(int(operator.outputs[0]))
                if key is not None:
                    low, high = self._grids.ranges[key]
                    return (high - low) / 255.0 / 4.0
        return (float(np.abs(start).max()) + 1e-3) / 255.0

    def _value(self, each: TrainedConstant) -> Any:
        return self._starts[each.buffer] + self._moves[each.buffer].value * self._units[each.buffer]

    def _constant(self, index: int, value: Any) -> Any:
        grid = self._grids.constants.get(index)
        if index in self._places:
            each, place = self._places[index]
            value = place.of(self._value(each))
        if grid is None:
            return value
        ratio = self._ratios[index].value() if index in self._ratios else 1.0
        return grid.rounded(value, ratio)

    def _activation(self, index: int, value: Any) -> Any:
        if index in self._grids.fixed and index not in self._translation.outputs:
            return fake_quant.activations(value, *self._grids.fixed[index])
        key = self._grids.groups.get(index)
        return value if key is None else self._ranges[key](value)

    def snapped(self) -> dict[int, Array]:
        """Return {buffer: values} of the trained constants, rounded to their grids."""
        values: dict[int, Array] = {}
        for index, (each, place) in self._places.items():
            if each.buffer in values:
                continue  # several places read one constant: the grid of the first counts
            own = np.asarray(self._constant(index, None), np.float32)
            values[each.buffer] = place.back(own, each.values.shape)
        return values

    def learned_ranges(self) -> tuple[tuple[str, float, float], ...]:
        """Return (tensor, low, high) of each learned range."""
        learned = []
        for index, key in self._grids.groups.items():
            low, high = (float(np.asarray(end)) for end in self._ranges[key].ends())
            learned.append((self._translation.name(index), low, high))
        return tuple(sorted(learned))
