"""Quantize a float .tflite with given ranges: choose the backend that can execute the recipe, and run it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from edgeq_converters.calibration.ranges import TensorRange
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import kernels, op_report, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.quantization import weight_clipping
from edgeq_converters.quantization.backends import litert, tensorflow
from edgeq_converters.quantization.backends.litert import known_ops
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import Caution, Claim, OpKind, Scheme

__all__ = ["Quantized", "known_ops", "quantize", "unexpected_float_ops"]
_LITERT = "litert-quantizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized model.

    Attributes:
        backend: the library that made it.
        notes: remarks for the user on what was decided automatically.
        claim: what the model reaches on held-out samples; None where none were held out.
    """

    model: Model
    backend: str
    notes: tuple[str, ...] = ()
    claim: Claim | None = None


def quantize(model: Model, *, recipe: Recipe, ranges: Mapping[str, TensorRange] | None) -> Quantized:
    """Return the model under the recipe's scheme, io, backend and float_ops.

    The backend `auto` uses TensorFlow's quantizer if litert-quantizer leaves an operation in float that the
    recipe does not list in float_ops.

    Args:
        model: a normalized float model.
        ranges: of every activation; needed if `recipe.scheme.needs_ranges`.

    Raises:
        ConverterError: EQ308 a backend refuses the model or the model has a loop, EQ330 a name in float_ops,
            int8_ops or int16_ops is unknown, EQ332 the backend does not support the scheme.
    """
    _require_known_names(model, recipe)
    _require_no_loop(model, recipe)
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
    quantized = litert.quantize(model, recipe=recipe, ranges=ranges)
    unexpected = unexpected_float_ops(quantized, recipe=recipe)
    if not unexpected or recipe.backend is Backend.LITERT or not tensorflow.is_installed():
        return Quantized(model=quantized, backend=_LITERT)
    return _by_tensorflow(model, quantized, unexpected, recipe=recipe, ranges=ranges or {})


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
    by_litert: Model,
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
        return Quantized(model=by_litert, backend=_LITERT, notes=(caution,))
    if set(unexpected_float_ops(by_tensorflow, recipe=recipe)) >= set(unexpected):
        caution = Caution(
            f"neither litert-quantizer nor TensorFlow can quantize {names}, which stay in float"
        )
        return Quantized(model=by_litert, backend=_LITERT, notes=(caution,))
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
            quantized = litert.quantize(model, recipe=recipe, ranges={**ranges, **clipped}, int4_ops=kinds)
            kernels.require_alike(quantized)
        except ConverterError as error:
            notes.append(f"{kind} keeps int8 weights: {error.problem}")
            continue
        int4_kinds.append(kind)
        best = Quantized(model=quantized, backend=_LITERT)
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


def _require_known_names(model: Model, recipe: Recipe) -> None:
    if not (recipe.float_ops or recipe.int8_ops or recipe.int16_ops):
        return
    names = [tflite_file.operation_name(model.graph, operator) for operator in model.graph.operators]
    for key, listed in (
        ("float_ops", recipe.float_ops),
        ("int8_ops", recipe.int8_ops),
        ("int16_ops", recipe.int16_ops or ()),
    ):
        for name in listed:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0)
                raise ConverterError(
                    "EQ330",
                    model.subject,
                    f"no operation has the output tensor {name!r}, which {key} names",
                    expected=f"the name of an operation's first output, such as {near[0]!r}"
                    if near
                    else None,
                    hint="`edgeq sensitivity FLOAT --calibration C.npz --evaluation E.npz -v` lists names",
                )
