"""What a pruned conversion is given beside the conversion's own recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_converters.recipe import Recipe
from edgeq_converters.training.pruning.request import PruningRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningJob:
    """A pruning and its re-tuning.

    Attributes:
        training: samples `x` and labels `y`; None is refused with a clear error.
        validation: to measure accuracy on; None holds out a fifth of the training data.
        epochs: None takes as many as give about 1500 steps, 2 to 60.
        distill: re-tune towards the unpruned model's outputs instead of labels.
    """

    request: PruningRequest
    training: Path | None
    validation: Path | None = None
    epochs: int | None = None
    distill: bool = False
    seed: int = 0

    @classmethod
    def of(cls, recipe: Recipe, job: Mapping[str, Any]) -> PruningJob:
        """Return the pruning of a recipe with the files that the worker was given.

        Raises:
            ValueError: the recipe prunes nothing, or asks for what is not known.
        """
        return cls(
            request=PruningRequest.parse(recipe.prune or ""),
            training=Path(job["training"]) if job.get("training") else None,
            validation=Path(job["validation"]) if job.get("validation") else None,
            epochs=recipe.epochs,
            distill=recipe.distill,
            seed=recipe.seed,
        )
