"""Limits that the data of a blueprint cannot measure: a run refuses them."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.blueprint import Blueprint, Limits
from edgeq.errors import BlueprintError
from edgeq.units import limit_key
from edgeq.values import DeviceKind, Metrics

_NEED_LABELS = (
    "accuracy_drop_max",
    "accuracy_drop_relative_max",
    "accuracy_min",
    "class_drop_max",
    "ece_max",
    "robustness_drop_max",
)
_NEED_ANSWERS = ("agreement_min",)


def require_measurable(blueprint: Blueprint, baseline: Metrics, kinds: Sequence[DeviceKind | None]) -> None:
    """Check that the evaluation of the float model has what the limits are about.

    Args:
        baseline: the float model's metrics.
        kinds: of the devices whose limits apply; None for the general ones.

    Raises:
        BlueprintError: a limit on accuracy without labelled data of a classification, or on agreement where
            the outputs hold no answers.
    """
    stated = [("require", blueprint.limits_for(kind)) for kind in kinds]
    stated += [(f"slices {part.name}", part.limits) for part in blueprint.slices]
    for where, limits in stated:
        if baseline.accuracy is None:
            _refuse(
                where,
                limits,
                _NEED_LABELS,
                blueprint,
                expected="a classification and labels `y` in data.evaluation",
                hint="add the labels, or limit agreement_min or output_sqnr_db_min, which need none",
            )
        if baseline.agreement is None:
            _refuse(
                where,
                limits,
                _NEED_ANSWERS,
                blueprint,
                expected="outputs that hold classes, boxes or a mask",
                hint="limit output_sqnr_db_min",
            )


def _refuse(
    where: str, limits: Limits, names: Sequence[str], blueprint: Blueprint, *, expected: str, hint: str
) -> None:
    for name in names:
        if name in limits.stated():
            raise BlueprintError(
                f"{blueprint.name}: {where}.{limit_key(name)}",
                "this limit cannot be measured",
                expected=expected,
                got=f"a model or data without, {blueprint.evaluation}",
                hint=hint,
            )
