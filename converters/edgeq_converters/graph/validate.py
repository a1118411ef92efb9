"""What a .tflite must be before anything is done with it: runnable here, fixed shapes, finite weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.values import Scheme

COMPILED = f"CUSTOM {tflite_file.EDGETPU_OP}"
_FLOATS = {"FLOAT16": np.float16, "FLOAT32": np.float32, "FLOAT64": np.float64}
# Operations whose constants are trained; elsewhere an infinity may be meant (a mask, a maximum's padding).
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


def require_sound(model: Any, *, scheme: Scheme, subject: str) -> None:
    """Check a model that is to be converted.

    Raises:
        ConverterError: EQ304 quantized already, EQ306 open shapes, EQ320 compiled, EQ321 weights.
    """
    refuse_compiled(model, subject=subject)
    tflite_file.require_float(model, subject=subject)
    require_fixed(model, subject=subject)
    require_finite(model, scheme=scheme, subject=subject)


def is_compiled(model: Any) -> bool:
    """Return whether `edgetpu_compiler` made the model."""
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    return any(tflite_file.op_name(model, operator) == COMPILED for operator in operators)


def refuse_compiled(model: Any, *, subject: str) -> None:
    """Check that the model is one that a processor can run.

    Raises:
        ConverterError: EQ320 when it is compiled for the Edge TPU.
    """
    if is_compiled(model):
        raise tflite_file.compiled(subject)


def require_fixed(model: Any, *, subject: str) -> None:
    """Check that only the batch of the model's inputs is open.

    Raises:
        ConverterError: EQ306 naming the input.
    """
    graph = model.subgraphs[0]
    inputs, _ = tflite_file.inputs_and_outputs(model)
    for index, info in zip(graph.inputs, inputs, strict=True):
        signature = graph.tensors[index].shapeSignature
        sizes = info.shape if signature is None else tuple(int(size) for size in signature)
        if any(size < 0 for size in sizes[1:]):
            raise ConverterError(
                "EQ306",
                subject,
                f"input `{info.name}` has open dimensions besides the batch",
                expected="fixed sizes",
                got=f"({', '.join('?' if size < 0 else str(size) for size in sizes)})",
                hint="convert the source again with a fixed input shape",
            )


def require_finite(model: Any, *, scheme: Scheme, subject: str) -> None:
    """Check the constants of a float model.

    NaN is refused everywhere. Infinity is refused in trained weights, and everywhere when the model is to
    become integers, which have no infinity.

    Raises:
        ConverterError: EQ321 naming the tensor, how many values, and where the first one is.
    """
    for graph in model.subgraphs:
        users: dict[int, set[str]] = defaultdict(set)
        for operator in graph.operators:
            for index in tflite_file.tensor_indices(operator):
                users[index].add(tflite_file.op_name(model, operator))
        for index, tensor in enumerate(graph.tensors):
            dtype = _FLOATS.get(tflite_file.type_name(tensor))
            if dtype is None or not tflite_file.is_constant(model, tensor):
                continue
            trained = bool(users[index].intersection(_TRAINED))
            strict = trained or scheme not in (Scheme.FLOAT32, Scheme.FLOAT16, Scheme.DYNAMIC)
            values = np.frombuffer(memoryview(model.buffers[tensor.buffer].data), dtype)
            count, first = _bad(values, infinite=strict)
            if count:
                shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
                where = [int(i) for i in np.unravel_index(first, shape)] if shape else first
                raise ConverterError(
                    "EQ321",
                    subject,
                    f"{count} of {values.size} values of the weights {tflite_file.tensor_name(tensor)!r} "
                    f"(of {', '.join(sorted(users[index])) or 'no operation'}) are NaN or infinite",
                    expected="finite weights",
                    got=f"{values[first]} at {where}",
                    hint="the training diverged: take an earlier checkpoint",
                )


def _bad(values: npt.NDArray[Any], *, infinite: bool) -> tuple[int, int]:
    """Return how many values are bad and the first one's index; by chunks: weights are large."""
    count, first = 0, -1
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        found = np.flatnonzero(~np.isfinite(part) if infinite else np.isnan(part))
        if found.size and first < 0:
            first = start + int(found[0])
        count += int(found.size)
    return count, first
