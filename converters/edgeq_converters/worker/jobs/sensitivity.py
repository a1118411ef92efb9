"""The worker's verbs `sensitivity` and `islands`: files in, figures out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq_converters.data import sample_files
from edgeq_converters.data.samples import match
from edgeq_converters.graph import tflite_file
from edgeq_converters.progress import Step
from edgeq_converters.sensitivity.float_region_search import walk
from edgeq_converters.sensitivity.measure import measure
from edgeq_converters.sources import detect


def run(job: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """Return the sensitivity of {"model", "calibration", "evaluation", "calibrator", "samples", "walk"}.

    Raises:
        ConverterError: EQ2xx the data, EQ3xx the model.
    """
    path = Path(job["model"])
    detect.require_tflite(path)
    data = path.read_bytes()
    model = tflite_file.parse(data, subject=str(path))
    tflite_file.require_float(model, subject=str(path))
    inputs, _ = tflite_file.inputs_and_outputs(model)
    calibration = match(sample_files.read(Path(job["calibration"])), inputs)
    evaluation = match(sample_files.read(Path(job["evaluation"])), inputs)
    return measure(
        data,
        calibration,
        evaluation,
        subject=str(path),
        step=step,
        calibrator=job["calibrator"],
        samples=job["samples"],
        walk=job["walk"],
    ).to_dict()


def run_walk(job: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """Return the walk of {"model", "calibration", "calibrator", "most"}.

    Raises:
        ConverterError: EQ2xx the data, EQ3xx the model.
    """
    path = Path(job["model"])
    detect.require_tflite(path)
    data = path.read_bytes()
    model = tflite_file.parse(data, subject=str(path))
    tflite_file.require_float(model, subject=str(path))
    samples = match(sample_files.read(Path(job["calibration"])), tflite_file.inputs_and_outputs(model)[0])
    return walk(
        data, samples, subject=str(path), step=step, calibrator=job["calibrator"], most=job["most"]
    ).to_dict()
