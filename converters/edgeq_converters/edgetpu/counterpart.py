"""Compare a model that `edgetpu_compiler` made with the .tflite that it was compiled from.

The compiler keeps the inputs and outputs as they are, so that the same golden samples hold for both files.
"""

from __future__ import annotations

import math

from edgeq_converters.data import array_names
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file, validate
from edgeq_converters.graph.model import Model
from edgeq_converters.values import TensorInfo


def require_counterpart(compiled: Model, source: Model) -> None:
    """Check that a compiled model has the inputs and outputs of its source: name, shape, type, scale.

    Raises:
        ConverterError: EQ335 it is not compiled, EQ320 its source is, EQ312 an input or output differs.
    """
    if not validate.is_compiled(compiled):
        raise ConverterError(
            "EQ335",
            compiled.subject,
            "the model is not compiled for the Edge TPU, so that it makes its golden outputs itself",
            expected=f"the operation {tflite_file.EDGETPU_OP}",
            hint="leave out --golden-from, or compile the model: "
            "`edgeq edgetpu MODEL.tflite -o COMPILED.tflite`",
        )
    validate.require_not_compiled(source)
    for what in ("inputs", "outputs"):
        tensors, others = _tensors(compiled, what), _tensors(source, what)
        if len(tensors) != len(others):
            raise _differs(compiled, source, f"the number of {what}", str(len(others)), str(len(tensors)))
        for (names, tensor), (other_names, other) in zip(tensors, others, strict=True):
            if not names & other_names:
                raise _differs(compiled, source, f"a name of the {what}", other.name, tensor.name)
            if not _same(tensor, other):
                raise _differs(compiled, source, f"`{other.name}`", _described(other), _described(tensor))


def _tensors(model: Model, what: str) -> list[tuple[set[str], TensorInfo]]:
    """Return the inputs or outputs, each with its names: the compiler may drop those of the signature."""
    infos: tuple[TensorInfo, ...] = getattr(model, what)
    indices = tflite_file.index_list(getattr(model.graph, what))
    own = [tflite_file.tensor_name(model.graph.tensors[index]) for index in indices]
    return [
        ({array_names.plain(info.name), array_names.plain(name)}, info)
        for info, name in zip(infos, own, strict=True)
    ]


def _same(one: TensorInfo, other: TensorInfo) -> bool:
    if (one.shape, one.dtype, one.zero_point) != (other.shape, other.dtype, other.zero_point):
        return False
    if one.scale is None or other.scale is None:
        return one.scale is other.scale
    return math.isclose(one.scale, other.scale, rel_tol=1e-6)


def _described(tensor: TensorInfo) -> str:
    quantized = "" if tensor.scale is None else f", scale {tensor.scale:.6g}, zero point {tensor.zero_point}"
    return f"{tensor.shape} of {tensor.dtype}{quantized}"


def _differs(compiled: Model, source: Model, what: str, expected: str, got: str) -> ConverterError:
    return ConverterError(
        "EQ312",
        compiled.subject,
        f"it was not compiled from {source.subject}: {what} differs",
        expected=expected,
        got=got,
        hint="give the int8 .tflite that edgetpu_compiler read",
    )
