"""Values that the converters return about models: schemes, tensors, operations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Scheme(StrEnum):
    """The number formats of a model's weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    INT16X8 = "int16x8"
    INT8_MIXED = "int8-mixed"
    INT4 = "int4"

    @property
    def io_types(self) -> tuple[str, ...]:
        """The possible types of inputs and of outputs, the default first."""
        if self is Scheme.INT16X8:
            return ("float32", "int16")
        return ("int8", "float32", "uint8") if self.needs_ranges else ("float32",)

    @property
    def needs_ranges(self) -> bool:
        """Whether activations become integers, which needs a representative dataset."""
        return self in {Scheme.INT8, Scheme.INT16X8, Scheme.INT8_MIXED, Scheme.INT4}

    @property
    def full_integer(self) -> bool:
        """Whether no operation may compute in float."""
        return self.needs_ranges and self is not Scheme.INT8_MIXED


Kernel = Literal["xnnpack", "optimized", "reference", "builtin", "none"]
"""What computes an operation; `builtin` is one of the runtime's own, `none` where it does not run."""
WEIGHTED_OPERATIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
PROBED_OPERATIONS = (
    *WEIGHTED_OPERATIONS,
    "BATCH_MATMUL",
    "ADD",
    "MUL",
    "AVERAGE_POOL_2D",
    "MEAN",
    "RESIZE_BILINEAR",
    "LOGISTIC",
    "TANH",
    "HARD_SWISH",
    "SOFTMAX",
)
"""The operations that a probe of kernels tries; those with weights do most of a model's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IoTypes:
    """The types of a model's inputs and outputs, in place of the source's float32."""

    inputs: str = "float32"
    outputs: str = "float32"

    @classmethod
    def parse(cls, text: str) -> IoTypes:
        """Return the types that `uint8` (for both) or `uint8,float32` (inputs, outputs) names."""
        inputs, comma, outputs = text.partition(",")
        return cls(inputs=inputs.strip(), outputs=outputs.strip() if comma else inputs.strip())

    @property
    def any_float(self) -> bool:
        """Whether the inputs or the outputs are float32."""
        return "float32" in (self.inputs, self.outputs)


class OpKind(StrEnum):
    """Whether an operation computes in integers or float."""

    INTEGER = "integer"
    FLOAT = "float"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScales:
    """The scales and zero points of the slices of an output along one axis.

    Attributes:
        axis: from 0, the batch.
        scales, zero_points: one for each slice.
    """

    axis: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedState:
    """A state that a model gives as an output, and takes as an input at the next step.

    Attributes:
        input, output: positions among the model's inputs and outputs.
    """

    input: int
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """An input or output of a model.

    Attributes:
        name: from the model's signature if it has one, else the tensor's own.
        shape: batch first; -1 for an open dimension.
        dtype: numpy's name of the type: `float32`, `int8`.
        scale, zero_point: real value = scale * (integer - zero_point); None if the tensor is not quantized.
        slices: in place of them, where the slices along an axis have scales of their own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    slices: SliceScales | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSqnr:
    """The signal-to-quantization-noise ratio of one output.

    Attributes:
        name: of the output.
        sqnr_db: over the whole output, in dB; None where it is equal to the reference.
        slices: how many slices it has; 0 where it counts as a whole.
        axis: along which they lie, from 0, the samples; None where it counts as a whole.
        worst_slice: the slice with the lowest ratio, from 0; None without slices, or where all are equal.
        worst_slice_db: its ratio.
        dead: slices that vary in the reference, and are the same everywhere in this output.
    """

    name: str
    sqnr_db: float | None
    slices: int = 0
    axis: int | None = None
    worst_slice: int | None = None
    worst_slice_db: float | None = None
    dead: tuple[int, ...] = ()

    @property
    def worst_db(self) -> float:
        """The ratio of the worst slice, or of the whole; infinity where it is equal to the reference."""
        known = [each for each in (self.sqnr_db, self.worst_slice_db) if each is not None]
        return min(known, default=math.inf)

    @property
    def worst_at(self) -> str:
        """The place of that ratio in words: the output's name, and the slice if it is one."""
        if self.worst_slice_db is None or self.worst_slice_db > self.worst_db:
            return self.name
        return f"{self.name}, slice {self.worst_slice}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The inputs and outputs that a source declares, in its order, with a batch of one where it is open.

    The shape of an output may hold -1 where the source does not say a size.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpLine:
    """One line of the op report.

    Attributes:
        index: position in order of execution, over all subgraphs.
        op: the operation's kind in the .tflite schema, for example `CONV_2D`.
        reason: why it is integer, float or mixed.
    """

    index: int
    op: str
    kind: OpKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatOperation:
    """An operation that computes in float in an otherwise integer model.

    Attributes:
        index: position in the op report.
        op: its kind in the .tflite schema.
        name: of its first output tensor.
        reason: why it is float.
    """

    index: int
    op: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatCost:
    """What the float operations of an integer model cost, measured in turns on this machine, one thread.

    Attributes:
        file_ns: median latency of the file.
        float_ns: of its float operations and the conversions around them alone.
        integer_ns: of its other operations alone; None where there are none.
        ratio: file_ns / integer_ns.
        ratio_low, ratio_high: quartiles of that ratio over the rounds.
        rounds: in each of which every part was loaded again and timed.
    """

    file_ns: int
    float_ns: int
    integer_ns: int | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatPart:
    """The float operations of an otherwise integer model.

    Attributes:
        operations: in order of execution, without conversions.
        regions: groups of them that are connected by float tensors.
        conversions: number of QUANTIZE and DEQUANTIZE at their borders.
        share: of the model's operations without conversions, 0..1.
        cost: None where it was not measured.
        unmeasured: the reason for that; empty otherwise.
    """

    operations: tuple[FloatOperation, ...]
    regions: int
    conversions: int
    share: float
    cost: FloatCost | None
    unmeasured: str


class Caution(str):
    """A remark on what may be wrong with a result; every other remark is a note on what was done."""

    __slots__ = ()


def notes_of(remarks: Iterable[str]) -> tuple[str, ...]:
    """Return the remarks without the cautions."""
    return tuple(remark for remark in remarks if not isinstance(remark, Caution))


def warnings_of(remarks: Iterable[str]) -> tuple[str, ...]:
    """Return the cautions."""
    return tuple(str(remark) for remark in remarks if isinstance(remark, Caution))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A .tflite file's inputs, outputs and op report.

    Attributes:
        selected_outputs: positions of the outputs that NON_MAX_SUPPRESSION and what follows it compute: lists
            of boxes in an order of their own.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ops: tuple[OpLine, ...]
    selected_outputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a chosen model reaches on samples that it was not fitted on; dB are of the output SQNR.

    Attributes:
        output_sqnr_db: over all outputs, without the optimism of the choice.
        low_db, high_db: the 95 % interval (bootstrap over the held-out samples, with the choice repeated).
        logits_db: the mean over the outputs, before a final softmax or sigmoid, with the optimism.
        plain_db: of min/max ranges without any correction, or of what is plainest under the recipe.
        samples: number of held-out samples.
        folds: by which they were held out; 1 for a single split, more where each sample was held out once.
    """

    output_sqnr_db: float
    low_db: float
    high_db: float
    logits_db: float
    plain_db: float
    samples: int
    folds: int

    def __str__(self) -> str:
        how = f", cross-fitted in {self.folds} folds" if self.folds > 1 else ""
        return (
            f"output SQNR {self.output_sqnr_db:.1f} dB"
            f" (95 % interval {self.low_db:.1f} to {self.high_db:.1f})"
            f" on {self.samples} held-out samples{how}"
        )


PARITY_WARN_BELOW_DB = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the float .tflite is from its source.

    Attributes:
        samples: number of samples that both were run on.
        data: where the samples came from: `calibration` or `random`.
        max_abs_difference: over all outputs and samples.
        sqnr_db: of the output that agrees least; infinite where all are equal.
        repeatable: whether the source gives the same outputs on the same samples.
    """

    samples: int
    data: str
    max_abs_difference: float
    sqnr_db: float
    repeatable: bool

    def caution(self) -> Caution | None:
        """Return a warning for the user, or None where there is nothing to report."""
        if not self.repeatable:
            return Caution(
                "the source gives different outputs on the same samples; parity cannot be measured"
            )
        if self.sqnr_db < PARITY_WARN_BELOW_DB:
            return Caution(
                f"the float .tflite is {self.sqnr_db:.1f} dB from its source on {self.samples} {self.data} "
                f"samples (largest difference {self.max_abs_difference:.3g}); "
                f"{PARITY_WARN_BELOW_DB:.0f} dB is usual"
            )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorShift:
    """How a tensor's values differ from those of an earlier calibration.

    Attributes:
        psi: population stability index over tenths of the calibration's values: an effect size, 0 for equal
            distributions. No threshold suits every tensor.
        outside: share of the values beyond the calibration's extremes, 0..1; int8 would clip them.
    """

    tensor: str
    psi: float
    outside: float
