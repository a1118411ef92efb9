"""Frozen values of Edge TPU readiness, written by the worker and read by its caller.

This module imports nothing heavy: the caller has neither LiteRT nor a parsed model.
"""

from __future__ import annotations

from dataclasses import dataclass

PAGE = "https://coral.ai/docs/edgetpu/models-intro/#supported-operations"
MAPPED = "Mapped to Edge TPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpPlacement:
    """Where one operation would run.

    Attributes:
        index: position in the main graph.
        op: name in the .tflite schema, for example `CONV_2D`.
        maps: whether the Edge TPU supports this operation.
        on_tpu: whether it would run there: supported, and independent of operations that run on the CPU.
        macs: multiply-accumulate operations.
        reason: why it is not supported, or which dependency keeps it on the CPU.
    """

    index: int
    op: str
    maps: bool
    on_tpu: bool
    macs: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPoint:
    """The first operation that runs on the CPU and takes its successors with it."""

    index: int
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpuSummary:
    """The figures of a readiness report without its operations.

    Attributes:
        compiled: whether the model is already compiled for the Edge TPU; `on_tpu` then counts its custom
            operation.
        operations: number of operations in the main graph.
        maps: how many of them the Edge TPU supports.
        on_tpu: how many of them would run there.
        macs: multiply-accumulate operations of the whole graph.
        macs_share: share of them on the TPU, 0..1; None without any, and for a compiled model.
        split_at: where the graph leaves the TPU; None where it does not.
        risks: what the table allows and the compiler may still refuse.
        page: the source of the rules.
    """

    compiled: bool
    operations: int
    maps: int
    on_tpu: int
    macs: int
    macs_share: float | None
    split_at: SplitPoint | None
    risks: tuple[str, ...]
    page: str = PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Which operations of a model would run on an Edge TPU.

    Attributes:
        compiled: whether the model is already compiled; then `on_tpu` marks its custom operation.
        macs_share: share of the multiply-accumulate operations on the TPU, 0..1. None where the model has
            none, and for a compiled model, whose custom operation is opaque.
        split_at: index of the first operation that runs on the CPU and takes its successors with it.
        risks: what the table allows and the compiler may still refuse.
    """

    compiled: bool
    ops: tuple[OpPlacement, ...]
    macs: int
    macs_share: float | None
    split_at: int | None
    risks: tuple[str, ...]
    page: str = PAGE

    def summary(self) -> EdgeTpuSummary:
        """Return the figures without the operations."""
        split = next((op for op in self.ops if op.index == self.split_at), None)
        return EdgeTpuSummary(
            compiled=self.compiled,
            operations=len(self.ops),
            maps=sum(op.maps for op in self.ops),
            on_tpu=sum(op.on_tpu for op in self.ops),
            macs=self.macs,
            macs_share=self.macs_share,
            split_at=None
            if split is None
            else SplitPoint(index=split.index, op=split.op, reason=split.reason),
            risks=self.risks,
            page=self.page,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOps:
    """One row of the compiler's log: the number of operations of one kind and their status."""

    op: str
    count: int
    status: str

    @property
    def on_tpu(self) -> bool:
        """Whether they run on the Edge TPU."""
        return self.status.startswith(MAPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerLog:
    """The log of one run of `edgetpu_compiler`.

    Attributes:
        subgraphs: number of parts that run on the Edge TPU.
        on_chip_bytes: parameters cached on the chip.
        streamed_bytes: parameters sent over the bus on every inference.
        error: the compiler's error where it wrote no model.
    """

    version: str | None
    tpu_ops: int
    cpu_ops: int
    subgraphs: int | None
    on_chip_bytes: int | None
    streamed_bytes: int | None
    ops: tuple[LoggedOps, ...]
    error: str | None = None
