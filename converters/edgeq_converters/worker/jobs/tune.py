"""The job `tune`: quantization-aware training of a Keras model or of a float .tflite."""

from __future__ import annotations

from pathlib import Path

from edgeq_converters.progress import Step
from edgeq_converters.recipe import Recipe
from edgeq_converters.sources import detect
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.training.qat import train
from edgeq_converters.training.tflite import distill
from edgeq_converters.worker import tools
from edgeq_converters.worker.jobs.convert import Converted, convert
from edgeq_converters.worker.protocol import TuneJob, TuneResult


def run(job: TuneJob, step: Step) -> TuneResult:
    """Do the job.

    Raises:
        ConverterError: EQ2xx the data, EQ3xx the model or its training.
    """

    def by(source: Path, output: Path, recipe: Recipe, data: Path, folder: Path) -> Converted:
        return convert(source, output, recipe=recipe, data=data, workdir=folder, step=step)

    is_tflite = detect.detect(job.source) is SourceKind.TFLITE
    report = (distill.tune if is_tflite else train.tune)(
        job.source,
        job.output,
        scheme=job.scheme,
        settings=job.settings,
        convert=by,
        workdir=job.workdir,
        step=step,
    )
    return TuneResult(report=report, tools=tools.versions_of())
