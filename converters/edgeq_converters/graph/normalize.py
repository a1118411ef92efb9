"""Rewrites that keep a model's function: what the quantizers require, and the order of inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model


def normalize(model: Model) -> Model:
    """Return the model in the form that quantizers require; the same value where nothing changes.

    - Every tensor's name is unique, because ranges are given by name.
    - Signatures are a list, even an empty one: litert-quantizer does not accept a missing list.
    - Operation codes are in the current field. Files from before schema 3a have them in the old field only,
      which litert-quantizer ignores: it would read each operation as an ADD.
    - Every float output is a tensor of its own that an operation computes. Quantizers change the type of a
      tensor and the name of one output; an input, a constant or another output at the same place suffers.
    """
    editor = Editor(model)
    parsed = editor.parsed
    seen: set[bytes] = set()
    changed = _give_outputs_tensors(parsed)
    for code in parsed.operatorCodes:
        if code.builtinCode < code.deprecatedBuiltinCode:
            code.builtinCode, changed = code.deprecatedBuiltinCode, True
    for number, graph in enumerate(parsed.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            if not tensor.name or tensor.name in seen:
                tensor.name = b"%s#%d.%d" % (tensor.name or b"tensor", number, index)
                changed = True
            seen.add(tensor.name)
    if parsed.signatureDefs is None:
        parsed.signatureDefs, changed = [], True
    return editor.pack() if changed else model


def _give_outputs_tensors(parsed: Any) -> bool:
    """Compute each float output that is also an input, a constant or another output by its own RESHAPE."""
    graph = parsed.subgraphs[0]
    taken = set(tflite_file.index_list(graph.inputs))
    outputs = tflite_file.index_list(graph.outputs)
    entries = _entries_of(parsed, outputs)
    changed = False
    for position, index in enumerate(outputs):
        tensor = graph.tensors[index]
        shared = index in taken or tflite_file.is_constant(parsed, tensor)
        if shared and tflite_file.type_name(tensor) == "FLOAT32":
            outputs[position] = _copied(parsed, index, position)
            if tflite_file.is_constant(parsed, tensor):
                copied = graph.tensors[outputs[position]]
                tensor.name, copied.name = copied.name, tensor.name
            if entries[position] is not None:
                entries[position].tensorIndex = outputs[position]
            changed = True
        taken.add(index)
    if changed:
        graph.outputs = outputs
    return changed


def _entries_of(parsed: Any, outputs: Sequence[int]) -> list[Any]:
    """Return the signature's entry of each output; None where it has none."""
    signature = next((each for each in parsed.signatureDefs or [] if each.subgraphIndex == 0), None)
    left = list(signature.outputs or []) if signature else []
    entries = []
    for index in outputs:
        entry = next((each for each in left if int(each.tensorIndex) == index), None)
        if entry is not None:
            left = [each for each in left if each is not entry]
        entries.append(entry)
    return entries


def _copied(parsed: Any, index: int, position: int) -> int:
    """Add a RESHAPE of a tensor to its own shape and return the index of the result."""
    graph = parsed.subgraphs[0]
    source = graph.tensors[index]
    shape = np.array(tflite_file.index_list(source.shape), np.int32)
    buffer = schema.BufferT()
    buffer.data = shape.view(np.uint8)
    parsed.buffers.append(buffer)
    sizes, target = schema.TensorT(), schema.TensorT()
    sizes.name, sizes.type = b"output%d.shape" % position, schema.TensorType.INT32
    sizes.shape, sizes.buffer = np.array([len(shape)], np.int32), len(parsed.buffers) - 1
    target.name, target.type = b"output%d.copy" % position, source.type
    target.shape, target.buffer = shape, 0
    graph.tensors.extend([sizes, target])
    operator = schema.OperatorT()
    operator.opcodeIndex = _reshape_code(parsed)
    operator.inputs = np.array([index, len(graph.tensors) - 2], np.int32)
    operator.outputs = np.array([len(graph.tensors) - 1], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = shape
    graph.operators.append(operator)
    return len(graph.tensors) - 1


def _reshape_code(parsed: Any) -> int:
    number = schema.BuiltinOperator.RESHAPE
    for index, code in enumerate(parsed.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = 1
    parsed.operatorCodes.append(code)
    return len(parsed.operatorCodes) - 1


def reorder(model: Model, *, inputs: Sequence[str], outputs: Sequence[str]) -> Model:
    """Return the model with its inputs and outputs in this order of names; the same value if they are.

    TensorFlow sorts them by name. Users mean the source's order, and evaluation judges the first output.
    """
    new_order = {
        "inputs": _new_order([info.name for info in model.inputs], inputs),
        "outputs": _new_order([info.name for info in model.outputs], outputs),
    }
    if not any(new_order.values()):
        return model
    editor = Editor(model)
    graph = editor.parsed.subgraphs[0]
    for attribute, positions in new_order.items():
        if positions:
            indices = tflite_file.index_list(getattr(graph, attribute))
            setattr(graph, attribute, [indices[position] for position in positions])
    # Where one tensor is several outputs, its names follow the order of the signature's list.
    for signature in editor.parsed.signatureDefs or []:
        if signature.subgraphIndex == 0 and len({int(i) for i in graph.outputs}) < len(graph.outputs):
            signature.outputs = sorted(
                signature.outputs, key=lambda entry: outputs.index(entry.name.decode())
            )
    return editor.pack()


def _new_order(known: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the old position of each name; empty where the order is right or the names are not the same."""
    if list(known) == list(names) or sorted(known) != sorted(names) or len(set(known)) != len(known):
        return []
    return [known.index(name) for name in names]
