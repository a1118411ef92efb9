"""Judge by a kernel table whether a scheme, or a model in a scheme, suits a machine."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence

from edgeq_converters.errors import ConverterError
from edgeq_converters.kernels.described import description_of
from edgeq_converters.kernels.table import KernelRow, KernelTable, KernelUse, Target
from edgeq_converters.values import WEIGHTED_OPERATIONS, Scheme

SLOW = 2.0
"""Latency over that of float32 from which on a scheme counts as slow."""
_WORTH_A_WORD = 0.05
"""Share of a model's multiplications from which on unmeasured slow kernels are named."""
_MOST_NAMES = 3
_OTHERS = (Scheme.INT8, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.FLOAT32, Scheme.INT16X8)
"""Schemes that an error proposes, the most useful first."""


def unsuited(table: KernelTable, scheme: Scheme) -> str | None:
    """Return why a machine should not get a scheme; None where nothing speaks against it.

    The operations with weights decide, because they do nearly all the work of a model. A scheme that saves
    neither is not proposed: one that the runtime does not run, one that is SLOW or more times slower than
    float32, and where nothing was measured, one that the runtime's documents call slow. Ratios of an emulated
    processor are never used.
    """
    if scheme is Scheme.FLOAT32:
        return None
    rows = [row for each in WEIGHTED_OPERATIONS if (row := table.row(each, scheme)) is not None]
    if rows and all(row.kernel == "none" for row in rows):
        return f"no kernel there runs {scheme} ({table})"
    timed = [] if table.emulated else [row for row in rows if row.ratio is not None]
    if not timed:
        return _described_scheme(table, [row for row in rows if row.kernel != "none"])
    mean = math.exp(sum(math.log(max(row.ratio or 0.0, 1e-6)) for row in timed) / len(timed))
    if mean < SLOW:
        return None
    named = ", ".join(f"{row.operation} {row.ratio:.1f} times ({row.kernel})" for row in timed)
    return f"{scheme} is slower than float32 there: {named} ({table})"


def _described_scheme(table: KernelTable, rows: Sequence[KernelRow]) -> str | None:
    described = [description_of(row, table.machine) for row in rows]
    first = described[0] if described else None
    if first is None or any(each is not first for each in described):
        return None
    named = ", ".join(f"{row.operation} ({row.kernel})" for row in rows)
    return f"{first.what}: {named}; described, not measured: {first.source} ({table})"


def require_kernels(
    target: Target, uses: Sequence[KernelUse], scheme: Scheme, *, may_be_float: bool, subject: str
) -> None:
    """Check that a machine has a kernel for every operation of a model in a scheme.

    Args:
        uses: the operations as the scheme would compute them.
        scheme: of the model.
        may_be_float: whether the recipe lets operations stay float.
        subject: the model, for the message.

    Raises:
        ConverterError: EQ340 naming the operations, how many there are, and the alternatives.
    """
    table = target.table
    missing = [(use, row) for use in uses if (row := table.row(use.operation, use.scheme)) and row.is_missing]
    if not missing:
        return
    total = sum(len(use.names) for use in uses)
    parts = [f"{_counted(use)}: {row.problem or 'the runtime refuses it'}" for use, row in missing]
    ways = _alternatives(table, uses, [use for use, _ in missing], scheme, may_be_float=may_be_float)
    raise ConverterError(
        "EQ340",
        subject,
        f"{target.name} has no kernel for {'; '.join(parts)}",
        expected=f"a kernel there for each of the {total} operations ({table})",
        got=f"none for {sum(len(use.names) for use, _ in missing)}",
        hint="; or ".join(ways),
    )


def _alternatives(
    table: KernelTable,
    uses: Sequence[KernelUse],
    missing: Sequence[KernelUse],
    scheme: Scheme,
    *,
    may_be_float: bool,
) -> list[str]:
    kinds = list(dict.fromkeys(use.operation for use in uses))
    lacking = list(dict.fromkeys(use.operation for use in missing))
    others = [each.value for each in _OTHERS if each is not scheme and _runs(table, kinds, each)]
    ways = [f"--scheme {' or '.join(others)}"] if others else []
    integer = all(use.scheme is not Scheme.FLOAT32 for use in missing)
    if scheme.needs_ranges and integer and _runs(table, lacking, Scheme.FLOAT32):
        named = [f"--keep-float {shlex.quote(name)}" for use in missing for name in use.names]
        more = f" (and {len(named) - _MOST_NAMES} more)" if len(named) > _MOST_NAMES else ""
        allow = "" if may_be_float else "--allow-float "
        ways.append(f"{allow}{' '.join(named[:_MOST_NAMES])}{more}")
    ways.append(f"replace {', '.join(lacking)} in the model")
    return ways


def _runs(table: KernelTable, kinds: Iterable[str], scheme: Scheme) -> bool:
    """Return whether every one of these operations may run in a scheme, as far as the table knows."""
    rows = [table.row(kind, _form(kind, scheme)) for kind in kinds]
    return all(row is None or row.kernel != "none" for row in rows) and unsuited(table, scheme) is None


def _form(operation: str, scheme: Scheme) -> Scheme:
    """Return the scheme in which a kind of operation computes under a model's scheme."""
    of_weights = scheme in {Scheme.DYNAMIC, Scheme.FLOAT16}
    return Scheme.FLOAT32 if of_weights and operation not in WEIGHTED_OPERATIONS else scheme


def slow_parts(table: KernelTable, uses: Sequence[KernelUse], *, scheme: Scheme) -> tuple[str, ...]:
    """Return what makes a model slow on a machine in a scheme, a line each; empty where nothing does.

    Each operation is judged by the kernel that would compute it: the integer part of a model by integer
    kernels, its float part by those of float32. Their ratios are weighted by the work of the operations.
    """
    if scheme is Scheme.FLOAT32:
        return ()
    known = [(use, row) for use in uses if (row := table.row(use.operation, use.scheme)) is not None]
    lines = [] if table.emulated else _measured(table, known, scheme)
    if lines:
        return tuple(lines)
    described: dict[str, list[str]] = {}
    work: dict[str, float] = {}
    for use, row in known:
        statement = description_of(row, table.machine)
        if statement is not None:
            text = f"{statement.what} {{}}; described, not measured: {statement.source} ({table})"
            described.setdefault(text, []).append(f"{_counted(use)}, {row.kernel}")
            work[text] = work.get(text, 0.0) + use.work
    return tuple(
        f"{scheme}: {text.format('(' + '; '.join(named) + ')')}"
        for text, named in described.items()
        if work[text] >= _WORTH_A_WORD
    )


def _measured(table: KernelTable, known: Sequence[tuple[KernelUse, KernelRow]], scheme: Scheme) -> list[str]:
    timed = [(use, row.ratio, row.kernel) for use, row in known if row.ratio is not None]
    total = sum(use.work for use, _, _ in timed)
    if not total:
        return []
    mean = sum(use.work * ratio for use, ratio, _ in timed) / total
    if mean < SLOW:
        return []
    slow = sorted(timed, key=lambda each: -each[0].work * each[1])
    named = "; ".join(
        f"{_counted(use)} {ratio:.1f} times ({kernel})" for use, ratio, kernel in slow[:_MOST_NAMES]
    )
    return [
        f"{scheme} is slower than float32 there, about {mean:.1f} times for this model: {named} ({table})"
    ]


def _counted(use: KernelUse) -> str:
    count = len(use.names)
    return f"{use.operation} in {use.scheme} ({count} operation{'' if count == 1 else 's'})"
