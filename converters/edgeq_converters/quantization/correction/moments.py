"""Second moments of a layer's inputs and reference outputs: all that least squares needs of the samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Moments over rows (samples times positions) of `groups` independent linear maps.

    Attributes:
        hessian: (groups, fan_in, fan_in), covariance of the quantized layer's inputs.
        cross: (groups, width, fan_in), covariance of the reference outputs with these inputs.
        source: (groups, fan_in), mean of these inputs.
        target: (groups, width), mean of the reference outputs.
        rows: number of rows.
    """

    hessian: Array
    cross: Array
    source: Array
    target: Array
    rows: int


def merge(first: Moments, second: Moments) -> Moments:
    """Return the moments over the rows of both."""
    rows = first.rows + second.rows
    one, other = first.rows / rows, second.rows / rows
    source, target = second.source - first.source, second.target - first.target
    return Moments(
        hessian=one * first.hessian
        + other * second.hessian
        + one * other * source[:, :, None] * source[:, None, :],
        cross=one * first.cross
        + other * second.cross
        + one * other * target[:, :, None] * source[:, None, :],
        source=first.source + other * source,
        target=first.target + other * target,
        rows=rows,
    )


def about_zero(moments: Moments) -> Moments:
    """Return the moments about zero, which a layer without a bias is fitted on."""
    source, target = moments.source, moments.target
    return replace(
        moments,
        hessian=moments.hessian + source[:, :, None] * source[:, None, :],
        cross=moments.cross + target[:, :, None] * source[:, None, :],
        source=np.zeros_like(source),
        target=np.zeros_like(target),
    )


class Accumulator:
    """Accumulates moments in parts, in double precision between the parts."""

    def __init__(self, groups: int, width: int, fan_in: int) -> None:
        self._hessian = np.zeros((groups, fan_in, fan_in))
        self._cross = np.zeros((groups, width, fan_in))
        self._source = np.zeros((groups, fan_in))
        self._target = np.zeros((groups, width))
        self._shift: tuple[Array, Array] | None = None
        self._rows = 0

    def add(self, source: Array, target: Array) -> None:
        """Add rows: (groups, rows, fan_in) inputs and (groups, rows, width) reference outputs."""
        rows = source.shape[1]
        ones = np.ones((1, rows), np.float32)  # a matrix product is many times faster than a sum over an axis
        if self._shift is None:
            # Subtract a value near the mean, so that the single-precision sums below lose no digits.
            self._shift = ones @ source / np.float32(rows), ones @ target / np.float32(rows)
        source, target = source - self._shift[0], target - self._shift[1]
        turned = source.transpose(0, 2, 1)
        self._hessian += turned @ source
        self._cross += (turned @ target).transpose(0, 2, 1)
        self._source += (ones @ source)[:, 0]
        self._target += (ones @ target)[:, 0]
        self._rows += rows

    def moments(self) -> Moments:
        """Return the moments of all added rows.

        Raises:
            ValueError: no rows were added.
        """
        if self._shift is None:
            raise ValueError("no rows were added")
        source, target = self._source / self._rows, self._target / self._rows
        return Moments(
            hessian=self._hessian / self._rows - source[:, :, None] * source[:, None, :],
            cross=self._cross / self._rows - target[:, :, None] * source[:, None, :],
            source=source + self._shift[0][:, 0],
            target=target + self._shift[1][:, 0],
            rows=self._rows,
        )
