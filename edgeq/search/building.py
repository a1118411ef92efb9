"""Building candidates: each recipe converted and evaluated once, and never again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint, Scheme
from edgeq.conversion import Recipe, convert
from edgeq.errors import EdgeqError, ModelError
from edgeq.evaluation import evaluate
from edgeq.files import sha256_of
from edgeq.search.measuring import Progress
from edgeq.search.records import Records, key_of
from edgeq.values import Metrics, Variant

KIND = "search-candidate"
# What a recipe meets in a model; everything else would meet all candidates and ends the search.
_REFUSALS = {"EQ307", "EQ308", "EQ332"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A candidate that was made, or the reason why it could not be.

    Attributes:
        family: which way it was found: a scheme's name, or how its islands were.
        variant: None where the conversion failed.
        problem: why, empty where it did not.
        reused: whether a record had it, so that nothing was done.
        lineage: what the file was made of, as `edgeq.lineage/1`; empty where there is none.
    """

    name: str
    family: str
    recipe: Recipe
    variant: Variant | None
    problem: str
    reused: bool
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where candidates are made of one float model and one blueprint's data.

    Attributes:
        reference: the float `.tflite` that candidates are made of and compared with.
        digests: of the reference, the calibration and the evaluation data.
        folder: where the files stay, for the next search.
    """

    blueprint: Blueprint
    reference: Path
    digests: Mapping[str, str]
    folder: Path
    records: Records
    on_progress: Progress | None = None

    def build(self, name: str, family: str, recipe: Recipe) -> Built:
        """Return the candidate of a recipe, from the records where it was made before.

        Where the quantizer refuses the recipe, that becomes the candidate's problem; the search goes on.

        Raises:
            DataError, ModelError: the data or the model cannot be used, whatever the recipe.
        """
        key = key_of(recipe=recipe.to_dict(), **self.digests)
        path = self.folder / f"{name}-{key[:12]}.tflite"
        known = self.records.find(key)
        if known is not None and (known["problem"] or _is_whole(path, known)):
            return _built(name, family, recipe, path, known, reused=True)
        body = self._make(path, recipe)
        self.records.put(
            key, f"{self.blueprint.name} {name}", {**body, "name": name, "recipe": recipe.to_dict()}
        )
        return _built(name, family, recipe, path, body, reused=False)

    def _make(self, path: Path, recipe: Recipe) -> dict[str, Any]:
        try:
            done = convert(
                self.reference,
                path,
                recipe=recipe,
                calibration=self.blueprint.calibration if recipe.scheme.needs_ranges else None,
                on_progress=self.on_progress,
            )
            # The float model is compared with itself: its source need not be a .tflite.
            reference = path if recipe.scheme is Scheme.FLOAT32 else self.reference
            metrics = evaluate(
                path, self.blueprint.evaluation, reference=reference, on_progress=self.on_progress
            )
        except ModelError as error:
            if error.reported_code not in _REFUSALS:
                raise
            return {"problem": _said(error), "sha256": "", "size_bytes": 0, "metrics": {}, "lineage": {}}
        return {
            "problem": "",
            "sha256": done.sha256,
            "size_bytes": done.size_bytes,
            "metrics": {**asdict(metrics), "exact": metrics.output_sqnr_db == float("inf")},
            "lineage": dict(done.lineage),
        }


def _said(error: EdgeqError) -> str:
    return f"{error.reported_code}: {error.message}"


def _is_whole(path: Path, known: Mapping[str, Any]) -> bool:
    return path.is_file() and sha256_of(path) == known["sha256"]


def _built(
    name: str, family: str, recipe: Recipe, path: Path, body: Mapping[str, Any], *, reused: bool
) -> Built:
    variant = None
    if not body["problem"]:
        variant = Variant(
            name=name,
            path=path,
            sha256=body["sha256"],
            size_bytes=body["size_bytes"],
            metrics=_metrics(body["metrics"]),
        )
    return Built(
        name=name,
        family=family,
        recipe=recipe,
        variant=variant,
        problem=body["problem"],
        reused=reused,
        lineage=body["lineage"],
    )


def _metrics(body: Mapping[str, Any]) -> Metrics:
    # JSON has no infinity: outputs equal to the reference's are said by a word of their own.
    sqnr = float("inf") if body.get("exact") else body["output_sqnr_db"]
    return Metrics(
        samples=body["samples"],
        accuracy=body["accuracy"],
        agreement=body["agreement"],
        output_sqnr_db=sqnr,
    )
