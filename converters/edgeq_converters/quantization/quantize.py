"""Quantize a float .tflite with given ranges: choose the backend that can execute the recipe, and run it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from edgeq_converters.calibration.ranges import TensorRange
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import carried_states, kernels, op_report, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.quantization import integer_io, named_operations, weight_clipping
from edgeq_converters.quantization.backends import litert, own, tensorflow
from edgeq_converters.quantization.backends.litert import known_ops
from edgeq_converters.recipe import Backend, Recipe, Tail
from edgeq_converters.values import Caution, Claim, OpKind, Scheme

__all__ = ["Quantized", "known_ops", "quantize", "tried", "unexpected_float_ops"]
_LITERT = "litert-quantizer"
_MOST_BYTES = 64 << 20
"""Of a model whose kernels are checked before the calibration; a larger one takes long to quantize twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized model.

    Attributes:
        backend: the library that made it.
        notes: remarks for the user on what was decided automatically.
        claim: what the model reaches on held-out samples; None where none were held out.
        tail: the last operations that were given more bits, or an empty one if such were timed and not taken;
            None where nothing was chosen.
    """

    model: Model
    backend: str
    notes: tuple[str, ...] = ()
    claim: Claim | None = None
    tail: Tail | None = None


def quantize(model: Model, *, recipe: Recipe, ranges: Mapping[str, TensorRange] | None) -> Quantized:
    """Return the model under the recipe's scheme, io, backend and float_ops.

    The backend `auto` writes integer forms that litert-quantizer lacks (`backends.own`), and uses
    TensorFlow's quantizer if an operation still stays float that the recipe does not list in float_ops.

    A state that the model carries from step to step has one range at both ends.

    Args:
        model: a normalized float model.
        ranges: of every activation; needed if `recipe.scheme.needs_ranges`.

    Raises:
        ConverterError: EQ308 a backend refuses the model or the model has a loop, EQ330 a name in float_ops,
            int8_ops or int16_ops is unknown, EQ332 the backend does not support the scheme.
    """
    recipe = named_operations.resolved(model, recipe)
    _require_no_loop(model, recipe)
    states = carried_states.read(model)
    if ranges is not None:
        ranges = carried_states.tied(model, ranges, TensorRange.holding)
    made = _quantize(model, recipe=recipe, ranges=ranges)
    return replace(made, model=carried_states.declared(made.model, states)) if states else made


def _quantize(model: Model, *, recipe: Recipe, ranges: Mapping[str, TensorRange] | None) -> Quantized:
    if recipe.scheme is Scheme.INT4:
        return _quantize_int4(model, recipe=recipe, ranges=ranges or {})
    if recipe.backend is Backend.TENSORFLOW:
        if not recipe.scheme.needs_ranges:
            raise ConverterError(
                "EQ332",
                model.subject,
                f"the backend tensorflow does not support {recipe.scheme}",
                hint="--backend auto",
            )
        quantized = tensorflow.quantize(model, recipe=recipe, ranges=ranges or {})
        return Quantized(model=quantized, backend=tensorflow.NAME)
    made = _by_litert(model, recipe=recipe, ranges=ranges)
    unexpected = unexpected_float_ops(made.model, recipe=recipe)
    if not unexpected or recipe.backend is Backend.LITERT or not tensorflow.is_installed():
        return made
    return _by_tensorflow(model, made, unexpected, recipe=recipe, ranges=ranges or {})


def _by_litert(
    model: Model,
    *,
    recipe: Recipe,
    ranges: Mapping[str, TensorRange] | None,
    int4_ops: Collection[str] = litert.INT4_OPS,
) -> Quantized:
    """Return what litert-quantizer makes, with the integer forms that it lacks."""
    if not recipe.scheme.needs_ranges or recipe.backend is not Backend.AUTO:
        quantized = litert.quantize(model, recipe=recipe, ranges=ranges, int4_ops=int4_ops)
        return Quantized(model=quantized, backend=_LITERT)
    planned = own.plan(model, recipe)
    tables = tuple(name for region in planned.regions for name in region.operations)
    left = replace(recipe, float_ops=(*recipe.float_ops, *tables))
    quantized = litert.quantize(model, recipe=left, ranges=ranges, int4_ops=int4_ops)
    completed = own.complete(quantized, planned, ranges=ranges or {})
    return Quantized(model=completed.model, backend=_LITERT, notes=own.notes(completed))


def tried(model: Model, *, recipe: Recipe) -> Model | None:
    """Return what a scheme makes of a model before anything is calibrated; None where it cannot be known.

    Which operations have an integer kernel does not depend on the ranges, so that each tensor gets -1 to 1.

    Args:
        model: a float model, prepared for integers.
    """
    if recipe.full_integer and len(model.data) > _MOST_BYTES:
        return None
    ranges = {
        tflite_file.tensor_name(tensor): TensorRange.per_tensor(-1.0, 1.0)
        for _, tensor in tflite_file.activations(model.parsed)
    }
    variables = (each for each in model.graph.tensors if each.isVariable)
    ranges |= {tflite_file.tensor_name(each): TensorRange.per_tensor(-1.0, 1.0) for each in variables}
    try:
        made = quantize(model, recipe=recipe, ranges=ranges).model
    except ConverterError:
        return None  # these ranges may be the reason; the conversion with calibrated ones says what is wrong
    return integer_io.with_unread_inputs(made, io=recipe.core_io)


def unexpected_float_ops(quantized: Model, *, recipe: Recipe) -> tuple[str, ...]:
    """Return the kinds of operations that compute in float although the recipe wants them in integers."""
    if not recipe.scheme.needs_ranges:
        return ()
    kinds = set()
    for line, operator in zip(op_report.op_lines(quantized), quantized.graph.operators, strict=False):
        name = tflite_file.operation_name(quantized.graph, operator)
        computes_in_float = line.kind is not OpKind.INTEGER and line.op not in op_report.CONVERSIONS
        if computes_in_float and name not in recipe.float_ops:
            kinds.add(line.op)
    return tuple(sorted(kinds))


def _by_tensorflow(
    model: Model,
    by_litert: Quantized,
    unexpected: tuple[str, ...],
    *,
    recipe: Recipe,
    ranges: Mapping[str, TensorRange],
) -> Quantized:
    names = ", ".join(unexpected)
    try:
        by_tensorflow = tensorflow.quantize(model, recipe=recipe, ranges=ranges)
    except ConverterError as error:
        caution = Caution(f"litert-quantizer leaves {names} in float, and {error.problem}")
        return replace(by_litert, notes=(*by_litert.notes, caution))
    if set(unexpected_float_ops(by_tensorflow, recipe=recipe)) >= set(unexpected):
        caution = Caution(
            f"neither litert-quantizer nor TensorFlow can quantize {names}, which stay in float"
        )
        return replace(by_litert, notes=(*by_litert.notes, caution))
    note = f"litert-quantizer leaves {names} in float, so TensorFlow's quantizer made the model"
    return Quantized(model=by_tensorflow, backend=tensorflow.NAME, notes=(note,))


def _quantize_int4(model: Model, *, recipe: Recipe, ranges: Mapping[str, TensorRange]) -> Quantized:
    """Return the model with int4 weights where the runtime computes them correctly, and int8 elsewhere."""
    candidates = [kind for kind in litert.INT4_OPS if kind in _weighted_kinds(model, recipe.int8_ops)]
    notes: list[str] = []
    int4_kinds: list[str] = []
    best = quantize(model, recipe=replace(recipe, scheme=Scheme.INT8, int8_ops=()), ranges=ranges)
    if best.backend != _LITERT:
        note = "int4 weights: none, because the model needs TensorFlow's quantizer, which supports int8 only"
        return replace(best, notes=(*best.notes, note))
    for kind in candidates:
        kinds = (*int4_kinds, kind)
        clipped = weight_clipping.clipped_ranges(model, bits=4, kinds=kinds, keep=recipe.int8_ops)
        try:
            made = _by_litert(model, recipe=recipe, ranges={**ranges, **clipped}, int4_ops=kinds)
            kernels.require_alike(made.model)
        except ConverterError as error:
            notes.append(f"{kind} keeps int8 weights: {error.problem}")
            continue
        int4_kinds.append(kind)
        best = made
    int8_kinds = sorted(_weighted_kinds(model) - set(int4_kinds))
    exceptions = f" except {len(recipe.int8_ops)} operations" if recipe.int8_ops else ""
    summary = (
        f"int4 weights: {', '.join(int4_kinds) or 'none'}{exceptions}; "
        f"int8 weights: {', '.join(int8_kinds) or 'none'}"
    )
    return replace(best, notes=(*best.notes, summary, *notes))


def _weighted_kinds(model: Model, except_names: Collection[str] = ()) -> set[str]:
    """Return the kinds of operations that read float constants of more than one dimension."""
    tensors = model.graph.tensors
    return {
        tflite_file.op_name(model.parsed, operator)
        for operator in model.graph.operators
        if tflite_file.operation_name(model.graph, operator) not in except_names
        for index in operator.inputs
        if index >= 0
        and tflite_file.type_name(tensors[index]) == "FLOAT32"
        and tflite_file.is_constant(model.parsed, tensors[index])
        and len(tflite_file.index_list(tensors[index].shape)) > 1
    }


def _require_no_loop(model: Model, recipe: Recipe) -> None:
    loops = {"WHILE", "IF", "CALL"} & {
        tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators
    }
    if loops and recipe.scheme.needs_ranges:
        raise ConverterError(
            "EQ308",
            model.subject,
            f"no backend can quantize the operations inside a {min(loops)}",
            hint="build recurrent layers with unroll=True, or use --scheme float16",
        )
