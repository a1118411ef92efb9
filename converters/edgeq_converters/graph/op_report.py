"""Op report: whether each operation of a model computes in integers or float, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import postprocessing, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.values import IoTypes, ModelInfo, OpKind, OpLine

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})
_PLACES = 3
_FLOATS = {"FLOAT64", "FLOAT32", "FLOAT16", "BFLOAT16"}


def describe(model: Model, *, unknown_ops: Collection[str] = ()) -> ModelInfo:
    """Return a model's inputs, outputs and op report.

    Args:
        unknown_ops: kinds of operations that the quantizer does not know; the report gives that as a reason.
    """
    return ModelInfo(
        inputs=model.inputs,
        outputs=model.outputs,
        ops=op_lines(model, unknown_ops=unknown_ops),
        selected_outputs=tuple(sorted(postprocessing.selected_outputs(model.parsed))),
    )


def op_lines(model: Model, *, unknown_ops: Collection[str] = ()) -> tuple[OpLine, ...]:
    """Return one line per operation, over all subgraphs in order."""
    lines: list[OpLine] = []
    after = postprocessing.positions(model.parsed)
    for graph in model.parsed.subgraphs:
        for operator in graph.operators:
            name = tflite_file.op_name(model.parsed, operator)
            kind, reason = _classify(graph, operator, name, unknown_ops)
            if len(lines) in after and kind is not OpKind.INTEGER:
                kind, reason = OpKind.FLOAT, f"{postprocessing.REASON}, which has float kernels only"
            elif name == "DEQUANTIZE" and _is_read_by(model, operator, after):
                reason = f"{postprocessing.REASON} reads real values"
            lines.append(OpLine(index=len(lines), op=name, kind=kind, reason=reason))
    return tuple(lines)


def _is_read_by(model: Model, operator: Any, positions: Collection[int]) -> bool:
    """Return whether operations at these positions of the main graph, and nothing else, read a result."""
    outputs = set(tflite_file.index_list(operator.outputs))
    readers = {
        number
        for number, each in enumerate(model.graph.operators)
        if outputs.intersection(tflite_file.index_list(each.inputs))
    }
    ends = outputs.intersection(tflite_file.index_list(model.graph.outputs))
    return bool(readers) and not ends and readers <= set(positions)


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
    """Return the operations that keep a model from being full integer.

    Conversions inside the graph are left out where other operations are the reason for them.

    Args:
        io: types of the inputs and outputs; `float32` allows conversions at the model's borders.
    """
    lines = [
        line
        for line in info.ops
        if line.kind is not OpKind.INTEGER
        and not (io.any_float and line.reason.startswith("border:"))
        and not line.reason.startswith(postprocessing.REASON)
    ]
    return tuple(line for line in lines if line.op not in CONVERSIONS) or tuple(lines)


def not_integer(lines: Sequence[OpLine], total: int, *, subject: str) -> ConverterError:
    """Return the error for a model with operations that have no integer kernel.

    Args:
        lines: these operations.
        total: number of the model's operations.
    """
    return ConverterError(
        "EQ307",
        subject,
        f"{len(lines)} of {total} operations stayed float: {_named(lines)}",
        hint="--allow-float leaves them in float and measures what that costs; "
        "or use --scheme dynamic or float16; or replace them in the model",
    )


def _named(lines: Sequence[OpLine]) -> str:
    """Return every kind of the operations with its places, the first of them where there are many."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        kinds.setdefault((line.op, line.reason), []).append(line.index)
    named = []
    for (op, reason), places in kinds.items():
        more = f" and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
        word = "op" if len(places) == 1 else "ops"
        named.append(f"{op} ({word} {', '.join(map(str, places[:_PLACES]))}{more}: {reason})")
    return ", ".join(named)


def require_full_integer(info: ModelInfo, *, io: IoTypes, subject: str) -> None:
    """Check that a model computes in integers only, but for a post-processing of detections at its end.

    Args:
        io: `int8` allows no float at all; `float32` allows the conversions at the model's borders.

    Raises:
        ConverterError: EQ307 naming the operations, inputs or outputs that are float.
    """
    stayed = float_lines(info, io=io)
    if stayed:
        computing = sum(line.op not in CONVERSIONS for line in info.ops)
        total = len(info.ops) if stayed[0].op in CONVERSIONS else computing
        raise not_integer(stayed, total, subject=subject)
    detects = any(line.reason.startswith(postprocessing.REASON) for line in info.ops)
    sides = ((info.inputs, io.inputs), (() if detects else info.outputs, io.outputs))
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
