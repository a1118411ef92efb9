"""Kernel tables as values, and the verdict on a scheme or a model by a table. Pure functions."""

from __future__ import annotations

from edgeq_converters.kernels.table import KernelRow, KernelTable, KernelUse, Target
from edgeq_converters.kernels.verdict import require_kernels, slow_parts, unsuited

__all__ = ["KernelRow", "KernelTable", "KernelUse", "Target", "require_kernels", "slow_parts", "unsuited"]
