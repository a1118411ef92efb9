"""What loading a source gives: the float .tflite, and the source itself to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeq_converters.sources.detect import SourceKind

Array = npt.NDArray[Any]
Reference = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A source as a float .tflite.

    Attributes:
        data: the .tflite; of a .tflite source its own bytes, but for weights in float16, which are widened.
        frozen: the SavedModel of fixed shapes that TensorFlow's own quantizer takes; None without one.
        reference: runs the source on one batch: {input name: array of the .tflite's shape} -> {output name:
            array}; None for a .tflite, which is its own reference.
        layouts: {input name: axes}, where the .tflite's input is the source's transposed by these axes.
        tools: names of the packages that took part besides the usual ones.
        notes: what the user should be told.
    """

    kind: SourceKind
    data: bytes
    frozen: Path | None = None
    reference: Reference | None = None
    layouts: Mapping[str, tuple[int, ...]] | None = None
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
