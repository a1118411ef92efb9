"""Second moments of a layer's inputs and wanted outputs: all that least squares needs of the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Moments over rows (samples times positions), a batch of independent maps first.

    Attributes:
        hessian: (groups, fan_in, fan_in), covariance of the inputs that the quantized layer gets.
        cross: (groups, width, fan_in), covariance of the wanted outputs with these inputs.
        source: (groups, fan_in), mean of these inputs.
        wanted: (groups, width), mean of the wanted outputs.
        rows: how many rows were seen.
    """

    hessian: Array
    cross: Array
    source: Array
    wanted: Array
    rows: int


def joined(first: Moments, second: Moments) -> Moments:
    """Return the moments over the rows of both."""
    rows = first.rows + second.rows
    one, other = first.rows / rows, second.rows / rows
    source, wanted = second.source - first.source, second.wanted - first.wanted
    return Moments(
        hessian=one * first.hessian
        + other * second.hessian
        + one * other * source[:, :, None] * source[:, None, :],
        cross=one * first.cross
        + other * second.cross
        + one * other * wanted[:, :, None] * source[:, None, :],
        source=first.source + other * source,
        wanted=first.wanted + other * wanted,
        rows=rows,
    )


class Accumulator:
    """Adds up moments part by part, in double precision between the parts."""

    def __init__(self, groups: int, width: int, fan_in: int) -> None:
        self._hessian = np.zeros((groups, fan_in, fan_in))
        self._cross = np.zeros((groups, width, fan_in))
        self._source = np.zeros((groups, fan_in))
        self._wanted = np.zeros((groups, width))
        self._shift: tuple[Array, Array] | None = None
        self._rows = 0

    def add(self, source: Array, wanted: Array) -> None:
        """Add rows: (groups, rows, fan_in) inputs and (groups, rows, width) wanted outputs."""
        if self._shift is None:
            # About any value near the mean the single-precision sums below lose nothing.
            self._shift = source.mean(1, keepdims=True), wanted.mean(1, keepdims=True)
        source, wanted = source - self._shift[0], wanted - self._shift[1]
        turned = source.transpose(0, 2, 1)
        self._hessian += turned @ source
        self._cross += (turned @ wanted).transpose(0, 2, 1)
        self._source += source.sum(1, dtype=np.float64)
        self._wanted += wanted.sum(1, dtype=np.float64)
        self._rows += source.shape[1]

    def moments(self) -> Moments:
        """Return what was added.

        Raises:
            ValueError: when nothing was.
        """
        if self._shift is None:
            raise ValueError("no rows were added")
        source, wanted = self._source / self._rows, self._wanted / self._rows
        return Moments(
            hessian=self._hessian / self._rows - source[:, :, None] * source[:, None, :],
            cross=self._cross / self._rows - wanted[:, :, None] * source[:, None, :],
            source=source + self._shift[0][:, 0],
            wanted=wanted + self._shift[1][:, 0],
            rows=self._rows,
        )
