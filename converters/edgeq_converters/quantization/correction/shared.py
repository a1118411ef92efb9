"""Round weights that several layers share once, on the inputs of all of them: the steps of a recurrent layer.

A loop that is written out has one layer for each step, and all of them read one constant. Its integers are
chosen so that the error over the inputs of all steps is least. The scales stay, because the layers' biases
have them too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.executor import Executor
from edgeq_converters.graph.layers import Layer, read_layer
from edgeq_converters.graph.model import Model
from edgeq_converters.quantization.correction import rounding
from edgeq_converters.quantization.correction.moments import Accumulator, about_zero, merge

Array = npt.NDArray[Any]
_SOURCES = ("INT8", "INT16")
_LIMIT = 127
_DAMPING = 0.1
_ROWS_PER_INPUT = 2
"""Fewest rows for each weight of an output: with fewer, the weights stay."""
_FEWEST_ROWS = 32
"""Of one step."""


@dataclass(slots=True, kw_only=True)
class _Shared:
    """One constant and what its layers were seen to read.

    Attributes:
        layers: position in the integer model -> (integer layer, float layer, position of the float one).
        halves: the moments over two halves of the samples.
    """

    layers: dict[int, tuple[Layer, Layer, int]] = field(default_factory=dict)
    halves: list[Accumulator] = field(default_factory=list)
    rows: int = 0


def correct_shared(floating: Model, integer: Model, samples: Samples, *, rows: int, seed: int = 0) -> Model:
    """Return the integer model with its shared weights rounded again; the same value where it has none.

    Args:
        floating: the float model that `integer` was quantized from; tensors are matched by name.
        samples: for the float model's inputs.
        rows: outputs to fit a constant on, over all of its layers.
        seed: of the choice of rows.

    Raises:
        ConverterError: EQ303 LiteRT does not run an operation on its own.
    """
    editor = Editor(integer)
    groups = _groups(editor.parsed, floating)
    if not groups:
        return integer
    _observe(editor, floating, samples, groups, rows, np.random.default_rng(seed))
    changed = [_round(editor.parsed, floating.parsed, each) for each in groups.values()]
    return editor.pack() if any(changed) else integer


def _groups(parsed: Any, floating: Model) -> Mapping[int, _Shared]:
    """Return {buffer of shared int8 weights: its layers}."""
    tensors = parsed.subgraphs[0].tensors
    positions = {
        tflite_file.operation_name(floating.graph, operator): position
        for position, operator in enumerate(floating.graph.operators)
    }
    groups: dict[int, _Shared] = {}
    fixed: Counter[int] = Counter()
    for place, operator in enumerate(parsed.subgraphs[0].operators):
        layer = read_layer(parsed, operator)
        if layer is None or layer.kind != "FULLY_CONNECTED":
            continue
        buffer = int(tensors[layer.weights].buffer)
        if tflite_file.is_constant(parsed, tensors[layer.source]):
            fixed[buffer] += 1  # the product with a constant initial state: it shows no samples
            continue
        position = positions.get(tflite_file.tensor_name(tensors[layer.target]))
        kinds = tflite_file.type_name(tensors[layer.source]), tflite_file.type_name(tensors[layer.weights])
        if position is None or kinds[0] not in _SOURCES or kinds[1] != "INT8":
            continue
        origin = read_layer(floating.parsed, floating.graph.operators[position])
        if origin is not None and (origin.width, origin.fan_in) == (layer.width, layer.fan_in):
            group = groups.setdefault(buffer, _Shared())
            group.layers[place] = (layer, origin, position)
    users = edit.buffer_users(parsed)
    return {
        buffer: each
        for buffer, each in groups.items()
        if len(each.layers) + fixed[buffer] == users[buffer] and users[buffer] > 1
    }


def _observe(
    editor: Editor,
    floating: Model,
    samples: Samples,
    groups: Mapping[int, _Shared],
    rows: int,
    random: np.random.Generator,
) -> None:
    reference, quantized = Executor(floating, samples), Executor(editor, samples)
    owners = {place: group for group in groups.values() for place in group.layers}
    last = max(owners)
    for place in range(last + 1):
        group = owners.get(place)
        if group is not None:
            layer, origin, position = group.layers[place]
            reference.advance_to(position)
            if reference.position == position:
                _add(quantized, reference, layer, origin, group, rows // len(group.layers), random)
        quantized.step()


def _add(
    quantized: Executor,
    reference: Executor,
    layer: Layer,
    origin: Layer,
    group: _Shared,
    rows: int,
    random: np.random.Generator,
) -> None:
    values = quantized.values[layer.source]
    pair = tflite_file.quantization(quantized.parsed.subgraphs[0].tensors[layer.source])
    goal = reference.step_linear(origin)
    if pair is None:
        return
    count = values.size // layer.fan_in
    chosen = layer.choose_rows((count,), random, most=max(rows, _FEWEST_ROWS))
    targets = origin.outputs(goal, chosen)
    if origin.bias >= 0:
        bias = reference.parsed.subgraphs[0].tensors[origin.bias]
        targets = targets - edit.constant(reference.parsed, bias).reshape(1, 1, -1)
    if not group.halves:
        group.halves = [Accumulator(1, layer.width, layer.fan_in) for _ in range(2)]
    first = chosen[0] < count // 2
    for part, inputs in layer.gather(values, chosen, scale=pair[0], zero_point=pair[1]):
        for half, mine in zip(group.halves, (first[part], ~first[part]), strict=True):
            if mine.any():
                half.add(inputs[:, mine], targets[:, part][:, mine])
    group.rows += len(chosen[0])


def _round(parsed: Any, float_parsed: Any, group: _Shared) -> bool:
    layer, origin, _ = next(iter(group.layers.values()))
    if group.rows < _ROWS_PER_INPUT * layer.fan_in or len(group.halves) != 2:
        return False
    first, second = (half.moments() for half in group.halves)
    moments = about_zero(merge(first, second))
    tensors, held = parsed.subgraphs[0].tensors, float_parsed.subgraphs[0].tensors[origin.weights]
    real = origin.to_matrix(edit.constant(float_parsed, held)).astype(np.float64)
    damping = rounding.choose_damping(about_zero(first), about_zero(second), real)
    best = real if damping == np.inf else rounding.regress(moments, real, damping=damping)
    weights = tensors[layer.weights]
    steps = np.broadcast_to(edit.scales(weights), layer.width).reshape(1, layer.width).astype(np.float64)
    integers = rounding.round_to_grid(
        rounding.factorize(moments, damping=_DAMPING), best, steps, limit=_LIMIT
    )
    edit.set_constant(parsed, weights, layer.to_tensor(integers))
    return True
