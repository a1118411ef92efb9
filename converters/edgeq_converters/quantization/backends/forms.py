"""Integer forms of operations that litert-quantizer leaves in float, as LiteRT's kernels were measured.

`tests/converters/test_own_backend.py` runs every form against the float operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Scale = tuple[float, int]
"""(scale, zero point)."""


class Inputs(StrEnum):
    """Which scales an operation's float inputs get."""

    OWN = "own"
    """Each the scale of its range."""
    OF_OUTPUT = "of_output"
    """All that of the output, because the kernel compares or moves integers."""


class Outputs(StrEnum):
    """Which scale an operation's float outputs get."""

    OWN = "own"
    """That of the output's range."""
    OF_INPUT = "of_input"
    """That of the first float input, because the kernel moves integers."""
    FIXED = "fixed"
    """The one that the kernel requires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How an operation computes in integers.

    Attributes:
        bits: of the activations for which there is a kernel that computes right.
        scales: bits -> the fixed scale of the outputs.
    """

    inputs: Inputs = Inputs.OWN
    outputs: Outputs = Outputs.OWN
    bits: frozenset[int] = frozenset({8, 16})
    scales: Mapping[int, Scale] | None = None


_BYTES = frozenset({8})
_SHORTS = frozenset({16})
_MOVED = Form(outputs=Outputs.OF_INPUT)
FORMS: Mapping[str, Form] = {
    "ABS": Form(),
    "ARG_MAX": Form(bits=_BYTES),
    "ARG_MIN": Form(bits=_BYTES),
    "BATCH_TO_SPACE_ND": _MOVED,
    "DEPTH_TO_SPACE": Form(outputs=Outputs.OF_INPUT, bits=_BYTES),
    "DILATE": _MOVED,
    "ELU": Form(bits=_BYTES),
    "EMBEDDING_LOOKUP": Form(inputs=Inputs.OF_OUTPUT),
    "EXP": Form(),
    "EXPAND_DIMS": _MOVED,
    "FILL": _MOVED,
    "GREATER": Form(),
    "GREATER_EQUAL": Form(),
    "L2_NORMALIZATION": Form(outputs=Outputs.FIXED, bits=_BYTES, scales={8: (1 / 128, 0)}),
    "LEAKY_RELU": Form(),
    "LESS": Form(),
    "LESS_EQUAL": Form(),
    "LOG": Form(),
    "LOG_SOFTMAX": Form(outputs=Outputs.FIXED, bits=_BYTES, scales={8: (16 / 256, 127)}),
    "MINIMUM": Form(inputs=Inputs.OF_OUTPUT),
    "ONE_HOT": Form(inputs=Inputs.OF_OUTPUT, bits=_BYTES),
    "PRELU": Form(bits=_BYTES),
    "REDUCE_MAX": _MOVED,
    "REDUCE_PROD": Form(),
    "RELU6": Form(),
    "RELU_0_TO_1": Form(bits=_BYTES),
    "RELU_N1_TO_1": Form(bits=_BYTES),
    "REVERSE_SEQUENCE": Form(outputs=Outputs.OF_INPUT, bits=_SHORTS),
    "SPACE_TO_BATCH_ND": _MOVED,
    "SPLIT_V": _MOVED,
    "SQUEEZE": _MOVED,
    "TILE": _MOVED,
    "TOPK_V2": _MOVED,
}
"""By kind. Kernels exist for other kinds as well, which litert-quantizer writes."""
