"""Build candidates: convert and evaluate each recipe once; the store remembers the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint
from edgeq.conversion import Recipe, convert
from edgeq.conversion.lineage import Lineage
from edgeq.converters_client import Progress
from edgeq.errors import EdgeqError, ModelError
from edgeq.evaluation import evaluate
from edgeq.files import sha256_of
from edgeq.search.records import Records, StepKind, key_of
from edgeq.store import UNRECORDED
from edgeq.store.records import Body
from edgeq.values import Metrics, Variant
from edgeq_converters.values import OutputSqnr

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
class CandidateRecord:
    """What the store remembers of a candidate.

    Attributes:
        problem: why it could not be built; then there is neither a file nor metrics.
        sha256, size_bytes: of its file.
    """

    name: str
    recipe: Recipe
    problem: str = ""
    sha256: str = ""
    size_bytes: int = 0
    metrics: Metrics | None = None
    lineage: Lineage | None = None

    def is_intact(self, path: Path) -> bool:
        """Return whether a file is the one that was recorded."""
        return path.is_file() and sha256_of(path) == self.sha256

    def to_json(self) -> dict[str, Any]:
        """Return the record as the body of a run."""
        metrics = self.metrics
        return {
            "problem": self.problem,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            # JSON has no infinity: the key `exact` marks outputs equal to the reference's.
            "metrics": {**asdict(metrics), "exact": metrics.output_sqnr_db == math.inf} if metrics else {},
            "lineage": self.lineage.to_json() if self.lineage else {},
            "name": self.name,
            "recipe": self.recipe.to_dict(),
        }

    @classmethod
    def from_json(cls, body: Body) -> CandidateRecord:
        """Return the record that `to_json` wrote."""
        return cls(
            name=body["name"],
            recipe=Recipe.from_dict(body["recipe"]),
            problem=body["problem"],
            sha256=body["sha256"],
            size_bytes=body["size_bytes"],
            metrics=None if body["problem"] else _metrics(body["metrics"]),
            lineage=Lineage.from_json(body["lineage"]) if body["lineage"] else None,
        )


def _metrics(body: Body) -> Metrics:
    sqnr = math.inf if body.get("exact") else body["output_sqnr_db"]
    return Metrics(
        samples=body["samples"],
        accuracy=body["accuracy"],
        agreement=body["agreement"],
        agreement_of=body.get("agreement_of"),
        output_sqnr_db=sqnr,
        outputs=tuple(
            OutputSqnr(**{**each, "dead": tuple(each["dead"])}) for each in body.get("outputs", ())
        ),
        useless=body.get("useless"),
        accuracy_ci95=_pair(body.get("accuracy_ci95")),
        agreement_ci95=_pair(body.get("agreement_ci95")),
        accuracy_drop=body.get("accuracy_drop"),
        accuracy_drop_ci95=_pair(body.get("accuracy_drop_ci95")),
        smallest_drop=body.get("smallest_drop"),
    )


def _pair(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (float(ends[0]), float(ends[1]))


KIND = StepKind(name="search-candidate", read=CandidateRecord.from_json, write=CandidateRecord.to_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateBuilder:
    """Builds candidates of one model with the data of one blueprint.

    Attributes:
        source: what the candidates are converted from.
        reference: the float `.tflite` that they are compared with; None compares each with itself.
        digests: of the source, and of the data by name.
        folder: where the files are kept for the next time.
    """

    blueprint: Blueprint
    source: Path
    reference: Path | None
    digests: Mapping[str, str]
    folder: Path
    records: Records[CandidateRecord]
    on_progress: Progress | None = None

    def build(self, name: str, family: str, recipe: Recipe) -> BuiltCandidate:
        """Return the candidate of a recipe, from the records if it was built before.

        If the quantizer refuses the recipe, that becomes the candidate's `problem`.

        Raises:
            DataError, ModelError: the data or the model cannot be used with any recipe.
        """
        known = self.reused(name, family, recipe)
        if known is not None:
            return known
        job = self.job(name, recipe)
        return self.recorded(family, job, build(job, on_progress=self.on_progress))

    def reused(self, name: str, family: str, recipe: Recipe) -> BuiltCandidate | None:
        """Return the candidate of a recipe from the records; None if it was not built before."""
        job = self.job(name, recipe)
        known = self.records.find(job.key)
        if known is None or not (known.problem or known.is_intact(job.path)):
            return None
        return _built(family, job.path, known, name=name, recipe=recipe, reused=True)

    def job(self, name: str, recipe: Recipe) -> CandidateJob:
        """Return the work of building a candidate."""
        key = key_of(recipe=recipe.to_dict(), task=self.blueprint.task, **self.digests)
        return CandidateJob(
            key=key,
            name=name,
            recipe=recipe,
            path=self.folder / f"{name}-{key[:12]}.tflite",
            blueprint=self.blueprint,
            source=self.source,
            reference=self.reference,
        )

    def recorded(self, family: str, job: CandidateJob, record: CandidateRecord) -> BuiltCandidate:
        """Record what was built, and return the candidate."""
        self.records.put(job.key, f"{self.blueprint.name} {job.name}", record)
        return _built(family, job.path, record, name=job.name, recipe=job.recipe, reused=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateJob:
    """The work of building one candidate, for this process or another one.

    Attributes:
        key: the digest of everything that decides the result.
        path: of the file to write.
        source: what it is converted from.
        reference: the float `.tflite` that it is compared with; None compares it with itself.
    """

    key: str
    name: str
    recipe: Recipe
    path: Path
    blueprint: Blueprint
    source: Path
    reference: Path | None


def build(job: CandidateJob, *, on_progress: Progress | None = None) -> CandidateRecord:
    """Convert and evaluate one candidate. Nothing is recorded.

    Raises:
        DataError, ModelError: the data or the model cannot be used with any recipe.
    """
    blueprint, recipe = job.blueprint, job.recipe
    trained = recipe.prune is not None
    try:
        conversion = convert(
            job.source,
            job.path,
            recipe=recipe,
            calibration=blueprint.calibration if recipe.scheme.needs_ranges else None,
            training=blueprint.training if trained else None,
            validation=blueprint.validation if trained else None,
            measure_float=False,  # whole candidates are timed
            on_progress=on_progress,
            store=UNRECORDED,  # the candidate's record has the conversion and the metrics
        )
        metrics = evaluate(
            job.path,
            blueprint.evaluation,
            reference=job.reference or job.path,
            task=blueprint.task,
            columns=[part.where.column for part in blueprint.slices],
            on_progress=on_progress,
            store=UNRECORDED,
        )
    except ModelError as error:
        if error.reported_code not in _REFUSALS:
            raise
        return CandidateRecord(name=job.name, recipe=recipe, problem=_describe(error))
    return CandidateRecord(
        name=job.name,
        recipe=recipe,
        sha256=conversion.sha256,
        size_bytes=conversion.size_bytes,
        metrics=metrics,
        lineage=conversion.lineage,
    )


def _describe(error: EdgeqError) -> str:
    return f"{error.reported_code}: {error.message}"


def _built(
    family: str, path: Path, record: CandidateRecord, *, name: str, recipe: Recipe, reused: bool
) -> BuiltCandidate:
    # A record's own name and recipe may be those of another candidate with the same inputs.
    variant = None
    if record.metrics is not None:
        variant = Variant(
            name=name,
            path=path,
            sha256=record.sha256,
            size_bytes=record.size_bytes,
            metrics=record.metrics,
        )
    return BuiltCandidate(
        name=name,
        family=family,
        recipe=recipe,
        variant=variant,
        problem=record.problem,
        reused=reused,
        lineage=record.lineage,
    )
