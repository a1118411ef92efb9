"""Give the parts of a joined output scales of their own, such as a detector's scores beside boxes in pixels.

A CONCATENATION of integers has one scale for all members. With boxes up to 640 beside scores up to 1, every
score is below one step. So the members become outputs of their own before the model is quantized, and each
gets its own scale. Afterwards the integers are joined as they are. The output then has one scale and one zero
point for each slice along the joined axis: per-axis quantization of the schema, which DEQUANTIZE computes. No
operation becomes float, and the interface stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.quantization.late_joins import FACTOR, size_of
from edgeq_converters.quantization.per_axis import as_int8, relabelled, scales
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Caution, Scheme

_JOINS = {"CONCATENATION", "PACK"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """An output that was divided into the members of the operation that computes it.

    Attributes:
        position: of the output among the model's outputs.
        name: of the output's tensor.
        output: the output's name in the interface.
        kind: CONCATENATION or PACK.
        axis: along which the members lie in the output, from 0.
        members: names of their tensors, in order.
        ratio: of the largest values of the widest and the narrowest member.
    """

    position: int
    name: str
    output: str
    kind: str
    axis: int
    members: tuple[str, ...]
    ratio: float

    def __str__(self) -> str:
        parts = f"the {len(self.members)} parts of output `{self.output}`"
        return f"{parts}, whose sizes differ by a factor of {self.ratio:.3g},"


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """A float model whose outputs are divided.

    Attributes:
        model: with the members as outputs, in place of each divided output.
        joins: the divided outputs; empty where the model stayed as it was.
        notes: remarks for the user.
    """

    model: Model
    joins: tuple[Join, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> Mapping[int, int]:
        """The axis of the joint by the position, among the outputs, of each member of a CONCATENATION."""
        return {
            position: join.axis
            for join in self.joins
            if join.kind == "CONCATENATION"
            for position in range(self.moved(join.position), self.moved(join.position) + len(join.members))
        }

    def moved(self, position: int) -> int:
        """Return where an output, or its first member, is among the outputs of the divided model."""
        return position + sum(len(each.members) - 1 for each in self.joins if each.position < position)


def divide(
    model: Model, histograms: Mapping[str, Histogram], recipe: Recipe, *, except_for: Collection[int] = ()
) -> Divided:
    """Return the model with the members of its joined outputs as outputs where their sizes differ much.

    Outputs of the type uint8 stay whole: QUANTIZE converts one scale only. So does an output that another
    operation reads, or whose operation the recipe keeps in float. With 16 bits all stay:
    they have the steps.

    Args:
        model: a prepared float model.
        histograms: of its activations.
        except_for: the positions of outputs that stay.
    """
    if recipe.scheme is Scheme.INT16X8:
        return Divided(model=model)
    edited = Editor(model)
    editor = GraphEditor(edited.parsed)
    joins = []
    outputs = tflite_file.index_list(editor.graph.outputs)
    for position, index in enumerate(outputs):
        if position in except_for:
            continue
        join = _join_of(editor, position, model.outputs[position].name, index, histograms)
        if join is not None and join.name not in recipe.float_ops:
            joins.append(join)
    if not joins:
        return Divided(model=model)
    if recipe.types.outputs == "uint8":
        cautions = (Caution(f"{each} share one scale, which uint8 requires: use --io int8") for each in joins)
        return Divided(model=model, notes=tuple(cautions))
    indices = {editor.name(index): index for index in range(len(editor.graph.tensors))}
    replaced = {join.position: [indices[name] for name in join.members] for join in joins}
    new_outputs = [index for position, old in enumerate(outputs) for index in replaced.get(position, [old])]
    editor.graph.outputs = np.array(new_outputs, np.int32)
    for signature in editor.parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            signature.outputs = [_entry(editor.name(index), index) for index in new_outputs]
    notes = tuple(f"{each} have scales of their own" for each in joins)
    return Divided(model=without_dead(edited.pack()), joins=tuple(joins), notes=notes)


def _join_of(
    editor: GraphEditor, position: int, output: str, index: int, histograms: Mapping[str, Histogram]
) -> Join | None:
    operator = editor.producer(index)
    kind = editor.kind(operator)
    if kind not in _JOINS or editor.readers(index) or editor.type_name(index) != "FLOAT32":
        return None
    if kind == "CONCATENATION" and operator.builtinOptions.fusedActivationFunction:
        return None
    members = tflite_file.index_list(operator.inputs)
    names = tuple(editor.name(each) for each in members)
    # Each member becomes an output of its own: it must be computed, and not be an output already.
    alone = len(set(members)) == len(members) and all(
        editor.producer(each) is not None and not editor.is_output(each) for each in members
    )
    sizes = [size_of(histograms[name]) for name in names if alone]
    if not alone or min(sizes) <= 0 or max(sizes) <= FACTOR * min(sizes):
        return None
    rank = len(editor.shape(index))
    axis = int(operator.builtinOptions.axis) % rank
    if axis == 0:  # the batch
        return None
    return Join(
        position=position,
        name=editor.name(index),
        output=output,
        kind=kind,
        axis=axis,
        members=names,
        ratio=max(sizes) / min(sizes),
    )


def join(integer: Model, divided: Divided, original: Model) -> Model:
    """Return the integer model with the divided outputs joined again.

    Args:
        integer: made from `divided.model`.
        original: the float model before it was divided; its outputs give the names and the order.
    """
    if not divided.joins:
        return integer
    edited = Editor(integer)
    editor = GraphEditor(edited.parsed)
    parts = tflite_file.index_list(editor.graph.outputs)
    by_position = {join.position: join for join in divided.joins}
    outputs: list[int] = []
    for position in range(len(original.outputs)):
        joined = by_position.get(position)
        count = 1 if joined is None else len(joined.members)
        own, parts = parts[:count], parts[count:]
        outputs.append(own[0] if joined is None else _joined(editor, joined, own))
    editor.graph.outputs = np.array(outputs, np.int32)
    for signature in editor.parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            signature.outputs = _entries(original, outputs)
    return edited.pack()


def _joined(editor: GraphEditor, join: Join, parts: Sequence[int]) -> int:
    """Append the operations that join an output, and return its tensor."""
    producers = [editor.producer(index, "DEQUANTIZE") for index in parts]
    integers = [
        index if producer is None else int(producer.inputs[0])
        for index, producer in zip(parts, producers, strict=True)
    ]
    integers = [as_int8(editor, index) for index in integers]
    kinds = {editor.type_name(index) for index in integers}
    if kinds != {"INT8"}:  # a part is computed in float: the real values are joined
        return _append(editor, join, join.name, [*parts], schema.TensorType.FLOAT32)
    for producer in producers:
        if producer is not None:
            editor.operators.remove(producer)
    # The kernel requires equal scales, and only moves integers. A RESHAPE to the same shape gives another
    # scale to the same integers.
    plain = [
        relabelled(editor, index, f"{editor.name(index)}.integers", scales(1.0, 0)) for index in integers
    ]
    moved = _append(editor, join, f"{join.name}.integers", plain, schema.TensorType.INT8, scales(1.0, 0))
    sizes = [1 if join.kind == "PACK" else editor.shape(index)[join.axis] for index in integers]
    own = [editor.graph.tensors[index].quantization for index in integers]
    # A member has one scale, or, where its columns were levelled, one for each of them.
    by_slice = [np.broadcast_to(each.scale, size) for each, size in zip(own, sizes, strict=True)]
    zero_points = [np.broadcast_to(each.zeroPoint, size) for each, size in zip(own, sizes, strict=True)]
    parameters = scales(np.concatenate(by_slice), np.concatenate(zero_points), axis=join.axis)
    as_float = any(producer is not None for producer in producers)
    target = relabelled(editor, moved, f"{join.name}.slices" if as_float else join.name, parameters)
    if not as_float:
        return target
    output = editor.add_tensor(join.name, editor.shape(target))
    editor.append("DEQUANTIZE", [target], output)
    return output


def _append(
    editor: GraphEditor, join: Join, name: str, parts: Sequence[int], kind: int, scale: Any = None
) -> int:
    shape = list(editor.shape(parts[0]))
    if join.kind == "PACK":
        shape.insert(join.axis, len(parts))
        options = {"axis": join.axis, "valuesCount": len(parts)}
    else:
        shape[join.axis] = sum(editor.shape(index)[join.axis] for index in parts)
        options = {"axis": join.axis}
    output = editor.add_tensor(name, shape, kind)
    editor.graph.tensors[output].quantization = scale
    editor.append(join.kind, parts, output, **options)
    return output


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def _entries(original: Model, outputs: Sequence[int]) -> list[Any]:
    return [_entry(info.name, index) for info, index in zip(original.outputs, outputs, strict=True)]
