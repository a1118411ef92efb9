"""Sensitivity as edgeq's users call it: which operations of a float model lose what when they become int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeq.errors import DataError, MissingExtra, ModelError, UsageError
from edgeq.evaluation.running import Progress
from edgeq_converters.errors import translated
from edgeq_converters.sensitivity.values import OpSensitivity, Sensitivity, Spread, Walk
from edgeq_converters.sources import detect
from edgeq_converters.worker.client import run_worker

__all__ = ["OpSensitivity", "Sensitivity", "Spread", "Walk", "sensitivity"]

Array = npt.NDArray[Any]
_ERRORS: Mapping[str, Callable[..., Exception]] = {"EQ1": MissingExtra, "EQ2": DataError, "EQ3": ModelError}


def sensitivity(
    model: Path,
    *,
    calibration: Path,
    evaluation: Path,
    calibrator: str = "minmax",
    samples: int = 256,
    walk: int = 3,
    on_progress: Progress | None = None,
    deadline_s: float = 3600.0,
) -> Sensitivity:
    """Return what quantizing each operation of a float `.tflite` costs, in dB of SQNR at its logits.

    Args:
        calibration: representative samples: .npz, .npy or a folder of images.
        evaluation: other samples, on which the quantized models are compared with the float one.
        calibrator: how a tensor's histogram becomes its range.
        samples: at most as many evaluation samples are used, at even distances.
        walk: how many of the worst operations are kept float together, one more a step.
        on_progress: called with (step, done, total).

    Raises:
        UsageError: fewer than one sample, or no such calibrator.
        DataError: EQ2xx.
        ModelError: EQ304 a quantized model was given, EQ309 the float model gives NaN; any other EQ3xx.
    """
    _check_calibrator(calibrator)
    if samples < 1 or walk < 0:
        raise UsageError(
            "samples", expected="at least one sample and no negative walk", got=f"{samples}, {walk}"
        )
    with (
        translated(_ERRORS),
        tempfile.TemporaryDirectory(prefix="edgeq-sensitivity-", ignore_cleanup_errors=True) as folder,
    ):
        detect.require_tflite(Path(model))
        result = run_worker(
            {
                "verb": "sensitivity",
                "model": str(model),
                "calibration": str(calibration),
                "evaluation": str(evaluation),
                "calibrator": calibrator,
                "samples": samples,
                "walk": walk,
            },
            workdir=Path(folder),
            subject=str(model),
            deadline_s=deadline_s,
            on_progress=on_progress,
        )
    return Sensitivity.from_dict(result)


def _check_calibrator(name: str) -> None:
    from edgeq_converters.calibration.calibrators import AUTO, CALIBRATORS, calibrator_of

    try:
        if name == AUTO:
            raise ValueError("auto chooses among whole models; name one of them here")
        calibrator_of(name)
    except ValueError as error:
        known = ", ".join(CALIBRATORS)
        raise UsageError("--calibrator", str(error), hint=f"one of {known}") from error
