"""Build candidates: convert and evaluate each recipe once; the store remembers the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint, Scheme
from edgeq.conversion import Recipe, convert
from edgeq.conversion.lineage import Lineage
from edgeq.converters_client import Progress
from edgeq.errors import EdgeqError, ModelError
from edgeq.evaluation import evaluate
from edgeq.files import sha256_of
from edgeq.search.records import Records, key_of
from edgeq.store import UNRECORDED
from edgeq.values import Metrics, Variant

KIND = "search-candidate"
# Errors of one recipe on this model. Any other error would hit all candidates, and ends the search.
_REFUSALS = {"EQ307", "EQ308", "EQ332"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltCandidate:
    """A candidate that was built, or the reason why it could not be.

    Attributes:
        family: the scheme's name, or how its float regions were chosen.
        variant: None where the conversion failed.
        problem: the reason; empty on success.
        reused: whether it came from a record.
        lineage: how the file was made; None where the conversion failed.
    """

    name: str
    family: str
    recipe: Recipe
    variant: Variant | None
    problem: str
    reused: bool
    lineage: Lineage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateBuilder:
    """Builds candidates of one float model with the data of one blueprint.

    Attributes:
        reference: the float `.tflite` that candidates are converted from and compared with.
        digests: of the reference, the calibration and the evaluation data.
        folder: where the files are kept for the next search.
    """

    blueprint: Blueprint
    reference: Path
    digests: Mapping[str, str]
    folder: Path
    records: Records
    on_progress: Progress | None = None

    def build(self, name: str, family: str, recipe: Recipe) -> BuiltCandidate:
        """Return the candidate of a recipe, from the records if it was built before.

        If the quantizer refuses the recipe, that becomes the candidate's `problem` and the search continues.

        Raises:
            DataError, ModelError: the data or the model cannot be used with any recipe.
        """
        key = key_of(recipe=recipe.to_dict(), **self.digests)
        path = self.folder / f"{name}-{key[:12]}.tflite"
        known = self.records.find(key)
        if known is not None and (known["problem"] or _is_intact(path, known)):
            return _built(name, family, recipe, path, known, reused=True)
        body = self._convert(path, recipe)
        self.records.put(
            key, f"{self.blueprint.name} {name}", {**body, "name": name, "recipe": recipe.to_dict()}
        )
        return _built(name, family, recipe, path, body, reused=False)

    def _convert(self, path: Path, recipe: Recipe) -> dict[str, Any]:
        try:
            conversion = convert(
                self.reference,
                path,
                recipe=recipe,
                calibration=self.blueprint.calibration if recipe.scheme.needs_ranges else None,
                on_progress=self.on_progress,
                store=UNRECORDED,  # the candidate's record has the conversion and the metrics
            )
            # The float model is compared with itself, because its source may not be a .tflite.
            reference = path if recipe.scheme is Scheme.FLOAT32 else self.reference
            metrics = evaluate(
                path,
                self.blueprint.evaluation,
                reference=reference,
                on_progress=self.on_progress,
                store=UNRECORDED,
            )
        except ModelError as error:
            if error.reported_code not in _REFUSALS:
                raise
            return {"problem": _describe(error), "sha256": "", "size_bytes": 0, "metrics": {}, "lineage": {}}
        return {
            "problem": "",
            "sha256": conversion.sha256,
            "size_bytes": conversion.size_bytes,
            "metrics": {**asdict(metrics), "exact": metrics.output_sqnr_db == float("inf")},
            "lineage": conversion.lineage.to_json(),
        }


def _describe(error: EdgeqError) -> str:
    return f"{error.reported_code}: {error.message}"


def _is_intact(path: Path, known: Mapping[str, Any]) -> bool:
    return path.is_file() and sha256_of(path) == known["sha256"]


def _built(
    name: str, family: str, recipe: Recipe, path: Path, body: Mapping[str, Any], *, reused: bool
) -> BuiltCandidate:
    variant = None
    if not body["problem"]:
        variant = Variant(
            name=name,
            path=path,
            sha256=body["sha256"],
            size_bytes=body["size_bytes"],
            metrics=_metrics(body["metrics"]),
        )
    return BuiltCandidate(
        name=name,
        family=family,
        recipe=recipe,
        variant=variant,
        problem=body["problem"],
        reused=reused,
        lineage=Lineage.from_json(body["lineage"]) if body["lineage"] else None,
    )


def _metrics(body: Mapping[str, Any]) -> Metrics:
    # JSON has no infinity: the key `exact` marks outputs equal to the reference's.
    sqnr = float("inf") if body.get("exact") else body["output_sqnr_db"]
    return Metrics(
        samples=body["samples"],
        accuracy=body["accuracy"],
        agreement=body["agreement"],
        output_sqnr_db=sqnr,
    )
