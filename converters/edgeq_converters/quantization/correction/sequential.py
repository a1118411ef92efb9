"""Correct layers in order of execution: each is fitted on the outputs of the corrected layers before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.executor import Executor
from edgeq_converters.graph.layers import Layer, Rows, read_layer
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance
from edgeq_converters.quantization.correction import rounding
from edgeq_converters.quantization.correction.moments import Accumulator, Moments, about_zero, merge
from edgeq_converters.quantization.correction.shared import correct_shared

Array = npt.NDArray[Any]
ROWS = 8192
"""Outputs of a layer to fit it on; more made no measurable difference."""

_KINDS = (
    ("INT8", "INT8", "INT32"),
    ("INT8", "INT4", "INT32"),
    ("INT16", "INT8", "INT64"),
    ("INT16", "INT8", "INT32"),
)
"""Types of a layer's input, weights and bias, if it has one, that can be corrected."""
_LIMITS = {"INT8": (-128, 127), "INT16": (-32768, 32767)}
"""Of the integers of an activation."""
_BIAS_LIMIT = {"INT32": float(1 << 30), "INT64": float(1 << 40)}
_INPUTS_PER_ROW = 32
"""Weights of an output for each row, above which they stay: so few rows say nothing about most of them."""
_LIVE_ROUNDS = 3
_LIVE_ROWS = 4096
"""Of a layer's outputs, to fit its bias after the activation: a mean needs fewer than the weights do."""
_ROUND_DAMPING = 0.1
_CLIPPED_LIMIT = 7
"""Largest integer up to which clipping pays; with 8 bits it gains nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What to correct.

    Attributes:
        bias: move the mean error of each output channel into its bias.
        gain: fit the weight scale of each output channel by least squares. Off by default: it gains nothing
            more after the weights are rounded again.
        weights: round the weights again so that the layer's error is least.
        rows: outputs of a layer to fit it on, over all samples and positions.
        damping: strength of the regularization towards the float weights; None cross-validates it for each
            layer on two halves of the samples.
    """

    bias: bool = True
    gain: bool = False
    weights: bool = True
    rows: int = ROWS
    damping: float | None = None


def correct(
    floating: Model,
    integer: Model,
    samples: Samples,
    *,
    advance: Advance,
    terms: Terms | None = None,
    seed: int = 0,
) -> Model:
    """Return the integer model with its layers' weights, scales and biases fitted to the float model.

    The graph, its operations and the activations' scales do not change. Neither do layers that are not
    quantized, or that have no counterpart of the same name in the float model. Layers that share their
    weights have them rounded once, for all of them, and keep their biases.

    Args:
        floating: the float model that `integer` was quantized from; tensors are matched by name.
        samples: for the float model's inputs.
        advance: called after each operation.
        seed: of the choice of rows.

    Raises:
        ConverterError: EQ303 LiteRT does not run an operation on its own.
    """
    terms = terms or Terms()
    if terms.weights:
        integer = correct_shared(floating, integer, samples, rows=terms.rows, seed=seed)
    editor = Editor(integer)
    reference = Executor(floating, samples)
    quantized = Executor(editor, samples)
    positions = {
        tflite_file.operation_name(floating.graph, operator): position
        for position, operator in enumerate(floating.graph.operators)
    }
    users = edit.buffer_users(editor.parsed)
    random = np.random.default_rng(seed)
    for operator in editor.parsed.subgraphs[0].operators:
        pair = _counterparts(editor.parsed, operator, floating.parsed, positions, users)
        if pair is not None:
            layer, origin, position = pair
            reference.advance_to(position)
            if reference.position == position:
                _fit(quantized, layer, reference, origin, terms, random)
        quantized.step()
        advance(1)
    return editor.pack()


def _counterparts(
    parsed: Any, operator: Any, float_parsed: Any, positions: dict[str, int], users: dict[int, int]
) -> tuple[Layer, Layer, int] | None:
    """Return (int8 layer, float layer, position of the float one); None where there is nothing to fit."""
    layer = read_layer(parsed, operator)
    if layer is None:
        return None
    tensors = parsed.subgraphs[0].tensors
    if tflite_file.is_constant(parsed, tensors[layer.source]):
        return None
    constants = [layer.weights] if layer.bias < 0 else [layer.weights, layer.bias]
    kinds = tuple(tflite_file.type_name(tensors[i]) for i in (layer.source, *constants))
    shared = any(users[tensors[i].buffer] > 1 for i in constants)
    position = positions.get(tflite_file.tensor_name(tensors[layer.target]))
    if kinds not in {each[: len(kinds)] for each in _KINDS} or shared or position is None:
        return None
    origin = read_layer(float_parsed, float_parsed.subgraphs[0].operators[position])
    if origin is None or (origin.groups, origin.width, origin.fan_in) != (
        layer.groups, layer.width, layer.fan_in
    ):  # fmt: skip
        return None
    return layer, origin, position


def _fit(
    quantized: Executor,
    layer: Layer,
    reference: Executor,
    origin: Layer,
    terms: Terms,
    random: np.random.Generator,
) -> None:
    parsed, tensors = quantized.parsed, quantized.parsed.subgraphs[0].tensors
    source, weights, target = (tensors[i] for i in (layer.source, layer.weights, layer.target))
    bias = tensors[layer.bias] if layer.bias >= 0 else None
    pair, out = tflite_file.quantization(source), tflite_file.quantization(target)
    if pair is None or out is None:
        return
    scale, zero = pair
    shape = (layer.groups, layer.width)
    steps = np.broadcast_to(edit.scales(weights), shape[0] * shape[1]).reshape(shape).astype(np.float64)
    per_channel = len(edit.scales(weights)) == shape[0] * shape[1]
    integers = layer.to_matrix(edit.constant(parsed, weights)).astype(np.float64)
    offset = np.zeros(shape)
    if bias is not None:
        offset = edit.constant(parsed, bias).reshape(shape) * steps * scale
    float_weights = _float_weights(reference.parsed, origin)

    values = quantized.values[layer.source]
    rows = _rows(layer, values, target, random, most=terms.rows)
    fits_weights = terms.weights and len(rows[0]) * _INPUTS_PER_ROW >= layer.fan_in
    if not fits_weights and bias is None:
        return
    goal = origin.outputs(reference.step_linear(origin), rows)
    gathered = layer.gather(values, rows, scale=scale, zero_point=zero)
    first, second, moments = _moments(layer, gathered, goal)
    halved = first is not second
    if bias is None:
        first, second, moments = (about_zero(each) for each in (first, second, moments))

    if fits_weights:
        damping = terms.damping
        if damping is None:
            damping = rounding.choose_damping(first, second, float_weights) if halved else np.inf
        limit = rounding.LIMITS[tflite_file.type_name(weights)]
        integers, steps = _round(moments, float_weights, steps, per_channel, damping, limit)
    if terms.gain and per_channel:
        steps = rounding.gains(moments, integers, steps)
    most = np.inf if bias is None else _BIAS_LIMIT[tflite_file.type_name(bias)]
    steps = _safe(steps, offset, scale, out[0], limit=most)
    real = integers * steps[:, :, None]
    if terms.bias and bias is not None:
        offset = moments.target - np.einsum("gok,gk->go", real, moments.source)
        ends = _ends(out, tflite_file.type_name(target))
        offset = _fit_live_bias(layer, gathered, real, offset, goal, ends)
    _write(parsed, layer, weights, bias, integers, steps, offset, scale, per_channel)


def _float_weights(parsed: Any, origin: Layer) -> Array:
    weights = parsed.subgraphs[0].tensors[origin.weights]
    return origin.to_matrix(edit.constant(parsed, weights)).astype(np.float64)


def _moments(
    layer: Layer, gathered: Iterable[tuple[slice, Array]], goal: Array
) -> tuple[Moments, Moments, Moments]:
    """Return the moments of the first half of the rows, of the second, and of all."""
    halves = [Accumulator(layer.groups, layer.width, layer.fan_in) for _ in range(2)]
    middle = goal.shape[1] // 2
    for part, inputs in gathered:
        cut = min(max(middle - part.start, 0), part.stop - part.start)
        if cut:
            halves[0].add(inputs[:, :cut], goal[:, part][:, :cut])
        if cut < part.stop - part.start:
            halves[1].add(inputs[:, cut:], goal[:, part][:, cut:])
    if not middle:
        only = halves[1].moments()
        return only, only, only
    first, second = (half.moments() for half in halves)
    return first, second, merge(first, second)


def _rows(layer: Layer, values: Array, target: Any, random: np.random.Generator, *, most: int) -> Rows:
    if layer.kind == "FULLY_CONNECTED":
        return layer.choose_rows((values.size // layer.fan_in,), random, most=most)
    inner = tuple(int(size) for size in target.shape)[:-1]
    return layer.choose_rows((len(values), *inner), random, most=most)


def _round(
    moments: Moments, weights: Array, steps: Array, per_channel: bool, damping: float, limit: int
) -> tuple[Array, Array]:
    best = weights if damping == np.inf else rounding.regress(moments, weights, damping=damping)
    factors = rounding.factorize(moments, damping=_ROUND_DAMPING)
    if per_channel and limit <= _CLIPPED_LIMIT:
        return rounding.round_and_clip(factors, best, limit=limit)
    if per_channel:
        largest = np.abs(best).max(2)
        steps = np.where(largest > 0, largest / limit, steps)
    return rounding.round_to_grid(factors, best, steps, limit=limit), steps


def _safe(steps: Array, offset: Array, scale: float, out: float, *, limit: float) -> Array:
    # The bias is an integer in units of scale * step, and the kernels reject factors below 2^-32.
    floor = np.maximum(np.abs(offset) / (scale * limit), 2.0**-30 * out / scale)
    return np.maximum(steps, floor)


def _ends(out: tuple[float, int], kind: str) -> tuple[float, float]:
    """Return the real values that the smallest and the largest integer of an output stand for."""
    low, high = _LIMITS[kind]
    return (low - out[1]) * out[0], (high - out[1]) * out[0]


def _fit_live_bias(
    layer: Layer, gathered: Iterable[tuple[slice, Array]], real: Array, offset: Array, goal: Array,
    ends: tuple[float, float],
) -> Array:  # fmt: skip
    """Return the bias fitted after the activation, where values beyond its bounds cause no error.

    Args:
        real: the quantized weights as real values, (groups, width, fan_in).
        offset: the bias fitted before the activation, (groups, width).
        goal: the reference outputs before the activation, (groups, rows, width).
        ends: the lowest and the highest real value of the output.
    """
    low, high = np.float32(max(layer.low, ends[0])), np.float32(min(layer.high, ends[1]))
    turned = real.astype(np.float32).transpose(0, 2, 1)
    # The rows go evenly over all samples and positions, and so does every n-th of them.
    step = max(goal.shape[1] // _LIVE_ROWS, 1)
    got = np.concatenate([inputs[:, ::step] @ turned for _, inputs in gathered], axis=1)
    goal = np.concatenate([goal[:, part][:, ::step] for part, _ in gathered], axis=1)
    clipped = np.clip(goal, np.float32(layer.low), np.float32(layer.high))
    count = goal.shape[1]
    ones = np.ones((1, count), np.float32)  # a matrix product is many times faster than a sum over an axis
    now = np.empty_like(got)
    live = np.empty(got.shape, np.float32)
    for _ in range(_LIVE_ROUNDS):
        np.add(got, offset[:, None, :].astype(np.float32), out=now)
        np.multiply(now > low, now < high, out=live, dtype=np.float32)
        np.subtract(clipped, now, out=now)
        now *= live
        error = (ones @ now)[:, 0].astype(np.float64)
        # With a handful of live rows, stay near the mean over all rows: shrink by 0.125 % of their number.
        offset = offset + error / ((ones @ live)[:, 0].astype(np.float64) + 0.00125 * count + 1)
    return offset


def _write(
    parsed: Any, layer: Layer, weights: Any, bias: Any, integers: Array, steps: Array, offset: Array,
    scale: float, per_channel: bool,
) -> None:  # fmt: skip
    edit.set_constant(parsed, weights, layer.to_tensor(integers))
    if per_channel:
        edit.set_scales(weights, steps.ravel())
        steps = edit.scales(weights).reshape(steps.shape)  # as float32 stores them
    if bias is None:
        return
    if per_channel:
        edit.set_scales(bias, (steps * scale).ravel())
    limit = 2 * _BIAS_LIMIT[tflite_file.type_name(bias)] - 1
    whole = np.clip(np.rint(offset / (steps * scale)), -limit, limit)
    edit.set_constant(parsed, bias, whole.reshape(tuple(int(size) for size in bias.shape)))
