"""Decide which operations of an integer model stay float, and describe the float part of a written model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import op_report, postprocessing, tflite_file
from edgeq_converters.graph.edit import extract_operation
from edgeq_converters.graph.float_regions import fill_gaps, operations
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.quantization import named_operations
from edgeq_converters.quantization.backends import tensorflow
from edgeq_converters.quantization.quantize import tried
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import FloatCost, FloatOperation, FloatPart, OpKind, OpLine

_NO_KERNEL = "has no integer kernel"
_NAMED = "named by --keep-float"
_ALWAYS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
"""Every runtime has integer kernels for these; one that does not run has weights that are out of bounds."""
_JOINED = "between float operations, which saves conversions"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatPlan:
    """Which operations stay float.

    Attributes:
        recipe: with their names in `float_ops`.
        reasons: {name of an operation: why it stays float}.
    """

    recipe: Recipe
    reasons: Mapping[str, str] = field(default_factory=dict)


def plan(model: Model, recipe: Recipe) -> FloatPlan:
    """Return which operations stay float under a recipe that allows it.

    These are the operations that the recipe names, those without an integer kernel, and those that save
    conversions between them. Without an operation of the second kind, only the named ones stay float.

    Args:
        model: a float model, prepared for integers.

    Raises:
        ConverterError: EQ330 the recipe names an operation that the model does not have.
    """
    recipe = named_operations.resolved(model, recipe)
    reasons = dict.fromkeys(recipe.float_ops, _NAMED)
    head = postprocessing.detach(model).model
    lacking = _without_kernel(head, named_operations.within(head, recipe)) - set(recipe.float_ops)
    if not lacking:
        return FloatPlan(recipe=recipe, reasons=reasons)
    ops = operations(head)
    fixed = {op.index for op in ops if op.name in lacking or op.name in recipe.float_ops}
    chosen = fill_gaps(ops, fixed, float_ends=recipe.core_io == "float32")
    for op in ops:
        if op.index in chosen and op.name not in reasons:
            reasons[op.name] = _NO_KERNEL if op.name in lacking else _JOINED
    return FloatPlan(recipe=replace(recipe, float_ops=tuple(reasons)), reasons=reasons)


def _without_kernel(model: Model, recipe: Recipe) -> set[str]:
    """Return the names of the operations that no quantizer or no kernel can compute in integers."""
    made = tried(model, recipe=recipe)
    if made is not None and _runs(made):
        return set(_float_names(made))
    return {name for _, _, name in refused(model, recipe)}


def require_kernels(made: Model, model: Model, recipe: Recipe) -> None:
    """Check that the runtime has kernels for what the quantizer made.

    Args:
        made: what `tried` returns for the model.

    Raises:
        ConverterError: EQ307 naming the operations that it does not run.
    """
    if _runs(made):
        return
    lacking = refused(model, recipe)
    if lacking:
        reason = f"no {recipe.scheme} kernel in the runtime"
        lines = [OpLine(index=index, op=kind, kind=OpKind.FLOAT, reason=reason) for index, kind, _ in lacking]
        raise op_report.not_integer(lines, len(model.graph.operators), subject=model.subject)


def refused(model: Model, recipe: Recipe) -> tuple[tuple[int, str, str], ...]:
    """Return (position, kind, name) of the operations that have no integer kernel when each is tried alone.

    A quantizer or a runtime that refuses a whole model does not name the operation.
    """
    alone = replace(recipe, float_ops=(), int16_ops=(), int8_ops=())
    listed = []
    for index, operator in enumerate(model.graph.operators):
        name = tflite_file.operation_name(model.graph, operator)
        if tflite_file.op_name(model.parsed, operator) in _ALWAYS:
            continue
        if name and not _has_kernel(normalize(extract_operation(model, operator)[0]), alone):
            listed.append((index, tflite_file.op_name(model.parsed, operator), name))
    return tuple(listed)


def _has_kernel(alone: Model, recipe: Recipe) -> bool:
    if tensorflow.has_lstm(alone):
        # Inside are ranges that only samples give; without them it cannot be tried.
        return recipe.backend is not Backend.LITERT
    made = tried(alone, recipe=recipe)
    return made is not None and _runs(made) and not any(_float_names(made))


def _runs(model: Model) -> bool:
    """Return whether the runtime computes a model; some kernels refuse their types only then."""
    try:
        interpreter = Interpreter(model)
        interpreter.run([_value(detail) for detail in interpreter.inputs])
    except ConverterError:
        return False
    return True


def _value(detail: Mapping[str, Any]) -> Any:
    # No real value is zero, by which a kernel may refuse to divide; an index is, which every table has.
    dtype = np.dtype(detail["dtype"])
    value = 64 if detail["quantization"][0] else dtype.kind in "fb"
    return np.full(detail["shape"], value, dtype)


def _float_names(model: Model) -> Iterator[str]:
    """Yield the names of the operations of the main graph that compute in float, without conversions."""
    for line, operator in zip(op_report.op_lines(model), model.graph.operators, strict=False):
        if line.kind is not OpKind.INTEGER and line.op not in op_report.CONVERSIONS:
            yield tflite_file.operation_name(model.graph, operator)


def float_operations(model: Model, reasons: Mapping[str, str]) -> tuple[FloatOperation, ...]:
    """Return the operations of an integer model that compute in float, without conversions.

    Args:
        reasons: {name: why it is float}, as a plan gives them; for other operations the op report says it.
    """
    graph = model.graph
    listed = []
    for line, operator in zip(op_report.op_lines(model), graph.operators, strict=False):
        if line.kind is OpKind.INTEGER or line.op in op_report.CONVERSIONS:
            continue
        name = tflite_file.operation_name(graph, operator)
        reason = reasons.get(name, line.reason)
        listed.append(FloatOperation(index=line.index, op=line.op, name=name, reason=reason))
    return tuple(listed)


def border_conversions(model: Model, float_indices: Collection[int]) -> frozenset[int]:
    """Return the positions of the QUANTIZE and DEQUANTIZE that touch a float operation of the main graph."""
    graph = model.graph
    touched = {
        index for number in float_indices for index in tflite_file.tensor_indices(graph.operators[number])
    }
    return frozenset(
        number
        for number, operator in enumerate(graph.operators)
        if tflite_file.op_name(model.parsed, operator) in op_report.CONVERSIONS
        and touched.intersection(tflite_file.tensor_indices(operator))
    )


def describe(
    model: Model, listed: tuple[FloatOperation, ...], *, cost: FloatCost | None, unmeasured: str
) -> FloatPart:
    """Return the float part of a written model."""
    indices = [each.index for each in listed]
    kinds = [tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators]
    computing = sum(kind not in op_report.CONVERSIONS for kind in kinds)
    return FloatPart(
        operations=listed,
        regions=_regions(model, indices),
        conversions=len(border_conversions(model, indices)),
        share=len(listed) / max(computing, 1),
        cost=cost,
        unmeasured=unmeasured,
    )


def _regions(model: Model, indices: Collection[int]) -> int:
    """Return how many groups operations form that computed tensors connect."""
    graph = model.graph
    groups: list[set[int]] = []
    for number in indices:
        mine = {
            index
            for index in tflite_file.tensor_indices(graph.operators[number])
            if not tflite_file.is_constant(model.parsed, graph.tensors[index])
        }
        apart = [group for group in groups if not group & mine]
        groups = [*apart, mine.union(*(group for group in groups if group & mine))]
    return len(groups)
