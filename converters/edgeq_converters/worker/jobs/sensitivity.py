"""The job `sensitivity`: what quantizing each operation costs, measured on files."""

from __future__ import annotations

from edgeq_converters.data import sample_files
from edgeq_converters.data.samples import match
from edgeq_converters.graph import tflite_file
from edgeq_converters.progress import Step
from edgeq_converters.sensitivity.measure import measure
from edgeq_converters.sensitivity.values import Sensitivity
from edgeq_converters.sources import detect
from edgeq_converters.worker.protocol import SensitivityJob


def run(job: SensitivityJob, step: Step) -> Sensitivity:
    """Do the job.

    Raises:
        ConverterError: EQ2xx the data, EQ3xx the model.
    """
    subject = str(job.model)
    detect.require_tflite(job.model)
    data = job.model.read_bytes()
    model = tflite_file.parse(data, subject=subject)
    tflite_file.require_float(model, subject=subject)
    inputs, _ = tflite_file.inputs_and_outputs(model)
    calibration = match(sample_files.read(job.calibration), inputs)
    evaluation = match(sample_files.read(job.evaluation), inputs)
    return measure(
        data,
        calibration,
        evaluation,
        subject=subject,
        step=step,
        calibrator=job.calibrator,
        samples=job.samples,
        walk=job.walk,
    )
