"""ReLU as the fused activation of the operation before it: one operation and one rounding less."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

_FUSED = {
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU6": schema.ActivationFunctionType.RELU6,
    "RELU_N1_TO_1": schema.ActivationFunctionType.RELU_N1_TO_1,
}
_WITH_ACTIVATION = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL")
"""Operations whose integer kernels have a fused activation."""


def fuse_activations(editor: GraphEditor) -> int:
    """Move every ReLU that alone reads such an operation into it; return how many there were."""
    return sum(_fuse(editor, each) for each in list(editor.operators) if editor.kind(each) in _FUSED)


def _fuse(editor: GraphEditor, activation: Any) -> bool:
    source = int(activation.inputs[0])
    operator = editor.producer(source)
    fits = (
        editor.kind(operator) in _WITH_ACTIVATION
        and operator.builtinOptions is not None
        and editor.activation(operator) == schema.ActivationFunctionType.NONE
        and editor.has_one_reader(source)
    )
    if not fits:
        return False
    operator.builtinOptions.fusedActivationFunction = _FUSED[editor.kind(activation)]
    operator.outputs = np.array([int(activation.outputs[0])], np.int32)
    editor.remove(activation)
    editor.reindex()
    return True
