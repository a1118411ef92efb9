"""Kernel tables: which kernel of a runtime computes an operation in a scheme, and how fast it is.

from edgeq.kernels import table_for, unsuited
print(unsuited(table_for("x86_64"), Scheme.INT16X8))
"""

from __future__ import annotations

from edgeq.kernels.records import KIND, class_name, class_of, record_class, table_for
from edgeq.kernels.table import from_json, shipped_tables, to_json
from edgeq_converters.kernels import KernelRow, KernelTable, unsuited

__all__ = [
    "KIND",
    "KernelRow",
    "KernelTable",
    "class_name",
    "class_of",
    "from_json",
    "record_class",
    "shipped_tables",
    "table_for",
    "to_json",
    "unsuited",
]
