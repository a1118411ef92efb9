"""Statements of the runtime's documents about slow kernels, for kernels that were not measured."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq_converters.kernels.table import KernelRow
from edgeq_converters.values import Kernel, Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One statement.

    Attributes:
        kernels: for which it holds.
        machines: the classes of machines for which it holds; empty for all.
        what: what is slow or gains nothing, with `{scheme}` and `{kernels}` to fill in.
        source: who says so.
    """

    scheme: Scheme
    kernels: frozenset[Kernel]
    machines: frozenset[str] = frozenset()
    what: str
    source: str


DESCRIBED = (
    Described(
        scheme=Scheme.INT16X8,
        kernels=frozenset({"optimized", "reference", "builtin"}),
        what="int16x8 has no optimized kernels",
        source="LiteRT, post-training quantization",
    ),
    Described(
        scheme=Scheme.FLOAT16,
        kernels=frozenset({"xnnpack", "optimized", "reference", "builtin"}),
        machines=frozenset({"armv6l", "armv7l"}),
        what="float16 weights are widened at load and computed in float32",
        source="LiteRT, post-training float16 quantization; XNNPACK computes in float16 from ARMv8.2 on",
    ),
)


def description_of(row: KernelRow, machine: str) -> Described | None:
    """Return what is known of the speed of a kernel that was not measured; None where nothing is."""
    if row.ratio is not None:
        return None
    return next(
        (
            each
            for each in DESCRIBED
            if each.scheme is row.scheme
            and row.kernel in each.kernels
            and (not each.machines or machine in each.machines)
        ),
        None,
    )
