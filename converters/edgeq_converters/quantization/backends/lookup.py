"""Functions of a single value as tables: CAST, ADD and GATHER give each of the 256 integers its result.

This is exact for every function, where an operation has no integer kernel, or where a chain such as
`log(1 + exp(x))` passes through values that no single scale holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import HasGraph
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

Array = npt.NDArray[Any]

_WITHOUT_KERNEL = frozenset(
    {"ATAN2", "CEIL", "COS", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "POW", "ROUND", "SIGN", "SIN"}
)
_WITHOUT_KERNEL_16 = frozenset({"ELU", "HARD_SWISH", "RELU_0_TO_1", "RELU_N1_TO_1"})
_STEEP = frozenset({"EXP", "LOG", "POW"})
"""Operations after or before which the values may span more powers of ten than integers hold."""
_SINGLE = frozenset(
    {
        *("ABS", "CAST", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG"),
        *("LOGICAL_NOT", "LOGISTIC", "NEG", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND"),
        *("RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH"),
        *("ADD", "ADD_N", "ATAN2", "DIV", "FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM", "MUL", "POW"),
        *("SQUARED_DIFFERENCE", "SUB", "SELECT", "SELECT_V2", "LOGICAL_AND", "LOGICAL_OR"),
        *("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"),
    }
)
"""Operations that compute each element apart."""
_TYPES = {"INT8": (np.int8, -128), "INT16": (np.int16, -32768)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Operations that compute one tensor from one other, each element from one element.

    Attributes:
        operations: names (of their first outputs), in order of execution.
        source, target: names of tensors.
    """

    operations: tuple[str, ...]
    source: str
    target: str


def regions(model: HasGraph, *, bits: Callable[[str], int], except_for: Collection[str] = ()) -> list[Region]:
    """Return the largest regions that only a table can compute in integers, or that lose much without one.

    Args:
        model: a float model.
        bits: the name of an operation -> bits of its activations.
        except_for: names of operations that stay as they are.
    """
    editor = GraphEditor(model.parsed)
    taken: set[int] = set()
    chains: list[Region] = []
    for operator in reversed(editor.operators):
        if id(operator) in taken or not _fits(editor, operator, except_for):
            continue
        region = _grown(editor, operator, except_for, taken)
        if region is None:
            continue
        chosen, source = region
        wide = bits(tflite_file.operation_name(editor.graph, chosen[-1])) > 8
        if _needs_table([editor.kind(each) for each in chosen], wide=wide):
            taken |= {id(each) for each in chosen}
            chains.append(
                Region(
                    operations=tuple(tflite_file.operation_name(editor.graph, each) for each in chosen),
                    source=editor.name(source),
                    target=editor.name(int(chosen[-1].outputs[0])),
                )
            )
    return chains[::-1]


def _needs_table(kinds: Sequence[str], *, wide: bool) -> bool:
    lacking = _WITHOUT_KERNEL | (_WITHOUT_KERNEL_16 if wide else frozenset())
    steep = len(kinds) > 1 and bool(_STEEP & set(kinds))
    whole = kinds[-1] == "CAST"  # of real values to ids
    return bool(lacking & set(kinds)) or steep or whole


def _fits(editor: GraphEditor, operator: Any, except_for: Collection[str]) -> bool:
    outputs = tflite_file.index_list(operator.outputs)
    name = tflite_file.operation_name(editor.graph, operator)
    return editor.kind(operator) in _SINGLE and len(outputs) == 1 and name not in except_for


def _grown(
    editor: GraphEditor, end: Any, except_for: Collection[str], taken: Collection[int]
) -> tuple[list[Any], int] | None:
    """Return (the largest region that ends with an operation, its source); None where there is none."""
    target = int(end.outputs[0])
    if editor.type_name(target) not in {"FLOAT32", "INT32"}:
        return None
    chosen: list[Any] = []
    front: set[int] = {target}
    best: tuple[list[Any], int] | None = None
    while True:
        producers = [(index, editor.producer(index)) for index in front]
        inner = [(index, each) for index, each in producers if each is not None]
        inner = [
            (index, each)
            for index, each in inner
            if _fits(editor, each, except_for)
            and id(each) not in taken
            and _is_inside(editor, index, target, chosen)
            and _only_scalars(editor, each, editor.shape(target))
        ]
        if not inner:
            return best
        index, operator = max(inner, key=lambda each: editor.position(each[1]))
        chosen.insert(0, operator)
        front.discard(index)
        front |= {int(i) for i in operator.inputs if i >= 0 and editor.constant(int(i)) is None}
        if len(front) == 1:
            (source,) = front
            if editor.type_name(source) == "FLOAT32":
                best = (list(chosen), source)


def _is_inside(editor: GraphEditor, index: int, target: int, chosen: Sequence[Any]) -> bool:
    """Return whether nothing outside the region reads a tensor, but for the region's target."""
    if index == target:
        return True
    inside = {id(each) for each in chosen}
    return not editor.is_output(index) and all(id(each) in inside for each in editor.readers(index))


def _only_scalars(editor: GraphEditor, operator: Any, shape: tuple[int, ...]) -> bool:
    """Return whether an operation's inputs are tensors of one shape and constants of one element."""
    for index in tflite_file.index_list(operator.inputs):
        values = editor.constant(index)
        if (values is None and editor.shape(index) != shape) or (values is not None and values.size != 1):
            return False
    return editor.shape(int(operator.outputs[0])) == shape


def results(model: HasGraph, region: Region, inputs: Array) -> Array:
    """Return what a region gives for real values, by the runtime's float kernels.

    Args:
        model: the float model of the region.
        inputs: float32, one axis.
    """
    operators = [
        each
        for each in model.parsed.subgraphs[0].operators
        if tflite_file.operation_name(model.parsed.subgraphs[0], each) in set(region.operations)
    ]
    tensors = model.parsed.subgraphs[0].tensors
    index = {tflite_file.tensor_name(tensor): number for number, tensor in enumerate(tensors)}
    part = Editor(edit.extract(model, operators, [index[region.source]], [index[region.target]]))
    for tensor in part.parsed.subgraphs[0].tensors:
        size = 1 if tflite_file.is_constant(part.parsed, tensor) else len(inputs)
        tensor.shape, tensor.shapeSignature = np.array([size], np.int32), None
    interpreter = Interpreter(part.pack())
    interpreter.run([inputs])
    return interpreter.results()[0]


def write(
    editor: GraphEditor,
    before: Any,
    source: int,
    target: int,
    values: Array,
    *,
    scale: tuple[float, int] | None,
) -> None:
    """Insert the operations of a table before another operation.

    Args:
        source: an int8 or int16 tensor.
        target: the tensor that gets the results.
        values: of the function, for each integer of the source from the lowest on.
        scale: of the target; None where its values are ids.
    """
    name, shape = editor.name(target), editor.shape(source)
    lowest = _TYPES[editor.type_name(source)][1]
    whole = editor.add_tensor(f"{name}.whole", shape, schema.TensorType.INT32)
    editor.insert(before, "CAST", [source], whole)
    offset = editor.add_constant(f"{name}.offset", np.array(-lowest, np.int32))
    place = editor.add_tensor(f"{name}.place", shape, schema.TensorType.INT32)
    editor.insert(before, "ADD", [whole, offset], place)
    if scale is None:
        table = editor.add_constant(f"{name}.table", values.astype(np.int32))
    else:
        kind, low = _TYPES[editor.type_name(target)]
        steps = np.nan_to_num(np.rint(values.astype(np.float64) / scale[0]), nan=0.0) + scale[1]
        table = editor.add_constant(f"{name}.table", np.clip(steps, low, -low - 1).astype(kind))
        editor.graph.tensors[table].quantization = editor.graph.tensors[target].quantization
    editor.insert(before, "GATHER", [table, place], target, axis=0)


def inputs_of(kind: str, scale: tuple[float, int]) -> Array:
    """Return the real values of all integers of a type, from the lowest on, as float32."""
    lowest = _TYPES[kind][1]
    steps: Array = np.arange(lowest, -lowest, dtype=np.float64)
    return ((steps - scale[1]) * scale[0]).astype(np.float32)
