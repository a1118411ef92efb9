"""Slices: parts of the evaluation data that a condition on a column names, and the figures on each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blueprint import Condition, Operator, Slice
from edgeq.errors import DataError
from edgeq.evaluation.bootstrap import Ends
from edgeq_converters import intervals

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[Any]
_COMPARE: Mapping[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.MORE: operator.gt,
    Operator.AT_LEAST: operator.ge,
}
_LISTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFigures:
    """Figures of both models on one slice; None where labels, answers or independent samples are missing.

    Attributes:
        where: the condition, as text.
        samples: of the slice.
        reference_accuracy, accuracy: of the float model and the variant.
        accuracy_ci95, agreement_ci95: Wilson's interval.
        drop: accuracy of the float model minus the variant's.
        drop_ci95: Newcombe's interval for paired samples.
        smallest_drop: the smallest drop that so many samples could show.
        agreement: share of the float model's answers that the variant gives.
    """

    name: str
    where: str
    samples: int
    reference_accuracy: float | None = None
    accuracy: float | None = None
    accuracy_ci95: Ends | None = None
    drop: float | None = None
    drop_ci95: Ends | None = None
    smallest_drop: float | None = None
    agreement: float | None = None
    agreement_ci95: Ends | None = None


def rows_of(part: Slice, column: Column, *, samples: int, subject: str) -> Mask:
    """Return which samples belong to a slice.

    A comparison with NaN is false, but for `!=`.

    Args:
        column: the array that the slice's condition names.
        samples: how many there are.
        subject: the data, for messages.

    Raises:
        DataError: EQ202 no sample belongs to it, EQ203 the column has not one value for each sample, EQ205
            its values are of another kind than the condition's.
    """
    where = part.where
    if column.shape not in ((samples,), (samples, 1)):
        raise DataError(
            subject,
            f"slice {part.name!r}",
            expected=f"`{where.column}` of shape ({samples},), one value for each sample",
            got=str(column.shape),
            code="EQ203",
        )
    values = _as_compared(part, column.reshape(samples), subject)
    rows: Mask = np.asarray(_COMPARE[where.operator](values, where.value), np.bool_)
    if not rows.any():
        raise DataError(
            subject,
            f"slice {part.name!r} is empty",
            expected=f"at least one of {samples} samples where {where}",
            got=f"{where.column} {_described(values)}",
            hint="correct the condition of the slice, or add such samples to the data",
            code="EQ202",
        )
    return rows


def slice_figures(
    part: Slice,
    rows: Mask,
    *,
    right: tuple[Mask, Mask] | None,
    same: Mask | None,
    independent: bool = True,
) -> SliceFigures:
    """Return the figures of one slice. A pure function.

    Args:
        rows: which samples belong to it; at least one.
        right: whether the float model and the variant have each sample right; None without labels.
        same: whether the variant gives the float model's answer; None where there are no answers.
        independent: whether the samples are independent of each other; there are no intervals otherwise.
    """
    drop = None if right is None else intervals.drop(right[0][rows], right[1][rows])
    return SliceFigures(
        name=part.name,
        where=str(part.where),
        samples=int(rows.sum()),
        reference_accuracy=None if right is None else float(right[0][rows].mean()),
        accuracy=None if right is None else float(right[1][rows].mean()),
        accuracy_ci95=intervals.share_ci95(right[1][rows]) if independent and right is not None else None,
        drop=None if drop is None else drop.share,
        drop_ci95=drop.ci95 if independent and drop is not None else None,
        smallest_drop=drop.smallest if independent and drop is not None else None,
        agreement=None if same is None else float(same[rows].mean()),
        agreement_ci95=intervals.share_ci95(same[rows]) if independent and same is not None else None,
    )


def _as_compared(part: Slice, column: Column, subject: str) -> Column:
    """Return the values in the kind that the condition compares.

    Raises:
        DataError: EQ205 they are of another kind.
    """
    where = part.where
    kind = column.dtype.kind
    if isinstance(where.value, bool):
        if kind == "b" or (kind in "iu" and np.isin(column, (0, 1)).all()):
            return column.astype(np.bool_)
        raise _other_kind(part, "truth values, or 0 and 1,", column, subject)
    if isinstance(where.value, str):
        if kind == "U":
            return column
        if kind == "S":
            return np.char.decode(column, "utf-8", "replace")
        raise _other_kind(part, "texts", column, subject)
    if kind in "fiub":
        return column
    raise _other_kind(part, "numbers", column, subject)


def _other_kind(part: Slice, expected: str, column: Column, subject: str) -> DataError:
    where: Condition = part.where
    return DataError(
        subject,
        f"slice {part.name!r}",
        expected=f"{expected} in `{where.column}`, for the condition `{where}`",
        got=f"dtype {column.dtype}, {_described(column)}",
        hint="a mask is named alone (`night`), a text is quoted (`room == 'kitchen'`), a number is not"
        " (`snr_db < 5`)",
        code="EQ205",
    )


def _described(values: Column) -> str:
    """Return the values that occur, or their range."""
    present = np.unique(values)
    if len(present) <= _LISTED:
        return f"has the values {', '.join(str(each) for each in present.tolist())}"
    if values.dtype.kind in "US":
        listed = ", ".join(str(each) for each in present[:_LISTED].tolist())
        return f"has {len(present)} values: {listed}, ..."
    low, high = np.nanmin(values), np.nanmax(values)
    return f"goes from {low:g} to {high:g}"
