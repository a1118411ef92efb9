"""The phase of quantization-aware training: tuned models, each remembered by the digest of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.blueprint import Scheme
from edgeq.conversion import Recipe
from edgeq.conversion.lineage import Lineage
from edgeq.conversion.qat import tune
from edgeq.files import sha256_of
from edgeq.pipeline.phases import is_keras3
from edgeq.search.building import BuiltCandidate, CandidateBuilder
from edgeq.search.records import Records, StepKind, digest_of, key_of
from edgeq.store import UNRECORDED, Store
from edgeq.store.records import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedModel:
    """A tuned model that a run remembers.

    Attributes:
        sha256: of its file.
        recipe: that converts it, with the learned ranges.
        kept: `qat`, or `ptq` where training did not help.
        lineage: how the file was made.
    """

    sha256: str
    recipe: Recipe
    kept: str
    lineage: Lineage

    def to_json(self) -> dict[str, Any]:
        """Return the model as the body of a run."""
        return {
            "sha256": self.sha256,
            "recipe": self.recipe.to_dict(),
            "kept": self.kept,
            "lineage": self.lineage.to_json(),
        }

    @classmethod
    def from_json(cls, body: Body) -> TunedModel:
        """Return the model that `to_json` wrote."""
        return cls(
            sha256=body["sha256"],
            recipe=Recipe.from_dict(body["recipe"]),
            kept=body["kept"],
            lineage=Lineage.from_json(body["lineage"]),
        )


KIND = StepKind(name="run-tuning", read=TunedModel.from_json, write=TunedModel.to_json)


_FAMILY = "qat"


def name_of(scheme: Scheme) -> str:
    """Return the name of the candidate that was trained for a scheme."""
    return f"qat-{scheme.value}"


def build_tuned(builder: CandidateBuilder, scheme: Scheme, store: Store) -> BuiltCandidate:
    """Train the model for a scheme and return its candidate, which has a problem where training did not help.

    A Keras 3 model is trained on its labels, every other source as a float .tflite towards its own outputs.

    Args:
        builder: of candidates from the float .tflite.

    Raises:
        DataError, ModelError: the data or the model cannot be used.
        ValueError: the blueprint names no training data.
    """
    blueprint = builder.blueprint
    if blueprint.training is None:
        raise ValueError("quantization-aware training needs data.training")
    keras = is_keras3(blueprint)
    source = blueprint.source if keras else builder.source
    digests = {"source": digest_of(source), "training": digest_of(blueprint.training)}
    if blueprint.validation is not None:
        digests["validation"] = digest_of(blueprint.validation)
    distill = not (keras and _is_labelled(blueprint.training))
    options = {"scheme": scheme.value, "epochs": blueprint.epochs, "distill": distill}
    key = key_of(seed=blueprint.budget.seed, **options, **digests)
    path = builder.folder / f"tuned-{scheme.value}-{key[:12]}{'.keras' if keras else '.tflite'}"
    records = Records(store, KIND)
    known = records.find(key)
    reused = known is not None and path.is_file() and sha256_of(path) == known.sha256
    if known is None or not reused:
        tuned = tune(
            source,
            path,
            training=blueprint.training,
            validation=blueprint.validation,
            scheme=scheme.value,
            epochs=blueprint.epochs,
            distill=distill,
            seed=blueprint.budget.seed,
            on_progress=builder.on_progress,
            store=UNRECORDED,
        )
        known = TunedModel(sha256=tuned.sha256, recipe=tuned.recipe, kept=tuned.kept, lineage=tuned.lineage)
        records.put(key, f"{blueprint.name} {name_of(scheme)}", known)
    if known.kept != "qat":
        return BuiltCandidate(
            name=name_of(scheme),
            family=_FAMILY,
            recipe=known.recipe,
            variant=None,
            problem="training did not improve the plain conversion",
            reused=reused,
        )
    recipe = known.recipe if blueprint.io is None else replace(known.recipe, io=blueprint.io)
    from_tuned = replace(builder, source=path, digests={**builder.digests, "source": known.sha256})
    return from_tuned.build(name_of(scheme), _FAMILY, recipe)


def _is_labelled(training: Path) -> bool:
    if training.suffix != ".npz":
        return False
    with np.load(training) as kept:
        return "y" in kept.files
