"""Correction in the order of execution: each layer is fitted on what the corrected layers before it give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.executor import Walk
from edgeq_converters.graph.layers import Layer, Rows, read
from edgeq_converters.progress import Advance
from edgeq_converters.quantization.correction import rounding
from edgeq_converters.quantization.correction.moments import Accumulator, Moments, joined

Array = npt.NDArray[Any]
ROWS = 8192
"""Outputs of a layer that are looked at; more of them changed nothing that could be measured."""

_BIAS_LIMIT = float(1 << 30)
_LIVE_ROUNDS = 3
_ROUND_DAMPING = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is corrected; each can be left out.

    Attributes:
        bias: the mean error of each output channel goes into its bias.
        gain: each output channel's weight scale is fitted by least squares. Off: where the
            weights are rounded anew it buys nothing more.
        weights: the integers are rounded anew so that the layer's error is the least.
        rows: outputs of a layer that are looked at, over all samples and places.
        damping: how strongly the float weights hold against the samples' evidence; None lets one half of
            the samples judge what the other half says, layer by layer.
    """

    bias: bool = True
    gain: bool = False
    weights: bool = True
    rows: int = ROWS
    damping: float | None = None


def correct(
    floating: bytes,
    integer: bytes,
    samples: Samples,
    *,
    subject: str,
    advance: Advance,
    terms: Terms | None = None,
    seed: int = 0,
) -> bytes:
    """Return the int8 model with its layers' weights, scales and biases fitted to the float model.

    The graph, its operations and the activations' scales stay as they are. Layers that are not quantized,
    that share their weights, or have no counterpart of the same name in the float model, stay too.

    Args:
        floating: the float model that `integer` was quantized from; tensors are matched by name.
        samples: for the float model's inputs.
        advance: called with how many operations are done.

    Raises:
        ConverterError: EQ303 when an operation does not run alone.
    """
    terms = terms or Terms()
    reference = Walk(tflite_file.parse(floating, subject=subject), samples, subject=subject)
    quantized = Walk(tflite_file.parse(integer, subject=subject), samples, subject=subject)
    origins = _by_target(reference.model)
    users = edit.users(quantized.model)
    random = np.random.default_rng(seed)
    for operator in quantized.model.subgraphs[0].operators:
        pair = _pair(quantized.model, operator, reference.model, origins, users)
        if pair is not None:
            layer, origin, place = pair
            reference.reach(place)
            if reference.position == place:
                _fit(quantized, layer, reference, origin, terms, random)
        quantized.step()
        advance(1)
    return edit.pack(quantized.model)


def _by_target(model: Any) -> dict[str, int]:
    graph = model.subgraphs[0]
    return {
        tflite_file.tensor_name(graph.tensors[int(operator.outputs[0])]): place
        for place, operator in enumerate(graph.operators)
    }


def _pair(
    model: Any, operator: Any, origin_model: Any, origins: dict[str, int], users: dict[int, int]
) -> tuple[Layer, Layer, int] | None:
    layer = read(model, operator)
    if layer is None or layer.bias < 0:
        return None
    tensors = model.subgraphs[0].tensors
    kinds = [tflite_file.type_name(tensors[i]) for i in (layer.source, layer.weights, layer.bias)]
    shared = any(users[tensors[i].buffer] > 1 for i in (layer.weights, layer.bias))
    place = origins.get(tflite_file.tensor_name(tensors[layer.target]))
    if kinds != ["INT8", "INT8", "INT32"] or shared or place is None:
        return None
    origin = read(origin_model, origin_model.subgraphs[0].operators[place])
    if origin is None or (origin.groups, origin.width, origin.fan_in) != (
        layer.groups, layer.width, layer.fan_in
    ):  # fmt: skip
        return None
    return layer, origin, place


def _fit(
    quantized: Walk, layer: Layer, reference: Walk, origin: Layer, terms: Terms, random: np.random.Generator
) -> None:
    model, tensors = quantized.model, quantized.model.subgraphs[0].tensors
    source, weights, bias, target = (
        tensors[i] for i in (layer.source, layer.weights, layer.bias, layer.target)
    )
    pair, out = tflite_file.quantization(source), tflite_file.quantization(target)
    if pair is None or out is None:
        return
    scale, zero = pair
    shape = (layer.groups, layer.width)
    steps = np.broadcast_to(edit.scales(weights), shape[0] * shape[1]).reshape(shape).astype(np.float64)
    per_channel = len(edit.scales(weights)) == shape[0] * shape[1]
    integers = layer.to_matrix(edit.constant(model, weights)).astype(np.float64)
    offset = edit.constant(model, bias).reshape(shape) * steps * scale
    float_weights = _float_weights(reference.model, origin)

    values = quantized.values[layer.source]
    rows = _rows(layer, values, target, random, most=terms.rows)
    wanted = origin.outputs(reference.step_linear(origin), rows)
    gathered = layer.gather(values, rows, scale=scale, zero_point=zero)
    first, second, moments = _moments(layer, gathered, wanted)

    if terms.weights:
        damping = terms.damping
        if damping is None:
            damping = rounding.choose_damping(first, second, float_weights) if first is not second else np.inf
        integers, steps = _round(moments, float_weights, steps, per_channel, damping)
    if terms.gain and per_channel:
        steps = rounding.gains(moments, integers, steps)
    steps = _safe(steps, offset, scale, out[0])
    real = integers * steps[:, :, None]
    if terms.bias:
        offset = moments.wanted - np.einsum("gok,gk->go", real, moments.source)
        offset = _live(layer, gathered, real, offset, wanted, out)
    _write(model, layer, weights, bias, integers, steps, offset, scale, per_channel)


def _float_weights(model: Any, origin: Layer) -> Array:
    weights = model.subgraphs[0].tensors[origin.weights]
    return origin.to_matrix(edit.constant(model, weights)).astype(np.float64)


def _moments(
    layer: Layer, gathered: Iterable[tuple[slice, Array]], wanted: Array
) -> tuple[Moments, Moments, Moments]:
    """Return the moments of the first half of the rows, of the second, and of all."""
    halves = [Accumulator(layer.groups, layer.width, layer.fan_in) for _ in range(2)]
    middle = wanted.shape[1] // 2
    for part, given in gathered:
        cut = min(max(middle - part.start, 0), part.stop - part.start)
        if cut:
            halves[0].add(given[:, :cut], wanted[:, part][:, :cut])
        if cut < part.stop - part.start:
            halves[1].add(given[:, cut:], wanted[:, part][:, cut:])
    if not middle:
        only = halves[1].moments()
        return only, only, only
    first, second = (half.moments() for half in halves)
    return first, second, joined(first, second)


def _rows(layer: Layer, values: Array, target: Any, random: np.random.Generator, *, most: int) -> Rows:
    if layer.kind == "FULLY_CONNECTED":
        return layer.choose((values.size // layer.fan_in,), random, most=most)
    inner = tuple(int(size) for size in target.shape)[:-1]
    return layer.choose((len(values), *inner), random, most=most)


def _round(
    moments: Moments, weights: Array, steps: Array, per_channel: bool, damping: float
) -> tuple[Array, Array]:
    best = weights if damping == np.inf else rounding.regress(moments, weights, damping=damping)
    if per_channel:
        largest = np.abs(best).max(2)
        steps = np.where(largest > 0, largest / rounding.LIMIT, steps)
    return rounding.round_to_grid(moments, best, steps, damping=_ROUND_DAMPING), steps


def _safe(steps: Array, offset: Array, scale: float, out: float) -> Array:
    # The bias is an int32 in steps of scale * step, and the kernels refuse factors below 2^-32.
    floor = np.maximum(np.abs(offset) / (scale * _BIAS_LIMIT), 2.0**-30 * out / scale)
    return np.maximum(steps, floor)


def _live(
    layer: Layer, gathered: Iterable[tuple[slice, Array]], real: Array, offset: Array, wanted: Array,
    out: tuple[float, int],
) -> Array:  # fmt: skip
    """Fit the bias again behind the activation: what is cut off there is no error."""
    low = np.float32(max(layer.low, (-128 - out[1]) * out[0]))
    high = np.float32(min(layer.high, (127 - out[1]) * out[0]))
    got = np.empty_like(wanted)
    turned = real.astype(np.float32).transpose(0, 2, 1)
    for part, given in gathered:
        got[:, part] = given @ turned
    goal = np.clip(wanted, np.float32(layer.low), np.float32(layer.high))
    count = wanted.shape[1]
    ones = np.ones((1, count), np.float32)  # sums as products: many times the speed of a sum over an axis
    now = np.empty_like(got)
    live = np.empty(got.shape, np.float32)
    for _ in range(_LIVE_ROUNDS):
        np.add(got, offset[:, None, :].astype(np.float32), out=now)
        np.multiply(now > low, now < high, out=live, dtype=np.float32)
        np.subtract(goal, now, out=now)
        now *= live
        error = (ones @ now)[:, 0].astype(np.float64)
        # Against a handful of live rows the mean over all of them stands: shrink by an eighth of a percent.
        offset = offset + error / ((ones @ live)[:, 0].astype(np.float64) + 0.00125 * count + 1)
    return offset


def _write(
    model: Any, layer: Layer, weights: Any, bias: Any, integers: Array, steps: Array, offset: Array,
    scale: float, per_channel: bool,
) -> None:  # fmt: skip
    edit.set_constant(model, weights, layer.to_tensor(integers))
    if per_channel:
        edit.set_scales(weights, steps.ravel())
        steps = edit.scales(weights).reshape(steps.shape)  # as float32 keeps them
        edit.set_scales(bias, (steps * scale).ravel())
    limit = float(np.iinfo(np.int32).max)
    whole = np.clip(np.rint(offset / (steps * scale)), -limit, limit)
    edit.set_constant(model, bias, whole.reshape(tuple(int(size) for size in bias.shape)))
