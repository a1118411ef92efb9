"""The model up to its logits: what comes before a final SOFTMAX or LOGISTIC, whose fixed step hides noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq_converters.graph import tflite_file
from edgeq_converters.values import TensorInfo

_SQUASHING = ("SOFTMAX", "LOGISTIC", "LOG_SOFTMAX")
_SHAPING = ("RESHAPE", "SQUEEZE")
# Between an integer model and its real outputs; what comes before them is what the model computed.
_READING = ("DEQUANTIZE", "QUANTIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A model whose outputs are its logits.

    Attributes:
        data: the .tflite.
        tensors: the names of its outputs.
        outputs: its outputs, in the same order.
        removed: positions of the final operations that were taken away; empty where there were none.
    """

    data: bytes
    tensors: tuple[str, ...]
    outputs: tuple[TensorInfo, ...]
    removed: tuple[int, ...]


def cut(data: bytes, *, subject: str) -> Cut:
    """Return the model without the final SOFTMAX, LOGISTIC or LOG_SOFTMAX of each output.

    An integer output of these has a fixed scale (1/256), so that its rounding is all that a comparison of
    probabilities sees; at the logits the noise of the operations before shows.
    """
    model = tflite_file.parse(data, subject=subject)
    graph = model.subgraphs[0]
    made_by = {int(i): number for number, operator in enumerate(graph.operators) for i in operator.outputs}
    outputs = [int(output) for output in graph.outputs]
    ends: list[int] = []
    passed: set[int] = set()
    for output in outputs:
        end, after = _logits(model, made_by, output)
        ends.append(end)
        passed.update(after)
    graph.outputs = list(dict.fromkeys(ends))
    removed = _unread(graph, passed)
    if removed:
        graph.operators = [op for number, op in enumerate(graph.operators) if number not in removed]
        _rename_outputs(model, dict(zip(outputs, ends, strict=True)))
        data = _packed(model, len(data))
    names = tuple(tflite_file.tensor_name(graph.tensors[i]) for i in graph.outputs)
    _, infos = tflite_file.inputs_and_outputs(model)
    return Cut(data=data, tensors=names, outputs=infos, removed=tuple(sorted(removed)))


def _logits(model: Any, made_by: dict[int, int], output: int) -> tuple[int, list[int]]:
    """Return the tensor to compare instead of an output, and the operations from there to the output."""
    tensor, after = output, []
    while tensor in made_by:
        number = made_by[tensor]
        operator = model.subgraphs[0].operators[number]
        name = tflite_file.op_name(model, operator)
        source = int(operator.inputs[0])
        after.append(number)
        if name in _SQUASHING and source in made_by:
            return source, after
        if name not in _SHAPING + _READING:
            break
        tensor = source
    return output, []


def _unread(graph: Any, passed: set[int]) -> set[int]:
    removed: set[int] = set()
    for number in sorted(passed, reverse=True):
        read = {int(i) for i in graph.outputs}
        for other, operator in enumerate(graph.operators):
            if other != number and other not in removed and operator.inputs is not None:
                read.update(int(i) for i in operator.inputs)
        if not read.intersection(int(i) for i in graph.operators[number].outputs):
            removed.add(number)
    return removed


def _rename_outputs(model: Any, moved: dict[int, int]) -> None:
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            named: dict[int, Any] = {}
            for entry in signature.outputs or []:
                entry.tensorIndex = moved.get(int(entry.tensorIndex), int(entry.tensorIndex))
                named.setdefault(entry.tensorIndex, entry)
            signature.outputs = list(named.values())


def _packed(model: Any, size_bytes: int) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(size_bytes + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
