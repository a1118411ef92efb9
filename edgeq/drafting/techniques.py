"""Say which techniques can be used on a source with the data that there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeq.blueprint import Scheme, Technique
from edgeq.conversion.training import check_trainable, check_tunable
from edgeq.converters_client import ConverterError


def usable_techniques(
    source: Path, *, schemes: Sequence[Scheme], training: Path | None
) -> tuple[dict[Technique, str], tuple[Technique, ...]]:
    """Return ({technique that cannot be used: why not}, those that can), without starting TensorFlow.

    Args:
        schemes: of the variants. Calibration and mixed precision are for integer schemes.
        training: data to train on.
    """
    integer = any(scheme.needs_ranges for scheme in schemes)
    refused: dict[Technique, str] = {}
    for technique in Technique:
        why = (
            _untrainable(technique, source, training)
            if technique in (Technique.PRUNING, Technique.QAT)
            else None
            if integer
            else "no scheme has integer activations"
        )
        if why is not None:
            refused[technique] = why
    return refused, tuple(each for each in Technique if each not in refused)


def _untrainable(technique: Technique, source: Path, training: Path | None) -> str | None:
    """Return why a model cannot be trained; None where it can."""
    if training is None:
        return "data.training is missing"
    try:
        if technique is Technique.PRUNING:
            check_trainable(source, training, option=technique)
        else:
            check_tunable(source, training, distill=True)
    except ConverterError as error:
        return error.problem or f"expected {error.expected}, got {error.got}"
    return None


def refusals(refused: dict[Technique, str]) -> str:
    """Return the techniques that cannot be used with their reasons, in one line; empty without any."""
    by_reason: dict[str, list[str]] = {}
    for technique, why in refused.items():
        by_reason.setdefault(why, []).append(technique)
    return "; ".join(f"{' and '.join(names)}: {why}" for why, names in by_reason.items())
