"""Float islands: which operations of a graph stay float, and the quantizer's rules that say so."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeq_converters import tflite_file
from edgeq_converters.errors import ConverterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a model's main graph.

    Attributes:
        index: position in the order of execution.
        name: the name of its first output tensor, by which `Recipe.float_ops` calls it.
        scope: the names of all its outputs, as litert-quantizer matches them.
        sources: indices of the operations whose outputs it reads.
        weighted: whether it has float constants of more than one value.
    """

    index: int
    op: str
    name: str
    scope: str
    sources: tuple[int, ...]
    weighted: bool


def operations(model: Any) -> tuple[Operation, ...]:
    """Return the operations of a parsed model's main graph, in their order of execution."""
    graph = model.subgraphs[0]
    made_by: dict[int, int] = {}
    found: list[Operation] = []
    for index, operator in enumerate(graph.operators):
        read = [int(i) for i in operator.inputs if i >= 0] if operator.inputs is not None else []
        written = [int(i) for i in operator.outputs if i >= 0] if operator.outputs is not None else []
        names = [tflite_file.tensor_name(graph.tensors[i]) for i in written or read]
        found.append(
            Operation(
                index=index,
                op=tflite_file.op_name(model, operator),
                name=names[0] if names else "",
                scope="".join(f"{name};" for name in names),
                sources=tuple(sorted({made_by[i] for i in read if i in made_by})),
                weighted=any(_is_weight(model, graph.tensors[i]) for i in read),
            )
        )
        made_by.update(dict.fromkeys(written, index))
    return tuple(found)


def _is_weight(model: Any, tensor: Any) -> bool:
    return (
        tflite_file.is_constant(model, tensor)
        and tflite_file.type_name(tensor) == "FLOAT32"
        and len(model.buffers[tensor.buffer].data) > 4
    )


def float_rules(model: Any, float_ops: Collection[str], *, subject: str) -> Mapping[str, str]:
    """Return {operation's schema name: regular expression of scopes} of the operations that stay float.

    The rule of each is `update_quantization_recipe(regex, operation, algorithm_key=NO_QUANTIZE)`, after the
    rule for all. It names the operation's kind and never `*`, which would also take in the virtual operation
    OUTPUT and leave an int8 model's output float.

    Raises:
        ConverterError: EQ308 where no operation has one of the names.
    """
    known = {operation.name: operation for operation in operations(model)}
    scopes: dict[str, list[str]] = {}
    for name in sorted(set(float_ops)):
        if name not in known:
            raise ConverterError(
                "EQ308",
                subject,
                f"the recipe keeps {name!r} float, but no operation writes a tensor of that name",
                hint="edgeq sensitivity lists the names under `name` in its --json",
            )
        scopes.setdefault(known[name].op, []).append(re.escape(known[name].scope))
    # The library searches: without anchors "conv1;" would also be found in "block/conv1;".
    return {op: f"^(?:{'|'.join(found)})$" for op, found in scopes.items()}


def closed(ops: Sequence[Operation], islands: Collection[int]) -> frozenset[int]:
    """Return the islands with the gaps between them filled where filling costs nothing.

    An operation without weights whose sources and readers are all float would be reached by a QUANTIZE and
    left by a DEQUANTIZE: float, it needs neither. Repeated until nothing changes.
    """
    readers: dict[int, list[int]] = {operation.index: [] for operation in ops}
    for operation in ops:
        for source in operation.sources:
            readers[source].append(operation.index)
    inside = set(islands)
    while True:
        more = {
            operation.index
            for operation in ops
            if operation.index not in inside
            and not operation.weighted
            and operation.sources
            and readers[operation.index]
            and inside.issuperset(operation.sources)
            and inside.issuperset(readers[operation.index])
        }
        if not more:
            return frozenset(inside)
        inside |= more


def quantize(
    data: bytes, *, ranges: Mapping[str, Any], float_ops: Collection[str], io: str, subject: str
) -> bytes:
    """Return the model in int8 but for the named operations.

    Raises:
        ConverterError: EQ308 when the quantizer refuses it.
    """
    from edgeq_converters import quantizer

    engine = quantizer._library("quantizer").Quantizer(data)
    engine.load_quantization_recipe(quantizer._library("recipe").static_wi8_ai8())
    never = quantizer._algorithms().NO_QUANTIZE
    if io == "float32":
        for border in ("INPUT", "OUTPUT"):
            engine.update_quantization_recipe(".*", quantizer._op(border), algorithm_key=never)
    known = quantizer.known_ops()
    for op, regex in float_rules(
        tflite_file.parse(data, subject=subject), float_ops, subject=subject
    ).items():
        if op in known:
            engine.update_quantization_recipe(regex, quantizer._op(op), algorithm_key=never)
    try:
        result = engine.quantize(dict(ranges), enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        short = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConverterError("EQ308", subject, f"the quantizer refused the model ({short})") from error
    return bytes(result.quantized_model)
