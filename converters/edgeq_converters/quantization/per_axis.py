"""Scales along an axis of an activation: another meaning for the same integers, given by a RESHAPE."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


def scales(values: npt.ArrayLike, zero_points: npt.ArrayLike, *, axis: int = 0) -> Any:
    """Return the schema's quantization parameters: one scale, or one for each slice along an axis."""
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.atleast_1d(np.asarray(values, np.float32))
    parameters.zeroPoint = np.atleast_1d(np.asarray(zero_points, np.int64))
    parameters.quantizedDimension = axis
    return parameters


def as_int8(editor: GraphEditor, index: int, *, before: Any = None) -> int:
    """Return a tensor of int16 as int8, converted by a QUANTIZE; any other tensor as it is.

    Args:
        before: the operation before which it is converted, and which reads the new tensor; None for the end.
    """
    pair = tflite_file.quantization(editor.graph.tensors[index])
    if editor.type_name(index) != "INT16" or pair is None:
        return index
    target = editor.add_tensor(f"{editor.name(index)}.int8", editor.shape(index), schema.TensorType.INT8)
    editor.graph.tensors[target].quantization = scales(pair[0] * 256, 0)
    if before is None:
        editor.append("QUANTIZE", [index], target)
    else:
        before.inputs = np.array([target], np.int32)
        editor.insert(before, "QUANTIZE", [index], target)
    return target


def relabelled(
    editor: GraphEditor, index: int, name: str, parameters: Any, *, before: Any = None, redirect: bool = False
) -> int:
    """Return a tensor with the integers of another one and other scales.

    A RESHAPE to the same shape copies the integers; its kernel does not look at scales.

    Args:
        before: the operation before which it runs; None for the end.
        redirect: whether what reads the other tensor shall read this one.
    """
    shape = editor.shape(index)
    sizes = editor.add_constant(f"{name}.shape", np.array(shape, np.int32))
    target = editor.add_tensor(name, shape, schema.TensorType.INT8)
    editor.graph.tensors[target].quantization = parameters
    if redirect:
        editor.redirect(index, target)
    new_shape = np.array(shape, np.int32)
    if before is None:
        editor.append("RESHAPE", [index, sizes], target, newShape=new_shape)
    else:
        editor.insert(before, "RESHAPE", [index, sizes], target, newShape=new_shape)
    return target
