"""The kernels of a machine's runtime by operation and scheme, as values."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq_converters.values import Kernel, Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """The kernel of one operation in one scheme.

    Attributes:
        operation: its kind in the .tflite schema.
        kernel: `none` where the model does not run, `builtin` where the runtime does not say which one.
        ratio: latency over that of float32 of the same operation; None where it was not measured.
        ratio_low, ratio_high: quartiles over the rounds.
        problem: why the kernel is `none`.
        tried: whether the runtime was asked. It was not where no quantizer wrote the operation in this
            scheme; `none` then says nothing about the runtime.
    """

    operation: str
    scheme: Scheme
    kernel: Kernel
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    problem: str = ""
    tried: bool = True

    @property
    def is_missing(self) -> bool:
        """Whether the runtime refused the operation in this scheme."""
        return self.kernel == "none" and self.tried


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """What a probe found on one machine.

    Attributes:
        machine: its class as the operating system names it: `x86_64`, `aarch64`, `armv7l`.
        runtime: module and version.
        source: which machine was measured.
        measured_on: the date, as `2026-11-30`.
        emulated: whether the processor is emulated. Ratios then say nothing about a real one, and there are
            none; the kernels are those of the real one.
    """

    machine: str
    runtime: str
    source: str
    measured_on: str
    emulated: bool
    rows: tuple[KernelRow, ...]

    def row(self, operation: str, scheme: Scheme) -> KernelRow | None:
        """Return the row of an operation in a scheme; None where it was not probed."""
        return next((row for row in self.rows if (row.operation, row.scheme) == (operation, scheme)), None)

    def __str__(self) -> str:
        how = "which kernels exist was probed under emulation" if self.emulated else "measured"
        return f"{self.machine}, {self.runtime}, {how} {self.measured_on}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelUse:
    """The operations of one kind that a model computes in one scheme.

    Attributes:
        scheme: of the operation itself: `float32` for the float part of an integer model, `int16x8` for the
            operations of an int8 model that compute in int16.
        names: of the output tensors, one for each operation.
        work: their share of the model's multiplications, 0..1.
    """

    operation: str
    scheme: Scheme
    names: tuple[str, ...]
    work: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The machine that a model is converted for.

    Attributes:
        name: of the device or class of machines, as the user wrote it.
    """

    name: str
    table: KernelTable
