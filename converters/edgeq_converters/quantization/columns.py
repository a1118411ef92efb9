"""Give the columns of an output scales of their own where layers compute them, as in a detector's head.

The columns are the slices along the axis on which their sizes differ most: the last one, or that of the
boxes and classes in a layout such as (1, 84, 8400). Where only operations that move values, ReLU, ADD, SUB,
and MUL with a constant lie between an output and its convolutions or dense layers, each channel of a layer
and each constant belongs to one column (`column_paths`). So weights, biases and constants are divided by the
size of their column. All columns of the output then have one size, and share one scale without loss.
Afterwards the output gets a scale for each column: the shared one times the size that was divided out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import carried_states, edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.layers import read_layer
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor
from edgeq_converters.metrics import MOST_SLICES
from edgeq_converters.progress import ignore
from edgeq_converters.quantization.column_paths import Path, paths_along
from edgeq_converters.quantization.per_axis import as_int8, relabelled, scales
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Caution, Scheme

FACTOR = 4.0
"""Columns whose largest values differ by more than this factor get scales of their own: two bits less."""
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnSizes:
    """What the columns of a levelled model's outputs must be multiplied by.

    Attributes:
        by_position: by the position of an output: a factor for each of its columns, 1 for the largest, in an
            array that broadcasts over the output.
    """

    by_position: Mapping[int, Array] = field(default_factory=dict)

    def restored(self, outputs: Sequence[Array]) -> list[Array]:
        """Return real values of all outputs in the units of the model before it was levelled."""
        return [
            values * self.by_position[position] if position in self.by_position else values
            for position, values in enumerate(outputs)
        ]


NO_SIZES = ColumnSizes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Levelled:
    """A float model in whose outputs all columns have one size.

    Attributes:
        model: the same value where nothing was done.
        sizes: that were divided out.
        notes: remarks for the user.
    """

    model: Model
    sizes: ColumnSizes = NO_SIZES
    notes: tuple[str, ...] = ()


def level(
    model: Model, samples: Samples | None, recipe: Recipe, *, only: Mapping[int, int] | None = None
) -> Levelled:
    """Return the model with the columns of its outputs at one size where they differ by more than FACTOR.

    Outputs with three axes or more count, along an axis with 2 to MOST_SLICES columns. Others are classes or
    positions, whose integers users compare with each other. An output stays as it is where the recipe keeps a
    layer that computes it in float, has a learned range for it or such a layer, or has 16 bits for all.
    Outputs of the type uint8 stay, with a caution.

    Args:
        model: a prepared float model.
        samples: to see the columns' sizes on; None does nothing.
        only: the axes of the columns by the positions of the outputs that may change; None for all of both.
    """
    nothing = Levelled(model=model)
    if samples is None or recipe.scheme is Scheme.INT16X8:
        return nothing
    edited = Editor(model)
    editor = GraphEditor(edited.parsed)
    paths = _paths(model, editor, recipe, only)
    if not paths:
        return nothing
    ends = tflite_file.index_list(editor.graph.outputs)
    asked = {(ends[position], axis) for position, axis in paths}
    inner = {
        (each.inner, each.inner_axis) for own in paths.values() for each in own if each.inner is not None
    }
    factors = _factors_of(model, samples, asked | inner)
    uneven: dict[int, int] = {}
    for position, axis in sorted(paths, key=lambda each: factors[ends[each[0]], each[1]].min()):
        own = factors[ends[position], axis]
        if own.min() * FACTOR < 1 and _has_even_operands(paths[position, axis], factors):
            uneven.setdefault(position, axis)
    if not uneven:
        return nothing
    sizes = {position: factors[ends[position], axis] for position, axis in sorted(uneven.items())}
    named = {
        position: f"the {each.size} columns of output `{model.outputs[position].name}`, "
        f"whose sizes differ by a factor of {1 / each.min():.3g},"
        for position, each in sizes.items()
    }
    if recipe.types.outputs == "uint8":
        cautions = (
            Caution(f"{each} share one scale, which uint8 requires: use --io int8") for each in named.values()
        )
        return Levelled(model=model, notes=tuple(cautions))
    for position, axis in uneven.items():
        for path in paths[position, axis]:
            _divide(editor, path, factors)
    return Levelled(
        model=edited.pack(),
        sizes=ColumnSizes(by_position=sizes),
        notes=tuple(f"{each} have scales of their own" for each in named.values()),
    )


def _has_even_operands(paths: Sequence[Path], factors: Mapping[tuple[int, int], Array]) -> bool:
    """Return whether what is multiplied by a constant, and stays as it is, has columns of about one size."""
    return all(
        factors[path.inner, path.inner_axis].min() * FACTOR >= 1
        for path in paths
        if path.inner is not None and not path.levels_inner
    )


def _factors_of(
    model: Model, samples: Samples, asked: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], Array]:
    """Return the sizes of the columns of (tensor, axis), the largest being 1."""
    edited = Editor(model)
    graph = edited.parsed.subgraphs[0]
    pairs = list(asked)
    listed = sorted({index for index, _ in pairs})
    graph.outputs = np.array(listed, np.int32)
    edited.parsed.signatureDefs = []
    arrays = run_samples(edited.pack(), samples, advance=ignore)
    values = dict(zip(listed, arrays, strict=True))
    return {(index, axis): _factors(values[index], axis) for index, axis in pairs}


def _factors(values: Array, axis: int) -> Array:
    others = tuple(each for each in range(values.ndim) if each != axis)
    sizes = np.abs(values).max(axis=others, keepdims=True).astype(np.float64)
    if not np.isfinite(sizes).all():
        return np.ones_like(sizes)
    factors: Array = np.where(sizes > 0, sizes, sizes.max() or 1.0) / (sizes.max() or 1.0)
    return factors


def _paths(
    model: Model, editor: GraphEditor, recipe: Recipe, only: Mapping[int, int] | None
) -> dict[tuple[int, int], list[Path]]:
    """Return the paths of (position of an output, axis of its columns)."""
    users = edit.buffer_users(editor.parsed)
    outputs = tflite_file.index_list(editor.graph.outputs)
    carried = {state.output for state in carried_states.read(model)}
    paths: dict[tuple[int, int], list[Path]] = {}
    staying = {*recipe.float_ops, *(name for name, _, _ in recipe.ranges)}
    for position, info in enumerate(model.outputs):
        if editor.name(outputs[position]) in staying or position in carried:
            continue
        if len(info.shape) < 3 or outputs.count(outputs[position]) > 1:
            continue
        # The last axis first: among axes with equal sizes, it is the usual one.
        for axis in range(len(info.shape) - 1, 0, -1):
            if not 2 <= info.shape[axis] <= MOST_SLICES or (only is not None and only.get(position) != axis):
                continue
            own = paths_along(editor, users, outputs[position], axis)
            if own and not any(editor.name(int(each.operator.outputs[0])) in staying for each in own):
                paths[position, axis] = own
    return paths


def _divide(editor: GraphEditor, path: Path, factors: Mapping[tuple[int, int], Array]) -> None:
    own = factors[path.of, path.of_axis].ravel()[path.slices]
    if path.operand is not None:
        if path.inner is not None and path.levels_inner:
            own = own / factors[path.inner, path.inner_axis]
        _divide_operand(editor, path.operator, path.operand, own)
        return
    layer = read_layer(editor.parsed, path.operator)
    if layer is None:
        raise AssertionError("the path ends at a layer")
    by_channel = own.reshape(layer.groups, layer.width)
    tensors = editor.graph.tensors
    weights = layer.to_matrix(edit.constant(editor.parsed, tensors[layer.weights]))
    edit.set_constant(
        editor.parsed, tensors[layer.weights], layer.to_tensor(weights / by_channel[:, :, None])
    )
    if layer.bias >= 0:
        bias = edit.constant(editor.parsed, tensors[layer.bias])
        edit.set_constant(editor.parsed, tensors[layer.bias], bias / by_channel.reshape(bias.shape))


def _divide_operand(editor: GraphEditor, operator: Any, operand: int, sizes: Array) -> None:
    inputs = tflite_file.index_list(operator.inputs)
    before = np.atleast_1d(edit.constant(editor.parsed, editor.graph.tensors[inputs[operand]]))
    values = before / sizes
    while values.ndim > before.ndim and values.shape[0] == 1:
        values = values[0]
    name = f"{editor.name(inputs[operand])}.levelled"
    inputs[operand] = editor.add_constant(name, values.astype(np.float32))
    operator.inputs = np.array(inputs, np.int32)


def with_column_scales(integer: Model, sizes: ColumnSizes) -> Model:
    """Return an integer model, made of a levelled one, with the scales of the columns on its outputs."""
    if not sizes.by_position:
        return integer
    edited = Editor(integer)
    editor = GraphEditor(edited.parsed)
    for position, factors in sizes.by_position.items():
        index = tflite_file.index_list(editor.graph.outputs)[position]
        _scale_columns(editor, index, factors)
    return edited.pack()


def _scale_columns(editor: GraphEditor, index: int, factors: Array) -> None:
    name = editor.name(index)
    producer = editor.producer(index, "DEQUANTIZE")
    integers = index if producer is None else as_int8(editor, int(producer.inputs[0]), before=producer)
    pair = tflite_file.quantization(editor.graph.tensors[integers])
    if editor.type_name(integers) != "INT8" or pair is None:  # the quantizer left the layer in float
        editor.rename(index, f"{name}.levelled")
        product = editor.add_tensor(name, editor.shape(index))
        constant = editor.add_constant(f"{name}.sizes", factors.astype(np.float32))
        editor.redirect(index, product)
        editor.append("MUL", [index, constant], product)
        return
    axis = int(np.argmax(factors.shape))
    parameters = scales(pair[0] * factors.ravel(), np.full(factors.size, pair[1]), axis=axis)
    if producer is None:
        editor.rename(index, f"{name}.levelled")
        relabelled(editor, index, name, parameters, redirect=True)
        return
    relabelled(editor, integers, f"{name}.columns", parameters, before=producer, redirect=True)
    editor.require_version("DEQUANTIZE")
