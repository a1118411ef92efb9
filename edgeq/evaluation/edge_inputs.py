"""Edge inputs: the answers to zeros, saturation, constants, denormals, values out of range and NaN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]
Real = npt.NDArray[np.float64]
SAMPLES = 16
_DENORMAL = 1e-40
"""Below float32's smallest normal number, 1.2e-38."""
_BEYOND = 4.0


class Edge(StrEnum):
    """A kind of input at the edge of what a model can get."""

    ZEROS = "zeros"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    CONSTANT = "constant"
    DENORMALS = "denormals"
    OUT_OF_RANGE = "out of range"
    NAN = "NaN"
    PLUS_INFINITY = "+infinity"
    MINUS_INFINITY = "-infinity"


NOT_FINITE = frozenset({Edge.NAN, Edge.PLUS_INFINITY, Edge.MINUS_INFINITY})


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeInput:
    """Both models on one kind of input.

    Attributes:
        samples: how many inputs of this kind were run.
        reference_finite, finite: whether every value of the outputs is finite; None where the input cannot
            be given to the variant: its type has no such value.
        same_class: share of the inputs that get the float model's class; None where a model gives none.
    """

    kind: Edge
    samples: int
    reference_finite: bool | None
    finite: bool | None
    same_class: float | None


def edge_arrays(
    inputs: Sequence[Array], tensors: Sequence[TensorInfo], *, not_finite: bool
) -> tuple[list[Array], list[Edge]]:
    """Return (one array an input, the kind of each of its rows).

    Inputs that are not real values keep the values of the first sample.

    Args:
        inputs: the float model's, samples first: their range is that of the data.
        tensors: the float model's inputs.
        not_finite: whether NaN and infinity are among the kinds.
    """
    rows = np.unique(np.linspace(0, len(inputs[0]) - 1, min(SAMPLES, len(inputs[0]))).round().astype(np.intp))
    kinds = [each for each in Edge if not_finite or each not in NOT_FINITE]
    listed = [kind for kind in kinds for _ in range(len(rows) if kind is Edge.OUT_OF_RANGE else 1)]
    arrays = []
    for array, tensor in zip(inputs, tensors, strict=True):
        if np.dtype(tensor.dtype).kind != "f" and tensor.scale is None:
            arrays.append(np.repeat(array[:1], len(listed), axis=0))
        else:
            arrays.append(np.concatenate([_of_kind(kind, array, rows) for kind in kinds]))
    return arrays, listed


def _of_kind(kind: Edge, array: Array, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    if kind is Edge.OUT_OF_RANGE:
        return (_BEYOND * array[rows]).astype(np.float32)
    value = {
        Edge.ZEROS: 0.0,
        Edge.MINIMUM: float(array.min()),
        Edge.MAXIMUM: float(array.max()),
        Edge.CONSTANT: float(array.astype(np.float64).mean()),
        Edge.DENORMALS: _DENORMAL,
        Edge.NAN: np.nan,
        Edge.PLUS_INFINITY: np.inf,
        Edge.MINUS_INFINITY: -np.inf,
    }[kind]
    return np.full((1, *array.shape[1:]), value, np.float32)


def edge_figures(
    kinds: Sequence[Edge], reference: Sequence[Real], variant: Sequence[Real], *, classes: bool
) -> tuple[EdgeInput, ...]:
    """Return what both models answered. A pure function.

    Args:
        kinds: of each row; kinds that were not run are reported as such.
        reference, variant: all outputs, rows first.
        classes: whether the first output holds a value of each class.
    """
    result = []
    for kind in Edge:
        rows = [number for number, each in enumerate(kinds) if each is kind]
        if not rows:
            result.append(
                EdgeInput(kind=kind, samples=0, reference_finite=None, finite=None, same_class=None)
            )
            continue
        finite = [
            all(bool(np.isfinite(each[rows]).all()) for each in outputs) for outputs in (reference, variant)
        ]
        same = None
        if classes and all(finite):
            answers = [each[0][rows].reshape(len(rows), -1).argmax(axis=1) for each in (reference, variant)]
            same = float((answers[0] == answers[1]).mean())
        result.append(
            EdgeInput(
                kind=kind, samples=len(rows), reference_finite=finite[0], finite=finite[1], same_class=same
            )
        )
    return tuple(result)
