"""The details of an evaluation: every figure of a variant beside its float model, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from edgeq.blueprint import Task
from edgeq.evaluation.anomaly import Anomaly
from edgeq.evaluation.classes import Classes
from edgeq.evaluation.edge_inputs import EdgeInput
from edgeq.evaluation.multi_label import MultiLabel
from edgeq.evaluation.probabilities import Probabilities
from edgeq.evaluation.regression import Regression
from edgeq.evaluation.robustness import Robustness
from edgeq.evaluation.segmentation import Segmentation
from edgeq.evaluation.slices import SliceFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Where a variant is worse than its float model on the same samples; None for what does not apply.

    Attributes:
        task: None where neither the user nor the data says it.
        task_reason: why this task; or why none.
        samples: how many both models were run on.
        independent: whether the samples are independent of each other; there are no intervals otherwise.
        seed: of the bootstrap, and of noise and places in corruptions.
        classes, probabilities: of a classifier on labelled data.
        slices: in the order in which they were stated.
        edge_inputs: one entry a kind.
        notes: how the data was adapted, and why a part is missing.
        warnings: what may be wrong with the data or the variant.
    """

    task: Task | None
    task_reason: str
    samples: int
    independent: bool
    seed: int
    classes: Classes | None = None
    probabilities: Probabilities | None = None
    multi_label: MultiLabel | None = None
    regression: Regression | None = None
    anomaly: Anomaly | None = None
    segmentation: Segmentation | None = None
    slices: tuple[SliceFigures, ...] = ()
    robustness: Robustness | None = None
    edge_inputs: tuple[EdgeInput, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the details as JSON types; `from_json` returns the same details."""
        document: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Details:
        """Return the details that `to_json` wrote.

        Raises:
            ValueError: the document is that of another version.
        """
        return _adapter().validate_python(document)

    def slice(self, name: str) -> SliceFigures | None:
        """Return the figures of the slice of this name; None without such."""
        return next((each for each in self.slices if each.name == name), None)


@cache
def _adapter() -> TypeAdapter[Details]:
    return TypeAdapter(Details)
