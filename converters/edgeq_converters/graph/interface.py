"""Compare the inputs and outputs of a .tflite with its source's: number, order, names, shapes, types."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import postprocessing
from edgeq_converters.graph.model import Model
from edgeq_converters.values import Interface, IoTypes, TensorInfo

FLOAT = IoTypes()


def interface_of(model: Model) -> Interface:
    """Return the inputs and outputs of a .tflite."""
    return Interface(inputs=model.inputs, outputs=model.outputs)


def require_interface(model: Model, expected: Interface, *, io: IoTypes = FLOAT) -> None:
    """Check that a model has the inputs and outputs of its source.

    Args:
        expected: of the source, in float.
        io: the types that take the place of float32 in the model.

    Raises:
        ConverterError: EQ322 naming the first difference.
    """
    for what, ours, theirs, kind, own in (
        ("input", model.inputs, expected.inputs, io.inputs, frozenset()),
        ("output", model.outputs, expected.outputs, io.outputs, postprocessing.outputs(model.parsed)),
    ):
        problem = _difference(what, ours, theirs, kind, own)
        if problem is not None:
            raise ConverterError(
                "EQ322",
                model.subject,
                f"the .tflite does not have the {what}s of its source: {problem}",
                expected=_listed(theirs, kind),
                got=_listed(ours),
                hint="export the model with one name for each input and output, and report the model",
            )


def _difference(
    what: str, ours: Sequence[TensorInfo], theirs: Sequence[TensorInfo], io: str, own: Collection[int]
) -> str | None:
    """Return in words how tensors differ; None where they do not.

    Args:
        own: positions whose type is the same in float and in integer models.
    """
    if len(ours) != len(theirs):
        return f"{len(ours)} instead of {len(theirs)}"
    if [_name(tensor) for tensor in ours] != [_name(tensor) for tensor in theirs]:
        return "other names, or another order"
    for position, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if not _same_shape(one.shape, other.shape):
            return f"{what} `{one.name}` has another shape"
        if one.dtype != (other.dtype if position in own else _dtype(other, io)):
            return f"{what} `{one.name}` has another type"
    return None


def _name(tensor: TensorInfo) -> str:
    # Without a signature, a tensor's own name counts, which a quantizer changes where it adds a conversion.
    return tensor.name.removesuffix("_dequant").removesuffix("_quantized")


def _same_shape(ours: Sequence[int], theirs: Sequence[int]) -> bool:
    return len(ours) == len(theirs) and all(
        other < 0 or one == other for one, other in zip(ours, theirs, strict=True)
    )


def _dtype(tensor: TensorInfo, io: str) -> str:
    return io if tensor.dtype == "float32" else tensor.dtype


def _listed(tensors: Sequence[TensorInfo], io: str = "float32") -> str:
    return ", ".join(f"{tensor.name} {_dtype(tensor, io)} {_text(tensor.shape)}" for tensor in tensors)


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join('?' if size < 0 else str(size) for size in shape)})"
