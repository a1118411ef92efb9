"""From a float .tflite, a recipe and ranges to a quantized .tflite, by the backend that can do it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import kernels, op_report, tflite_file
from edgeq_converters.quantization import weight_clipping
from edgeq_converters.quantization.backends import litert, tensorflow
from edgeq_converters.quantization.backends.litert import known_ops
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import OpKind, Scheme

__all__ = ["Quantized", "known_ops", "make", "quantize", "strays"]
_LITERT = "litert-quantizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized model.

    Attributes:
        backend: the library that made it.
        notes: what was chosen by itself, to be said to the user.
    """

    data: bytes
    backend: str
    notes: tuple[str, ...] = ()


def quantize(data: bytes, *, recipe: Recipe, ranges: Mapping[str, Any] | None, subject: str) -> bytes:
    """Return the quantized model; `make` says how it came about too."""
    return make(data, recipe=recipe, ranges=ranges, subject=subject).data


def make(data: bytes, *, recipe: Recipe, ranges: Mapping[str, Any] | None, subject: str) -> Quantized:
    """Return the model under the recipe's scheme, io, backend and float_ops.

    With the backend `auto` TensorFlow's quantizer is taken where litert-quantizer leaves an operation in
    float that the recipe does not leave in float.

    Args:
        data: a float .tflite with unique tensor names.
        ranges: {tensor: {min, max}} of every activation; needed where `recipe.scheme.needs_ranges`.

    Raises:
        ConverterError: EQ308 a backend refuses the model or it has a loop, EQ330 float_ops that it does not
            have, EQ332 the backend cannot make the scheme.
    """
    _require_known(data, recipe, subject)
    _require_no_loop(data, recipe, subject)
    if recipe.scheme is Scheme.INT4:
        return _with_int4(data, recipe=recipe, ranges=ranges, subject=subject)
    if recipe.backend is Backend.TENSORFLOW:
        if not recipe.scheme.needs_ranges:
            raise ConverterError(
                "EQ332",
                subject,
                f"the backend tensorflow does not make {recipe.scheme}",
                hint="--backend auto",
            )
        made = tensorflow.quantize(data, recipe=recipe, ranges=ranges or {}, subject=subject)
        return Quantized(data=made, backend=tensorflow.NAME)
    made = litert.quantize(data, recipe=recipe, ranges=ranges, subject=subject)
    stayed = strays(data, made, recipe=recipe, subject=subject)
    if not stayed or recipe.backend is Backend.LITERT or not tensorflow.is_installed():
        return Quantized(data=made, backend=_LITERT)
    return _by_tensorflow(data, made, stayed, recipe=recipe, ranges=ranges or {}, subject=subject)


def strays(data: bytes, made: bytes, *, recipe: Recipe, subject: str) -> tuple[str, ...]:
    """Return the kinds of operations that work in float though the recipe would have them in integers."""
    if not recipe.scheme.needs_ranges:
        return ()
    model = tflite_file.parse(made, subject=subject)
    graph = model.subgraphs[0]
    found = set()
    for line, operator in zip(op_report.lines(model), graph.operators, strict=False):
        name = tflite_file.tensor_name(graph.tensors[operator.outputs[0]])
        works_in_float = line.kind is not OpKind.INTEGER and line.op not in op_report.CONVERSIONS
        if works_in_float and name not in recipe.float_ops:
            found.add(line.op)
    return tuple(sorted(found))


def _by_tensorflow(
    data: bytes,
    made: bytes,
    stayed: tuple[str, ...],
    *,
    recipe: Recipe,
    ranges: Mapping[str, Any],
    subject: str,
) -> Quantized:
    names = ", ".join(stayed)
    try:
        theirs = tensorflow.quantize(data, recipe=recipe, ranges=ranges, subject=subject)
    except ConverterError as error:
        said = f"litert-quantizer leaves {names} in float, and {error.problem}"
        return Quantized(data=made, backend=_LITERT, notes=(said,))
    left = set(strays(data, theirs, recipe=recipe, subject=subject))
    if left >= set(stayed):
        said = f"neither litert-quantizer nor TensorFlow has {names} in integers"
        return Quantized(data=made, backend=_LITERT, notes=(said,))
    said = f"litert-quantizer leaves {names} in float; TensorFlow's quantizer made the model"
    return Quantized(data=theirs, backend=tensorflow.NAME, notes=(said,))


def _with_int4(data: bytes, *, recipe: Recipe, ranges: Mapping[str, Any] | None, subject: str) -> Quantized:
    """Return the model with int4 weights wherever the runtime here really runs them, int8 elsewhere."""
    model = tflite_file.parse(data, subject=subject)
    wanted = [kind for kind in litert.INT4_OPS if kind in _weighted(model, recipe.int8_ops)]
    notes: list[str] = []
    kept: list[str] = []
    base = replace(recipe, scheme=Scheme.INT8, int8_ops=())
    best = make(data, recipe=base, ranges=ranges, subject=subject)
    if best.backend != _LITERT:
        said = "int4 weights: none, since TensorFlow's quantizer, which the model needs, makes int8 only"
        return replace(best, notes=(*best.notes, said))
    for kind in wanted:
        kinds = (*kept, kind)
        extra = weight_clipping.clipped(data, bits=4, kinds=kinds, keep=recipe.int8_ops, subject=subject)
        given = {**(ranges or {}), **extra}
        try:
            made = litert.quantize(data, recipe=recipe, ranges=given, subject=subject, int4_ops=kinds)
            kernels.require_alike(made, subject=subject)
        except ConverterError as error:
            notes.append(f"{kind} keeps int8 weights: {error.problem}")
            continue
        kept.append(kind)
        best = Quantized(data=made, backend=_LITERT)
    others = sorted(_weighted(model) - set(kept))
    some = f" but {len(recipe.int8_ops)} operations" if recipe.int8_ops else ""
    told = f"int4 weights: {', '.join(kept) or 'none'}{some}; int8 weights: {', '.join(others) or 'none'}"
    notes.insert(0, told)
    return replace(best, notes=(*best.notes, *notes))


def _weighted(model: Any, left: Collection[str] = ()) -> set[str]:
    """Return the kinds of operations, but those left, that have float constants of several dimensions."""
    graph = model.subgraphs[0]
    return {
        tflite_file.op_name(model, operator)
        for operator in graph.operators
        if tflite_file.tensor_name(graph.tensors[operator.outputs[0]]) not in left
        for index in operator.inputs
        if index >= 0
        and tflite_file.type_name(graph.tensors[index]) == "FLOAT32"
        and tflite_file.is_constant(model, graph.tensors[index])
        and len(graph.tensors[index].shape if graph.tensors[index].shape is not None else ()) > 1
    }


def _require_no_loop(data: bytes, recipe: Recipe, subject: str) -> None:
    model = tflite_file.parse(data, subject=subject)
    loops = {"WHILE", "IF", "CALL"} & {
        tflite_file.op_name(model, operator) for operator in model.subgraphs[0].operators
    }
    if loops and recipe.scheme.needs_ranges:
        raise ConverterError(
            "EQ308",
            subject,
            f"the model has {min(loops)}, inside of which no backend makes anything integer",
            hint="build recurrent layers with unroll=True, or use --scheme float16",
        )


def _require_known(data: bytes, recipe: Recipe, subject: str) -> None:
    if not recipe.float_ops and not recipe.int8_ops:
        return
    graph = tflite_file.parse(data, subject=subject).subgraphs[0]
    names = [tflite_file.tensor_name(graph.tensors[operator.outputs[0]]) for operator in graph.operators]
    for wanted in (*recipe.float_ops, *recipe.int8_ops):
        if wanted not in names:
            near = difflib.get_close_matches(wanted, names, n=1, cutoff=0)
            raise ConverterError(
                "EQ330",
                subject,
                f"no operation has the output tensor {wanted!r}, which {_key(recipe)} names",
                expected=f"the name of an operation's first output, as {near[0]!r}" if near else None,
                hint="edgeq sensitivity lists the names",
            )


def _key(recipe: Recipe) -> str:
    return "float_ops" if recipe.float_ops else "int8_ops"
