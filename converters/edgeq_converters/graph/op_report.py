"""The op report: in which numbers each operation of a written file works, and whether it is full integer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.values import ModelInfo, OpKind, OpLine

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})
_FLOATS = {"FLOAT64", "FLOAT32", "FLOAT16", "BFLOAT16"}


def info(model: Any, *, unknown_ops: Collection[str] = ()) -> ModelInfo:
    """Return what a parsed model is.

    Args:
        unknown_ops: names of operations that the quantizer does not know, for the reasons.
    """
    inputs, outputs = tflite_file.inputs_and_outputs(model)
    return ModelInfo(inputs=inputs, outputs=outputs, ops=lines(model, unknown_ops=unknown_ops))


def lines(model: Any, *, unknown_ops: Collection[str] = ()) -> tuple[OpLine, ...]:
    """Return one line an operation, over all subgraphs in order."""
    found: list[OpLine] = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = tflite_file.op_name(model, operator)
            kind, reason = _judge(graph, operator, name, unknown_ops)
            found.append(OpLine(index=len(found), op=name, kind=kind, reason=reason))
    return tuple(found)


def _judge(graph: Any, operator: Any, name: str, unknown_ops: Collection[str]) -> tuple[OpKind, str]:
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
        return OpKind.MIXED, "converts inside of the graph" if converts else "integer weights, float values"
    return OpKind.FLOAT, "all tensors are float"


def _border(graph: Any, operator: Any, name: str) -> str | None:
    if name == "QUANTIZE" and set(operator.inputs) <= set(graph.inputs):
        return "border: quantizes the model's input"
    if name == "DEQUANTIZE" and set(operator.outputs) <= set(graph.outputs):
        return "border: dequantizes the model's output"
    return None


def stayed_float(model: ModelInfo, *, io: str) -> tuple[OpLine, ...]:
    """Return the operations that a full-integer model may not have; conversions around them come last."""
    found = [
        line
        for line in model.ops
        if line.kind is not OpKind.INTEGER and not (io == "float32" and line.reason.startswith("border:"))
    ]
    return tuple(sorted(found, key=lambda line: line.op in CONVERSIONS))


def require_full_integer(model: ModelInfo, *, io: str, subject: str) -> None:
    """Check that a written model computes in integers only.

    Args:
        io: `int8` allows no float at all; `float32` allows the conversions at the model's borders.

    Raises:
        ConverterError: EQ307 naming the operations and inputs or outputs that are float.
    """
    stayed = stayed_float(model, io=io)
    if stayed:
        named = ", ".join(f"{line.op} (op {line.index}: {line.reason})" for line in stayed[:5])
        more = f" and {len(stayed) - 5} more" if len(stayed) > 5 else ""
        raise ConverterError(
            "EQ307",
            subject,
            f"{len(stayed)} of {len(model.ops)} operations stayed float: {named}{more}",
            hint="replace these operations in the model, or use --scheme dynamic or float16",
        )
    wrong = [tensor for tensor in (*model.inputs, *model.outputs) if tensor.dtype.startswith("float")]
    if io != "float32" and wrong:
        raise ConverterError(
            "EQ307",
            subject,
            expected=f"{io} inputs and outputs",
            got=", ".join(f"{tensor.name} {tensor.dtype}" for tensor in wrong),
            hint="use --io float32",
        )
