"""The constants of a .tflite that training changes: where the file and the graph have them.

Training works on the graph that integers are made from: `prepared`, with the rewrites that `edgeq convert`
applies. The result is the user's file with other weights. So a constant is trained only if each rewrite
passes its values on: the prepared graph reads all of them, at most in another shape or with turned axes. The
conversion of the written file then finds exactly the trained weights. `carried` checks this on a file with
changed weights, because a rewrite may look at values, or compute further constants from them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.model import Model

Array = npt.NDArray[Any]
READERS = frozenset(
    {
        "ADD", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV", "FULLY_CONNECTED", "MUL", "PRELU",
        "SUB", "TRANSPOSE_CONV",
    }
)  # fmt: skip
"""Kinds of operations whose float constants of more than one value are trained."""
_STORED: dict[str, np.dtype[Any]] = {"FLOAT32": np.dtype("<f4"), "FLOAT16": np.dtype("<f2")}
_MOST_AXES = 4
_CHANGED = 2.0**-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A constant of the prepared graph that holds the values of a stored one.

    Attributes:
        index: of its tensor.
        order: of the stored constant's axes.
        shape: after its axes are in this order.
    """

    index: int
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, values: Any) -> Any:
        """Return a stored constant's values, a numpy array or a tensor, as the prepared graph reads them."""
        if isinstance(values, np.ndarray):
            return values.transpose(self.order).reshape(self.shape)
        import tensorflow as tf

        return tf.reshape(tf.transpose(values, self.order), self.shape)

    def back(self, values: Array, shape: Sequence[int]) -> Array:
        """Return values of the prepared graph as the file stores them."""
        turned = values.reshape([shape[axis] for axis in self.order])
        return turned.transpose(np.argsort(self.order)) if self.order else turned


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedConstant:
    """A constant that is trained.

    Attributes:
        buffer: number of its buffer in the file.
        name: of a tensor with this buffer.
        dtype: of the stored values.
        values: as float32, in the stored shape.
        places: where the prepared graph reads it.
    """

    buffer: int
    name: str
    dtype: np.dtype[Any]
    values: Array
    places: tuple[Place, ...]

    def stored(self, values: Array) -> Array:
        """Return values as the file can hold them, as float32."""
        return values.astype(self.dtype).astype(np.float32)


def find(original: Model, prepared: Model) -> tuple[TrainedConstant, ...]:
    """Return the constants of a file that the prepared graph reads unchanged in weighted operations.

    Args:
        original: the user's file.
        prepared: the graph that integers are made from.
    """
    held = _held(original)
    by_values: dict[str, list[int]] = {}
    for number, (_, _, values) in held.items():
        by_values.setdefault(_digest(values), []).append(number)
    named = _names(original, held)
    places: dict[int, list[Place]] = {}
    for index in _read(prepared):
        tensor = prepared.graph.tensors[index]
        values = edit.constant(prepared.parsed, tensor)
        candidates = by_values.get(_digest(values), [])
        by_name = named.get(tflite_file.tensor_name(tensor))
        if by_name in candidates:
            candidates = [by_name]
        if len(candidates) != 1:
            continue  # none, or several with equal values, such as biases of zero
        order = _order(held[candidates[0]][2], values)
        if order is not None:
            place = Place(index=index, order=order, shape=values.shape)
            places.setdefault(candidates[0], []).append(place)
    return tuple(
        TrainedConstant(
            buffer=number,
            name=held[number][0],
            dtype=held[number][1],
            values=held[number][2],
            places=tuple(own),
        )
        for number, own in sorted(places.items())
    )


def _held(model: Model) -> dict[int, tuple[str, np.dtype[Any], Array]]:
    """Return {buffer: (a tensor's name, stored type, values)} of the dense float constants."""
    held: dict[int, tuple[str, np.dtype[Any], Array]] = {}
    for tensor in model.graph.tensors:
        kind = tflite_file.type_name(tensor)
        if kind not in _STORED or not tflite_file.is_constant(model.parsed, tensor):
            continue
        if tensor.sparsity is not None or int(tensor.buffer) in held:
            continue
        shape = tflite_file.index_list(tensor.shape)
        stored = np.asarray(model.parsed.buffers[tensor.buffer].data, np.uint8).tobytes()
        values = np.frombuffer(stored, _STORED[kind]).reshape(shape).astype(np.float32)
        held[int(tensor.buffer)] = (tflite_file.tensor_name(tensor), _STORED[kind], values)
    return held


def _names(model: Model, held: Mapping[int, Any]) -> dict[str, int]:
    """Return {tensor name: buffer}; what a DEQUANTIZE makes of a float16 constant has its buffer too."""
    tensors = model.graph.tensors
    named = {
        tflite_file.tensor_name(tensor): int(tensor.buffer)
        for tensor in tensors
        if int(tensor.buffer) in held
    }
    for operator in model.graph.operators:
        if tflite_file.op_name(model.parsed, operator) == "DEQUANTIZE":
            buffer = int(tensors[int(operator.inputs[0])].buffer)
            if buffer in held:
                named[tflite_file.tensor_name(tensors[int(operator.outputs[0])])] = buffer
    return named


def _read(prepared: Model) -> list[int]:
    """Return the float constants of more than one value that weighted operations read."""
    graph = prepared.graph
    indices: dict[int, None] = {}
    for operator in graph.operators:
        if tflite_file.op_name(prepared.parsed, operator) not in READERS:
            continue
        for index in tflite_file.index_list(operator.inputs):
            if index >= 0 and _is_float_constant(prepared, index):
                indices[index] = None
    return list(indices)


def _is_float_constant(model: Model, index: int) -> bool:
    tensor = model.graph.tensors[index]
    is_float = tflite_file.type_name(tensor) == "FLOAT32" and tflite_file.is_constant(model.parsed, tensor)
    return is_float and int(np.prod(tflite_file.index_list(tensor.shape))) > 1


def _digest(values: Array) -> str:
    return hashlib.sha256(np.sort(values.ravel()).tobytes()).hexdigest()


def _order(stored: Array, read: Array) -> tuple[int, ...] | None:
    """Return the order of the axes that turns stored values into those that are read; None without one."""
    if stored.ndim > _MOST_AXES:
        return None
    for order in itertools.permutations(range(stored.ndim)):
        if np.array_equal(stored.transpose(order).ravel(), read.ravel()):
            return order
    return None


def written(original: Model, values: Mapping[int, Array], constants: Sequence[TrainedConstant]) -> bytes:
    """Return the file with other values in some buffers; all its other bytes stay.

    Args:
        values: {buffer: values in the stored shape}.
    """
    data = bytearray(original.data)
    begin = _address(np.frombuffer(original.data, np.uint8))
    for each in constants:
        held = np.asarray(original.parsed.buffers[each.buffer].data)
        start = _address(held) - begin
        content = values[each.buffer].astype(each.dtype).tobytes()
        if not 0 <= start <= len(data) - len(content) or held.nbytes != len(content):
            raise AssertionError("parsed constants are views of the file")
        data[start : start + len(content)] = content
    return bytes(data)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def carried(
    original: Model,
    prepared: Model,
    constants: Sequence[TrainedConstant],
    prepare: Callable[[bytes], Model],
) -> tuple[TrainedConstant, ...]:
    """Return the constants whose changes arrive in the prepared graph, and change nothing else there.

    Args:
        prepare: returns the prepared graph of a file.
    """
    if _arrive(original, prepared, constants, prepare):
        return tuple(constants)
    alone = tuple(each for each in constants if _arrive(original, prepared, [each], prepare))
    return alone if _arrive(original, prepared, alone, prepare) else ()


def _arrive(
    original: Model,
    prepared: Model,
    constants: Sequence[TrainedConstant],
    prepare: Callable[[bytes], Model],
) -> bool:
    random = np.random.default_rng(0)
    values = {
        each.buffer: each.stored(
            each.values
            + _CHANGED * (np.abs(each.values) + 0.01) * random.choice([-1.0, 1.0], each.values.shape)
        )
        for each in constants
    }
    made = prepare(written(original, values, constants))
    expected = {place.index: place.of(values[each.buffer]) for each in constants for place in each.places}
    return _structure(made) == _structure(prepared) and all(
        np.array_equal(_content(made, index), expected[index].tobytes())
        if index in expected
        else np.array_equal(_content(made, index), _content(prepared, index))
        for index in range(len(prepared.graph.tensors))
    )


def _content(model: Model, index: int) -> bytes:
    data = model.parsed.buffers[model.graph.tensors[index].buffer].data
    return b"" if data is None else np.asarray(data, np.uint8).tobytes()


def _structure(model: Model) -> list[Any]:
    operators = [
        (
            tflite_file.op_name(model.parsed, each),
            tflite_file.index_list(each.inputs),
            tflite_file.index_list(each.outputs),
        )
        for each in model.graph.operators
    ]
    tensors = [
        (tflite_file.tensor_name(each), tflite_file.index_list(each.shape)) for each in model.graph.tensors
    ]
    return [operators, tensors]
