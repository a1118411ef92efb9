"""The job `float_regions`: the SQNR of many choices of operations that stay float."""

from __future__ import annotations

from edgeq_converters.data import sample_files
from edgeq_converters.data.samples import match
from edgeq_converters.graph import tflite_file
from edgeq_converters.progress import Step
from edgeq_converters.sensitivity.float_region_search import walk
from edgeq_converters.sensitivity.float_region_values import IslandWalk
from edgeq_converters.sources import detect
from edgeq_converters.worker.protocol import FloatRegionsJob


def run(job: FloatRegionsJob, step: Step) -> IslandWalk:
    """Do the job.

    Raises:
        ConverterError: EQ2xx the data, EQ3xx the model.
    """
    subject = str(job.model)
    detect.require_tflite(job.model)
    data = job.model.read_bytes()
    model = tflite_file.parse(data, subject=subject)
    tflite_file.require_float(model, subject=subject)
    samples = match(sample_files.read(job.calibration), tflite_file.inputs_and_outputs(model)[0])
    return walk(data, samples, subject=subject, step=step, calibrator=job.calibrator, most=job.most)
