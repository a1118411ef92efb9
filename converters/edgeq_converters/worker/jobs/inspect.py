"""The job `inspect`: a .tflite's inputs, outputs and operations, after one run on zeros."""

from __future__ import annotations

from pathlib import Path

from edgeq_converters.graph import op_report, validate
from edgeq_converters.graph.interpreter import run_once
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.sources import detect, stored_weights
from edgeq_converters.values import ModelInfo
from edgeq_converters.worker.protocol import InspectJob


def run(job: InspectJob, step: Step) -> ModelInfo:
    """Do the job.

    Raises:
        ConverterError: EQ301, EQ302, EQ303; EQ304 and EQ306 if the model must be one to convert.
    """
    info = inspect(job.model)
    if job.require_float:
        model = stored_weights.unpacked(Model.read(job.model)).model
        validate.require_float(model)
        validate.require_fixed_shapes(model)
    return info


def inspect(path: Path) -> ModelInfo:
    """Return what a .tflite file contains, after one run on zeros.

    Raises:
        ConverterError: EQ301, EQ302, EQ303.
    """
    detect.require_tflite(path)
    model = Model.read(path)
    validate.require_not_compiled(model)
    info = op_report.describe(model)
    run_once(model)
    return info
