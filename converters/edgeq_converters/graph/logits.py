"""Cut a model at its logits: before a final SOFTMAX or LOGISTIC, whose fixed output scale hides noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_converters.graph import carried_states, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model

_SQUASHING = ("SOFTMAX", "LOGISTIC", "LOG_SOFTMAX")
_RESHAPING = ("RESHAPE", "SQUEEZE")
# Conversions between an integer model and its real outputs. The model computed what comes before them.
_CONVERTING = ("DEQUANTIZE", "QUANTIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A model whose outputs are its logits.

    Attributes:
        tensors: names of its output tensors.
        removed: positions, in the whole model, of the final operations that were cut off; empty for none.
    """

    model: Model
    tensors: tuple[str, ...]
    removed: tuple[int, ...]


def cut_both(one: Model, other: Model) -> tuple[Model, Model]:
    """Return two forms of one model, each cut at the logits of the outputs where both have them.

    A quantizer may drop an operation between a sigmoid and the output. Then the logits of only one form are
    found, and logits must not be compared with probabilities.
    """
    both = _squashed(one) & _squashed(other)
    return cut(one, only=both).model, cut(other, only=both).model


def cut(model: Model, *, only: frozenset[int] | None = None) -> Cut:
    """Return the model without the final SOFTMAX, LOGISTIC or LOG_SOFTMAX of each output.

    The integer output of such an operation has a fixed scale (1/256). Compared as probabilities, two models
    would differ by that rounding alone; at the logits, the noise of the operations before it shows.

    Args:
        only: the positions of the outputs to cut; None for all. A state that the next step takes stays.
    """
    editor = Editor(model)
    graph = editor.parsed.subgraphs[0]
    producers = {int(i): number for number, operator in enumerate(graph.operators) for i in operator.outputs}
    outputs = [int(output) for output in graph.outputs]
    ends: list[int] = []
    passed: set[int] = set()
    carried = {state.output for state in carried_states.read(editor)}
    for position, output in enumerate(outputs):
        chosen = position not in carried if only is None else position in only - carried
        end, after = _logits(editor.parsed, producers, output) if chosen else (output, [])
        ends.append(end)
        passed.update(after)
    graph.outputs = list(dict.fromkeys(ends))
    removed = _unread(graph, passed)
    if not removed:
        return Cut(model=model, tensors=_names(model.graph), removed=())
    graph.operators = [op for number, op in enumerate(graph.operators) if number not in removed]
    _move_signature_outputs(editor.parsed, dict(zip(outputs, ends, strict=True)))
    return Cut(model=editor.pack(), tensors=_names(graph), removed=tuple(sorted(removed)))


def exposed(model: Model) -> tuple[Model, int]:
    """Return (the model with its logits as further outputs, how many there are of them).

    The model is the same value, and the number 0, where the outputs are the logits.
    """
    at = cut(model)
    if not at.removed:
        return model, 0
    editor = Editor(model)
    graph = editor.parsed.subgraphs[0]
    index = {tflite_file.tensor_name(tensor): number for number, tensor in enumerate(graph.tensors)}
    graph.outputs = np.array([*graph.outputs, *(index[name] for name in at.tensors)], np.int32)
    editor.parsed.signatureDefs = None
    return editor.pack(), len(at.tensors)


def _squashed(model: Model) -> frozenset[int]:
    """Return the positions of the outputs that have logits."""
    operators = enumerate(model.graph.operators)
    producers = {int(i): number for number, operator in operators for i in operator.outputs}
    outputs = enumerate(tflite_file.index_list(model.graph.outputs))
    return frozenset(at for at, output in outputs if _logits(model.parsed, producers, output)[1])


def _names(graph: Any) -> tuple[str, ...]:
    return tuple(tflite_file.tensor_name(graph.tensors[int(i)]) for i in graph.outputs)


def _logits(parsed: Any, producers: dict[int, int], output: int) -> tuple[int, list[int]]:
    """Return (the tensor to compare instead of an output, the operations from there to the output)."""
    tensor, after = output, []
    while tensor in producers:
        number = producers[tensor]
        operator = parsed.subgraphs[0].operators[number]
        name = tflite_file.op_name(parsed, operator)
        source = int(operator.inputs[0])
        after.append(number)
        if name in _SQUASHING and source in producers:
            return source, after
        if name not in _RESHAPING + _CONVERTING:
            break
        tensor = source
    return output, []


def _unread(graph: Any, passed: set[int]) -> set[int]:
    """Return those of the passed operations whose outputs nothing reads any more."""
    removed: set[int] = set()
    for number in sorted(passed, reverse=True):
        read = {int(i) for i in graph.outputs}
        for other, operator in enumerate(graph.operators):
            if other != number and other not in removed and operator.inputs is not None:
                read.update(int(i) for i in operator.inputs)
        if not read.intersection(int(i) for i in graph.operators[number].outputs):
            removed.add(number)
    return removed


def _move_signature_outputs(parsed: Any, moved: dict[int, int]) -> None:
    for signature in parsed.signatureDefs or []:
        if signature.subgraphIndex == 0:
            named: dict[int, Any] = {}
            for entry in signature.outputs or []:
                entry.tensorIndex = moved.get(int(entry.tensorIndex), int(entry.tensorIndex))
                named.setdefault(entry.tensorIndex, entry)
            signature.outputs = list(named.values())
