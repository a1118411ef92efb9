"""Validate a .tflite before it is converted: not compiled, float, fixed shapes, finite weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.values import Scheme

COMPILED = f"CUSTOM {tflite_file.EDGETPU_OP}"
_FLOATS = {"FLOAT16": np.float16, "FLOAT32": np.float32, "FLOAT64": np.float64}
# Operations whose constants are trained weights. Elsewhere an infinity may be intended, as in a mask.
_TRAINED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "CONV_3D",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "EMBEDDING_LOOKUP",
    "GATHER",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)
_CHUNK = 1 << 20


def require_convertible(model: Model, *, scheme: Scheme) -> None:
    """Check that a model can be converted to a scheme.

    Raises:
        ConverterError: EQ304 already quantized, EQ306 open shapes, EQ320 compiled for the Edge TPU, EQ321
            weights that are not finite.
    """
    require_not_compiled(model)
    require_float(model)
    require_fixed_shapes(model)
    require_finite(model, scheme=scheme)


def is_compiled(model: Model) -> bool:
    """Return whether `edgetpu_compiler` made the model."""
    operators = [operator for graph in model.parsed.subgraphs for operator in graph.operators]
    return any(tflite_file.op_name(model.parsed, operator) == COMPILED for operator in operators)


def require_not_compiled(model: Model) -> None:
    """Check that a processor can run the model.

    Raises:
        ConverterError: EQ320 the model is compiled for the Edge TPU.
    """
    if is_compiled(model):
        raise tflite_file.compiled(model.subject)


def require_float(model: Model) -> None:
    """Check that nothing in the model is quantized.

    Raises:
        ConverterError: EQ304 naming the first quantized tensor.
    """
    for graph in model.parsed.subgraphs:
        for tensor in graph.tensors:
            kind = tflite_file.type_name(tensor)
            if kind == "FLOAT16" or (kind != "FLOAT32" and tflite_file.is_quantized(tensor)):
                raise ConverterError(
                    "EQ304",
                    model.subject,
                    "the model is already quantized",
                    expected="a float32 model",
                    got=f"{kind.lower()} in tensor {tflite_file.tensor_name(tensor)!r}",
                    hint="convert the float model that it was made from",
                )


def require_fixed_shapes(model: Model) -> None:
    """Check that no dimension of the model's inputs is open, except the batch.

    Raises:
        ConverterError: EQ306 naming the input.
    """
    for index, info in zip(model.graph.inputs, model.inputs, strict=True):
        signature = model.graph.tensors[index].shapeSignature
        sizes = info.shape if signature is None else tuple(int(size) for size in signature)
        if any(size < 0 for size in sizes[1:]):
            raise ConverterError(
                "EQ306",
                model.subject,
                f"input `{info.name}` has open dimensions besides the batch",
                expected="fixed sizes",
                got=f"({', '.join('?' if size < 0 else str(size) for size in sizes)})",
                hint="convert the source again with a fixed input shape",
            )


def require_finite(model: Model, *, scheme: Scheme) -> None:
    """Check the constants of a float model.

    NaN is refused everywhere. Infinity is refused in trained weights, and in every constant that the scheme
    turns into integers, which cannot represent it.

    Raises:
        ConverterError: EQ321 with the tensor, the number of such values, and the position of the first.
    """
    parsed = model.parsed
    for graph in parsed.subgraphs:
        users: dict[int, set[str]] = defaultdict(set)
        for operator in graph.operators:
            for index in tflite_file.tensor_indices(operator):
                users[index].add(tflite_file.op_name(parsed, operator))
        for index, tensor in enumerate(graph.tensors):
            dtype = _FLOATS.get(tflite_file.type_name(tensor))
            if dtype is None or not tflite_file.is_constant(parsed, tensor):
                continue
            trained = bool(users[index].intersection(_TRAINED))
            strict = trained or scheme not in (Scheme.FLOAT32, Scheme.FLOAT16, Scheme.DYNAMIC)
            values = np.frombuffer(memoryview(parsed.buffers[tensor.buffer].data), dtype)
            count, first = _count_bad(values, infinite=strict)
            if count:
                shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
                position = [int(i) for i in np.unravel_index(first, shape)] if shape else first
                raise ConverterError(
                    "EQ321",
                    model.subject,
                    f"{count} of {values.size} values of the weights {tflite_file.tensor_name(tensor)!r} "
                    f"(of {', '.join(sorted(users[index])) or 'no operation'}) are NaN or infinite",
                    expected="finite weights",
                    got=f"{values[first]} at {position}",
                    hint="the training diverged: use an earlier checkpoint",
                )


def _count_bad(values: npt.NDArray[Any], *, infinite: bool) -> tuple[int, int]:
    """Return (how many values are bad, the index of the first); in chunks, because weights can be large.

    Args:
        infinite: whether infinity is bad too.
    """
    count, first = 0, -1
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        bad = np.flatnonzero(~np.isfinite(part) if infinite else np.isnan(part))
        if bad.size and first < 0:
            first = start + int(bad[0])
        count += int(bad.size)
    return count, first
