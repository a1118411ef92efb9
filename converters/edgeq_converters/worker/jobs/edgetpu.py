"""The job `edgetpu`: readiness by Coral's table, and the compiler's own log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edgeq_converters.edgetpu import compiler, report
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.sources import detect
from edgeq_converters.worker.protocol import EdgeTpuJob, EdgeTpuResult


def run(job: EdgeTpuJob, step: Step) -> EdgeTpuResult:
    """Do the job; the compiler's log is None where it is not on PATH or the model is already compiled.

    Raises:
        ConverterError: EQ301, EQ302, EQ303, EQ325.
    """
    detect.require_tflite(job.model)
    readiness = report.readiness(Model.read(job.model))
    log = None
    if job.compile and not readiness.compiled:
        with tempfile.TemporaryDirectory() as folder:
            compiled = compiler.compile_model(job.model, Path(folder))
            if compiled is not None:
                log, path = compiled
                shutil.copyfile(path, job.output)
    return EdgeTpuResult(readiness=readiness, compiler=log)
