"""Rewrites that keep a model's function: what the quantizers require, and the order of inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model


def normalize(model: Model) -> Model:
    """Return the model in the form that quantizers require; the same value where nothing changes.

    - Every tensor's name is unique, because ranges are given by name.
    - Signatures are a list, even an empty one: litert-quantizer does not accept a missing list.
    - Operation codes are in the current field. Files from before schema 3a have them in the old field only,
      which litert-quantizer ignores: it would read each operation as an ADD.
    """
    editor = Editor(model)
    parsed = editor.parsed
    seen: set[bytes] = set()
    changed = False
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
    return editor.pack()


def _new_order(known: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the old position of each name; empty where the order is right or the names are not the same."""
    if list(known) == list(names) or sorted(known) != sorted(names) or len(set(known)) != len(known):
        return []
    return [known.index(name) for name in names]
