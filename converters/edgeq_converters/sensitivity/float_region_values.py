"""Values of a search over float regions, which the worker writes and the host reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatRegionSet:
    """One choice of operations that stay float.

    Attributes:
        family: the kind of choice: `int8`, `ranking`, `head`, `tail`, `joined`, `reverted`.
        float_ops: names of the operations (first output tensors), in order of execution.
        indices: their positions in the whole model.
        sqnr_db: of the worst slice at the logits, without correction, on samples held out of the calibration;
            200 stands for no noise.
        added_bytes: how much their float weights enlarge the model.
        work: their share of the model's multiplications, 0..1.
        borders: number of conversions between int8 and float.
    """

    family: str
    float_ops: tuple[str, ...]
    indices: tuple[int, ...]
    sqnr_db: float
    added_bytes: int
    work: float
    borders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatRegionSearch:
    """The result of a search over float regions.

    Attributes:
        alone_db: {position of an operation: SQNR at the logits with only that one quantized}.
        ranking: positions, worst first.
        after_logits: names of the operations after the logits, which the search leaves alone.
        sets: every choice that was measured; the first leaves nothing float.
        held_out: number of samples that the SQNR was measured on.
        notes: remarks for the user.
    """

    alone_db: Mapping[int, float]
    ranking: tuple[int, ...]
    after_logits: tuple[str, ...]
    sets: tuple[FloatRegionSet, ...]
    held_out: int
    notes: tuple[str, ...]
