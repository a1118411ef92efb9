"""Op report: whether each operation of a model computes in integers or float, and why."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.values import IoTypes, ModelInfo, OpKind, OpLine

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})
_FLOATS = {"FLOAT64", "FLOAT32", "FLOAT16", "BFLOAT16"}


def describe(model: Model, *, unknown_ops: Collection[str] = ()) -> ModelInfo:
    """Return a model's inputs, outputs and op report.

    Args:
        unknown_ops: kinds of operations that the quantizer does not know; the report gives that as a reason.
    """
    return ModelInfo(inputs=model.inputs, outputs=model.outputs, ops=op_lines(model, unknown_ops=unknown_ops))


def op_lines(model: Model, *, unknown_ops: Collection[str] = ()) -> tuple[OpLine, ...]:
    """Return one line per operation, over all subgraphs in order."""
    lines: list[OpLine] = []
    for graph in model.parsed.subgraphs:
        for operator in graph.operators:
            name = tflite_file.op_name(model.parsed, operator)
            kind, reason = _classify(graph, operator, name, unknown_ops)
            lines.append(OpLine(index=len(lines), op=name, kind=kind, reason=reason))
    return tuple(lines)


def _classify(graph: Any, operator: Any, name: str, unknown_ops: Collection[str]) -> tuple[OpKind, str]:
    tensors = [graph.tensors[i] for i in tflite_file.tensor_indices(operator)]
    types = {tflite_file.type_name(tensor) for tensor in tensors}
    quantized = any(tflite_file.is_quantized(tensor) for tensor in tensors)
    if not types & _FLOATS:
        return OpKind.INTEGER, "all tensors are integers"
    border = _border(graph, operator, name)
    if border:
        return OpKind.MIXED, border
    if name == "DEQUANTIZE" and "FLOAT16" in types:
        return OpKind.FLOAT, "widens float16 weights"
    if name in unknown_ops:
        return OpKind.FLOAT, "the quantizer does not know this operation"
    if quantized:
        converts = name in CONVERSIONS
        return OpKind.MIXED, "converts inside the graph" if converts else "integer weights, float values"
    return OpKind.FLOAT, "all tensors are float"


def _border(graph: Any, operator: Any, name: str) -> str | None:
    if name == "QUANTIZE" and set(operator.inputs) <= set(graph.inputs):
        return "border: quantizes the model's input"
    if name == "DEQUANTIZE" and set(operator.outputs) <= set(graph.outputs):
        return "border: dequantizes the model's output"
    return None


def float_lines(info: ModelInfo, *, io: IoTypes) -> tuple[OpLine, ...]:
    """Return the operations that keep a model from being full integer; conversions around them come last.

    Args:
        io: types of the inputs and outputs; `float32` allows conversions at the model's borders.
    """
    lines = [
        line
        for line in info.ops
        if line.kind is not OpKind.INTEGER and not (io.any_float and line.reason.startswith("border:"))
    ]
    return tuple(sorted(lines, key=lambda line: line.op in CONVERSIONS))


def require_full_integer(info: ModelInfo, *, io: IoTypes, subject: str) -> None:
    """Check that a model computes in integers only.

    Args:
        io: `int8` allows no float at all; `float32` allows the conversions at the model's borders.

    Raises:
        ConverterError: EQ307 naming the operations, inputs or outputs that are float.
    """
    stayed = float_lines(info, io=io)
    if stayed:
        named = ", ".join(f"{line.op} (op {line.index}: {line.reason})" for line in stayed[:5])
        more = f" and {len(stayed) - 5} more" if len(stayed) > 5 else ""
        raise ConverterError(
            "EQ307",
            subject,
            f"{len(stayed)} of {len(info.ops)} operations stayed float: {named}{more}",
            hint="--scheme int8-mixed leaves them in float; or replace them in the model",
        )
    sides = ((info.inputs, io.inputs), (info.outputs, io.outputs))
    wrong = [
        tensor
        for tensors, kind in sides
        for tensor in tensors
        if kind != "float32" and tensor.dtype.startswith("float")
    ]
    if wrong:
        raise ConverterError(
            "EQ307",
            subject,
            expected=f"{io.inputs} inputs and {io.outputs} outputs",
            got=", ".join(f"{tensor.name} {tensor.dtype}" for tensor in wrong),
            hint="use --io float32",
        )
