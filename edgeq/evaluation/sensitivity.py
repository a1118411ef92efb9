"""Sensitivity analysis: what quantizing each operation of a float model to int8 costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.converters_client import Progress, worker_session
from edgeq.errors import UsageError
from edgeq.evaluation.evaluation import ModelFile
from edgeq.store import Recorder, recording_store
from edgeq_converters.sensitivity.values import FloatStep, OpSensitivity, Sensitivity, Spread
from edgeq_converters.sources import detect
from edgeq_converters.worker.protocol import SensitivityJob

__all__ = [
    "FloatStep",
    "OpSensitivity",
    "Sensitivity",
    "SensitivityAnalysis",
    "Spread",
    "analyze_sensitivity",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityAnalysis:
    """A sensitivity with the model and data that it was measured on."""

    model: ModelFile
    calibration: Path
    evaluation: Path
    sensitivity: Sensitivity
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as `edgeq.sensitivity/1`, for `--json` and the store."""
        return {
            "model": self.model.to_json(),
            "calibration": str(self.calibration),
            "evaluation": str(self.evaluation),
            **self.sensitivity.to_dict(),
            "seconds": round(self.seconds, 3),
        }


def analyze_sensitivity(
    model: Path,
    *,
    calibration: Path,
    evaluation: Path,
    calibrator: str = "minmax",
    samples: int = 256,
    float_steps: int = 3,
    on_progress: Progress | None = None,
    deadline_s: float = 3600.0,
    store: Recorder | None = None,
) -> SensitivityAnalysis:
    """Measure what quantizing each operation of a float .tflite costs, in dB of SQNR at its logits.

    Args:
        calibration: representative samples: .npz, .npy or a folder of images.
        evaluation: other samples, on which the quantized models are compared with the float model.
        calibrator: how a tensor's histogram becomes its range.
        samples: the largest number of evaluation samples to use, evenly spaced.
        float_steps: how many of the worst operations to leave float together, one more in each step.
        on_progress: called with (step, done, total).
        deadline_s: the worker is killed after this time.
        store: where to record the run: None is the store of the default workspace, `UNRECORDED` keeps no
            record.

    Raises:
        UsageError: fewer than one sample, a negative number of steps, or an unknown calibrator.
        DataError: EQ2xx.
        ModelError: EQ304 the model is quantized, EQ309 the float model gives NaN; any other EQ3xx.
        StoreError: the run cannot be recorded.
    """
    started_s = time.monotonic()
    model = Path(model)
    _check_calibrator(calibrator)
    if samples < 1:
        raise UsageError("samples", expected="at least 1", got=str(samples))
    if float_steps < 0:
        raise UsageError("float_steps", expected="0 or more", got=str(float_steps))
    with worker_session("sensitivity") as session:
        detect.require_tflite(model)
        job = SensitivityJob(
            model=model,
            calibration=Path(calibration),
            evaluation=Path(evaluation),
            calibrator=calibrator,
            samples=samples,
            float_steps=float_steps,
        )
        result = session.run(job, subject=model, deadline_s=deadline_s, on_progress=on_progress)
    analysis = SensitivityAnalysis(
        model=ModelFile.of(model),
        calibration=Path(calibration),
        evaluation=Path(evaluation),
        sensitivity=result,
        seconds=time.monotonic() - started_s,
    )
    with recording_store(store) as records:
        records.record_run("sensitivity", model.stem, analysis.to_json())
    return analysis


def _check_calibrator(name: str) -> None:
    from edgeq_converters.calibration.calibrators import AUTO, CALIBRATORS, calibrator_of

    try:
        if name == AUTO:
            raise ValueError("auto compares whole models; choose one calibrator here")
        calibrator_of(name)
    except ValueError as error:
        known = ", ".join(CALIBRATORS)
        raise UsageError("--calibrator", str(error), hint=f"one of {known}") from error
