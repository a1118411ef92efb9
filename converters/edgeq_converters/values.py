"""Frozen values that the converters return: what a model's tensors and operations are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Scheme(StrEnum):
    """How a model's numbers are kept."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    INT16X8 = "int16x8"
    INT8_MIXED = "int8-mixed"
    INT4 = "int4"

    @property
    def io_types(self) -> tuple[str, ...]:
        """The types that inputs and outputs can have, the default first."""
        if self is Scheme.INT16X8:
            return ("float32", "int16")
        return ("int8", "float32") if self.needs_ranges else ("float32",)

    @property
    def needs_ranges(self) -> bool:
        """Whether activations become integers, so that representative samples are needed."""
        return self in {Scheme.INT8, Scheme.INT16X8, Scheme.INT8_MIXED, Scheme.INT4}

    @property
    def full_integer(self) -> bool:
        """Whether no operation may work in float."""
        return self.needs_ranges and self is not Scheme.INT8_MIXED


class OpKind(StrEnum):
    """In which numbers an operation works."""

    INTEGER = "integer"
    FLOAT = "float"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """An input or output of a model.

    Attributes:
        name: the signature's name where the model has a signature, else the tensor's.
        shape: with the batch first; -1 where the model leaves a dimension open.
        dtype: as numpy writes it: `float32`, `int8`.
        scale: real value = scale * (integer - zero_point); None for a tensor that is not quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpLine:
    """One line of the op report.

    Attributes:
        index: position in the graph's order of execution, over all subgraphs.
        op: the operation's name in the .tflite schema, for example `CONV_2D`.
        reason: why the operation is of this kind.
    """

    index: int
    op: str
    kind: OpKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a .tflite file is."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ops: tuple[OpLine, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the value as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ModelInfo:
        """Return the value that `to_dict` wrote."""
        return cls(
            inputs=tuple(_tensor(item) for item in body["inputs"]),
            outputs=tuple(_tensor(item) for item in body["outputs"]),
            ops=tuple(OpLine(**{**item, "kind": OpKind(item["kind"])}) for item in body["ops"]),
        )


def _tensor(body: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(**{**body, "shape": tuple(body["shape"])})
