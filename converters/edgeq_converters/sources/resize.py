"""Fix the open dimensions of a .tflite, and give every tensor the shape that follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model
from edgeq_converters.sources.shapes import fixed_shape, require_known_inputs
from edgeq_converters.sources.types import SourceOptions


def with_shapes(model: Model, options: SourceOptions) -> Model:
    """Return the model with all shapes fixed; the same value where the file already has them.

    Raises:
        ConverterError: EQ306 a dimension stays open, or the model does not run with the given shapes.
    """
    require_known_inputs(options, [info.name for info in model.inputs], subject=model.subject)
    fixed_shapes: dict[int, tuple[int, ...]] = {}
    for index, info in zip(tflite_file.index_list(model.graph.inputs), model.inputs, strict=True):
        tensor = model.graph.tensors[index]
        sizes, signed = (tflite_file.index_list(each) for each in (tensor.shape, tensor.shapeSignature))
        if len(signed) == len(sizes):  # some files have an empty signature beside a shape with open sizes
            sizes = [min(pair) for pair in zip(sizes, signed, strict=True)]
        fixed = fixed_shape(
            info.name,
            # Some converters write an open dimension as 0; no tensor with data has such a size.
            [None if size < 1 else size for size in sizes],
            options,
            batch_is_first=False,
            subject=model.subject,
        )
        if fixed != info.shape:
            fixed_shapes[index] = fixed
    if fixed_shapes:
        return _resized(model, fixed_shapes)
    return _resized(model, {}) if _has_stale_shapes(model) else model


def _has_stale_shapes(model: Model) -> bool:
    """Return whether a tensor inside has another shape than the file says.

    Where the batch is open, TensorFlow writes 1 for every size inside that it does not know.
    """
    tensors = model.graph.tensors
    is_open = any(min(tflite_file.index_list(each.shapeSignature), default=0) < 0 for each in tensors)
    if not is_open:
        return False
    return any(
        tuple(int(size) for size in shape) != tuple(tflite_file.index_list(tensors[index].shape))
        for index, shape in _shapes(model, {}).items()
        if index < len(tensors) and not tflite_file.is_constant(model.parsed, tensors[index])
    )


def _resized(model: Model, fixed_shapes: dict[int, tuple[int, ...]]) -> Model:
    model = _runnable(model)
    shapes = _shapes(model, fixed_shapes)
    editor = Editor(model)
    for index, tensor in enumerate(editor.parsed.subgraphs[0].tensors):
        if index in shapes and not tflite_file.is_constant(editor.parsed, tensor):
            tensor.shape = np.array(shapes[index], np.int32)
            tensor.shapeSignature = None
    return editor.pack()


def _runnable(model: Model) -> Model:
    """Return the model with 1 for each size that is negative or zero, which the runtime does not accept."""
    editor, changed = Editor(model), False
    for tensor in editor.parsed.subgraphs[0].tensors:
        sizes = tflite_file.index_list(tensor.shape)
        if not tflite_file.is_constant(editor.parsed, tensor) and any(size < 1 for size in sizes):
            tensor.shape, changed = np.array([max(size, 1) for size in sizes], np.int32), True
            tensor.shapeSignature = np.array([size if size > 0 else -1 for size in sizes], np.int32)
    return editor.pack() if changed else model


def _shapes(model: Model, fixed_shapes: dict[int, tuple[int, ...]]) -> dict[int, Any]:
    """Return the shape of every tensor after one run with the given shapes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        runtime = Interpreter(
            model_content=model.data,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        for index, shape in fixed_shapes.items():
            runtime.resize_tensor_input(index, shape)
        runtime.allocate_tensors()
        for detail in runtime.get_input_details():
            runtime.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        runtime.invoke()
        return {int(detail["index"]): detail["shape"] for detail in runtime.get_tensor_details()}
    except (ValueError, RuntimeError) as error:
        short = " ".join(str(error).split())[:160]
        raise ConverterError(
            "EQ306",
            model.subject,
            f"the model does not run with these shapes ({short})",
            got=", ".join(f"({', '.join(map(str, shape))})" for shape in fixed_shapes.values()),
            hint="give the shapes that the model was made for, or convert its source with --shape",
        ) from error
