"""The job `sensitivity`: what quantizing each operation costs, measured on files."""

from __future__ import annotations

from edgeq_converters.data import files
from edgeq_converters.graph import carried_states
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.validate import require_float
from edgeq_converters.progress import Step
from edgeq_converters.sensitivity.measure import measure
from edgeq_converters.sensitivity.values import Sensitivity
from edgeq_converters.sources import detect
from edgeq_converters.worker.protocol import SensitivityJob
from edgeq_converters.worker.stateful_samples import matched


def run(job: SensitivityJob, step: Step) -> Sensitivity:
    """Do the job.

    Raises:
        ConverterError: EQ2xx the data, EQ3xx the model.
    """
    detect.require_tflite(job.model)
    model = Model.read(job.model)
    require_float(model)
    model = carried_states.declared(model, carried_states.carried(model).states)
    calibration = matched(files.read(job.calibration), model)[0]
    evaluation = matched(files.read(job.evaluation), model)[0]
    return measure(
        model,
        calibration,
        evaluation,
        step=step,
        calibrator=job.calibrator,
        samples=job.samples,
        float_steps=job.float_steps,
    )
