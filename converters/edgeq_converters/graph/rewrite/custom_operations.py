"""Custom operations of public models that are combinations of builtin ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor

TRANSPOSE_BIAS = "Convolution2DTransposeBias"
_OPTIONS = struct.Struct("<iii")
_PADDINGS = {1: schema.Padding.SAME, 2: schema.Padding.VALID}
"""Of TfLitePadding in TensorFlow Lite's C API, which the options hold."""
UNKNOWN: Mapping[str, str] = {
    "Landmarks2TransformMatrix": "MediaPipe's runtime",
    "TransformLandmarks": "MediaPipe's runtime",
    "TransformTensorBilinear": "MediaPipe's runtime",
    "MaxPoolingWithArgmax2D": "MediaPipe's runtime",
    "MaxUnpooling2D": "MediaPipe's runtime",
}
"""Custom operations of public models that no builtin ones replace, and what computes them."""


def with_builtin_operations(model: Model) -> tuple[Model, tuple[str, ...]]:
    """Return (the model with builtin operations in place of known custom ones, notes on them).

    - `Convolution2DTransposeBias` of MediaPipe is TRANSPOSE_CONV with a bias. Its options are a
      TfLiteTransposeConvParams: the padding, and the strides in width and height.
    """
    edited = Editor(model)
    editor = GraphEditor(edited.parsed)
    kind = f"CUSTOM {TRANSPOSE_BIAS}"
    operators = [each for each in editor.operators if editor.kind(each) == kind and _is_known(each)]
    for operator in operators:
        _transpose(editor, operator)
    if not operators:
        return model, ()
    note = f"{len(operators)} custom operations {TRANSPOSE_BIAS} became TRANSPOSE_CONV, with the same values"
    return edited.pack(), (note,)


def _is_known(operator: Any) -> bool:
    options = operator.customOptions
    if options is None or len(options) < _OPTIONS.size or len(operator.inputs) != 3:
        return False
    padding, width, height = _OPTIONS.unpack_from(bytes(bytearray(options)))
    return padding in _PADDINGS and 0 < width < 64 and 0 < height < 64


def _transpose(editor: GraphEditor, operator: Any) -> None:
    padding, width, height = _OPTIONS.unpack_from(bytes(bytearray(operator.customOptions)))
    source, weights, bias = (int(index) for index in operator.inputs)
    target = int(operator.outputs[0])
    shape = editor.add_constant(f"{editor.name(target)}.shape", np.array(editor.shape(target), np.int32))
    editor.replace(
        operator,
        "TRANSPOSE_CONV",
        [shape, weights, source, bias],
        padding=_PADDINGS[padding],
        strideW=width,
        strideH=height,
    )
