"""What a training with fake quantization is given, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq_converters.values import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningJob:
    """A training with fake quantization.

    Attributes:
        scheme: `int8`, or `int4` for weights of four bits where the runtime has them.
        epochs: None takes as many as give about 1000 steps, 2 to 60.
        distill: train towards the float model's outputs instead of labels.
    """

    scheme: Scheme
    training: Path | None
    validation: Path | None = None
    epochs: int | None = None
    distill: bool = False
    seed: int = 0

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> TuningJob:
        """Return the job as the worker reads it."""
        return cls(
            scheme=Scheme(job["scheme"]),
            training=Path(job["training"]) if job["training"] else None,
            validation=Path(job["validation"]) if job["validation"] else None,
            epochs=job["epochs"],
            distill=job["distill"],
            seed=job["seed"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningReport:
    """What came of it.

    Attributes:
        best_epoch: the epoch whose weights were the best; 0 is before training.
        kept: `qat`, or `ptq` where training brought nothing: the model and recipe are then the plain ones.
        began: from what training began, in words: equalized or not, and the calibrator of the first ranges.
        tensors: how many activations have learned ranges.
        accuracy: top-1 on held-out samples of `float` (before), `tuned` (as a float model), and of the
            integer files `ptq` (of the model as it was) and `qat`; each None without labels.
        agreement: share of held-out samples on which `ptq` and `qat` choose the class that the float model
            chose before; None for a model without classes.
        samples: how many were held out.
        recipe: the conversion's recipe with the learned ranges, as `edgeq.recipe/1`.
    """

    epochs: int
    best_epoch: int
    kept: str
    began: str
    tensors: int
    accuracy: Mapping[str, float | None]
    agreement: Mapping[str, float | None]
    samples: int
    recipe: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return asdict(self)
