"""Frozen values of a walk over float islands, as the worker writes them and the caller reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class IslandSet:
    """One choice of operations that stay float.

    Attributes:
        family: how it was found: `int8`, `ranking`, `head`, `tail`, `joined`, `reverted`.
        float_ops: their names (first output tensors), in the order of execution.
        indices: their positions in the whole model.
        sqnr_db: SQNR at the logits, uncorrected, on samples that were held out of the calibration;
            at most 200, which is no noise.
        added_bytes: how much larger the model becomes by their float weights.
        work: share of the model's multiplications that they do, 0..1.
        borders: tensors that have to be converted between int8 and float.
    """

    family: str
    float_ops: tuple[str, ...]
    indices: tuple[int, ...]
    sqnr_db: float
    added_bytes: int
    work: float
    borders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IslandWalk:
    """What a walk over float islands found.

    Attributes:
        alone_db: {operation's position: SQNR at the logits with only it quantized}.
        ranking: positions, worst first.
        after_logits: names of the operations after the logits, which no candidate decides about.
        sets: every choice that was measured; the first keeps nothing float.
        held_out: how many samples the SQNR was taken on.
    """

    alone_db: Mapping[int, float]
    ranking: tuple[int, ...]
    after_logits: tuple[str, ...]
    sets: tuple[IslandSet, ...]
    held_out: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the value as JSON types."""
        return {**asdict(self), "alone_db": {str(key): value for key, value in self.alone_db.items()}}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> IslandWalk:
        """Return the value that `to_dict` wrote."""
        return cls(
            alone_db={int(key): value for key, value in body["alone_db"].items()},
            ranking=tuple(body["ranking"]),
            after_logits=tuple(body["after_logits"]),
            sets=tuple(
                IslandSet(
                    **{**item, "float_ops": tuple(item["float_ops"]), "indices": tuple(item["indices"])}
                )
                for item in body["sets"]
            ),
            held_out=body["held_out"],
            notes=tuple(body["notes"]),
        )
