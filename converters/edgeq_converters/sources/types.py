"""The result of loading a source: a float .tflite, and a function that runs the source itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edgeq_converters.graph.model import Model
from edgeq_converters.sources.detect import SourceKind

Array = npt.NDArray[Any]
Reference = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A source as a float .tflite.

    Attributes:
        model: the float .tflite. A .tflite source is used as it is, except that float16 weights are widened.
        reference: runs the source on one batch: {input name: array of the .tflite's shape} -> {output name:
            array}; None for a .tflite source, which is its own reference.
        layouts: {input name: axes} of the .tflite's inputs that are the source's transposed by these axes.
        tools: packages that took part, besides those of every conversion.
        notes: remarks for the user.
    """

    kind: SourceKind
    model: Model
    reference: Reference | None = None
    layouts: Mapping[str, tuple[int, ...]] | None = None
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
