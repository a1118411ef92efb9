"""Examine candidates in depth: classes, probabilities, slices and corruptions, remembered by their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.blueprint import Blueprint, Limits
from edgeq.converters_client import Progress
from edgeq.evaluation import Details, examine
from edgeq.search.records import Records, StepKind, digest_of, key_of
from edgeq.selection import Selection
from edgeq.store import Store
from edgeq.values import DeviceKind, Variant

KIND = StepKind(
    name="run-details",
    read=lambda body: Details.from_json(body["details"]),
    write=lambda details: {"details": details.to_json()},
)
_OF_DETAILS = ("class_drop_max", "ece_max", "robustness_drop_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examiner:
    """Examines candidates of one blueprint beside the float model.

    Attributes:
        reference: the float `.tflite`.
        reference_sha256: its digest.
    """

    blueprint: Blueprint
    reference: Path
    reference_sha256: str
    records: Records[Details]
    on_progress: Progress | None = None

    @classmethod
    def of(
        cls, blueprint: Blueprint, baseline: Variant, store: Store, on_progress: Progress | None
    ) -> Examiner:
        """Return the examiner of a blueprint's candidates."""
        return cls(
            blueprint=blueprint,
            reference=baseline.path,
            reference_sha256=baseline.sha256,
            records=Records(store, KIND),
            on_progress=on_progress,
        )

    def details(self, variant: Variant, *, robustness: bool) -> tuple[Details, bool]:
        """Return the details of a candidate, and whether they came from a record.

        Args:
            robustness: with corrupted inputs, which takes longer.

        Raises:
            DataError: a slice does not fit the evaluation data, or its labels do not fit the model.
            ModelError: a model does not run.
        """
        blueprint = self.blueprint
        key = key_of(
            model=variant.sha256,
            reference=self.reference_sha256,
            evaluation=digest_of(blueprint.evaluation),
            task=blueprint.task,
            labels=list(blueprint.labels),
            slices=[[part.name, str(part.where)] for part in blueprint.slices],
            robustness=robustness,
            seed=blueprint.budget.seed,
        )
        known = self.records.find(key)
        if known is not None:
            return known, True
        details = examine(
            variant.path,
            self.reference,
            blueprint.evaluation,
            task=blueprint.task,
            labels=blueprint.labels,
            slices=blueprint.slices,
            robustness=robustness,
            seed=blueprint.budget.seed,
            on_progress=self.on_progress,
        )
        self.records.put(key, f"{blueprint.name} {variant.name}", details)
        return details, False


def needs_details(blueprint: Blueprint, kinds: Sequence[DeviceKind | None]) -> bool:
    """Return whether a limit of a blueprint can be judged by details alone."""
    general = any(name in _OF_DETAILS for limits in _limits(blueprint, kinds) for name in limits.stated())
    return general or any(part.limits.stated() for part in blueprint.slices)


def needs_robustness(blueprint: Blueprint, kinds: Sequence[DeviceKind | None]) -> bool:
    """Return whether a limit of a blueprint is about corrupted inputs."""
    return any("robustness_drop_max" in limits.stated() for limits in _limits(blueprint, kinds))


def worth_examining(selection: Selection, known: Mapping[str, Details]) -> list[Variant]:
    """Return the candidates that miss no limit so far and were not examined, best first."""
    return [
        each.variant for each in selection.candidates if each.admissible and each.variant.name not in known
    ]


def _limits(blueprint: Blueprint, kinds: Sequence[DeviceKind | None]) -> list[Limits]:
    return [blueprint.limits_for(kind) for kind in kinds]
