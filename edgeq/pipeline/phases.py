"""The phases of a run: which are possible with a blueprint, and what each of them can improve."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeq.blueprint import Blueprint, Scheme, Technique
from edgeq.values import DeviceKind
from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common.keras_graph import require_keras3


class Phase(StrEnum):
    """A phase, in the order of the run: each costs more time than the one before."""

    BASELINE = "baseline"
    PLAIN = "plain"
    CALIBRATION = "calibration"
    MIXED_PRECISION = "mixed-precision"
    PRUNING = "pruning"
    QAT = "qat"


TITLES = {
    Phase.BASELINE: "float model",
    Phase.PLAIN: "plain quantization: min/max ranges",
    Phase.CALIBRATION: "choice of calibrators, equalization and correction",
    Phase.MIXED_PRECISION: "mixed precision: float where it helps most",
    Phase.PRUNING: "pruning of channels",
    Phase.QAT: "quantization-aware training",
}
_TECHNIQUES = {
    Phase.CALIBRATION: Technique.CALIBRATION,
    Phase.MIXED_PRECISION: Technique.MIXED_PRECISION,
    Phase.PRUNING: Technique.PRUNING,
    Phase.QAT: Technique.QAT,
}
TRAINED_SCHEMES = (Scheme.INT8, Scheme.INT4)
"""The schemes that quantization-aware training prepares a model for."""

QUALITY = frozenset(
    {
        "accuracy_drop_max",
        "accuracy_drop_relative_max",
        "accuracy_min",
        "class_drop_max",
        "agreement_min",
        "output_sqnr_db_min",
        "ece_max",
        "robustness_drop_max",
    }
)
_COST = frozenset({"size_bytes_max", "latency_p95_ns_max", "memory_peak_bytes_max", "energy_nj_max"})
REPAIRS: dict[Phase, frozenset[str]] = {
    Phase.PLAIN: QUALITY | _COST,
    Phase.CALIBRATION: QUALITY,
    Phase.MIXED_PRECISION: QUALITY,
    Phase.PRUNING: _COST,
    Phase.QAT: QUALITY,
}
"""Phase -> names of the limits that its candidates can meet where those before did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPhase:
    """A phase of a run.

    Attributes:
        skipped: why it is left out; empty where it is possible.
    """

    phase: Phase
    skipped: str = ""


def planned(blueprint: Blueprint, kind: DeviceKind | None) -> tuple[PlannedPhase, ...]:
    """Return all phases in their order, each with the reason where it is not possible.

    Args:
        kind: of the device that the model is for.
    """
    return tuple(PlannedPhase(phase=phase, skipped=_obstacle(phase, blueprint, kind)) for phase in Phase)


def _obstacle(phase: Phase, blueprint: Blueprint, kind: DeviceKind | None) -> str:
    technique = _TECHNIQUES.get(phase)
    if technique is not None and technique not in blueprint.techniques:
        return f"techniques.allow does not list {technique}"
    schemes = blueprint.schemes_for(kind)
    if phase is Phase.CALIBRATION and not any(scheme.needs_ranges for scheme in schemes):
        return "no scheme of the blueprint needs ranges"
    if phase is Phase.MIXED_PRECISION and not {Scheme.INT8, Scheme.INT8_MIXED} & set(schemes):
        return "the blueprint lists neither int8 nor int8-mixed"
    if phase is Phase.QAT and not set(TRAINED_SCHEMES) & set(schemes):
        return "the blueprint lists neither int8 nor int4"
    if phase in (Phase.PRUNING, Phase.QAT) and blueprint.training is None:
        return "data.training is missing"
    return "" if phase is not Phase.PRUNING or is_keras3(blueprint) else "only a Keras 3 model can be pruned"


def is_keras3(blueprint: Blueprint) -> bool:
    """Return whether the source is a Keras 3 model, whose layers can be trained and pruned."""
    try:
        require_keras3(blueprint.source)
    except ConverterError:
        return False
    return True
