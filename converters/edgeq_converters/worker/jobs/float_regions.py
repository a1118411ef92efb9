"""The job `float_regions`: the SQNR of many choices of operations that stay float."""

from __future__ import annotations

from edgeq_converters.data import files
from edgeq_converters.graph import carried_states
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.validate import require_float
from edgeq_converters.progress import Step
from edgeq_converters.sensitivity.float_region_search import search_float_regions
from edgeq_converters.sensitivity.float_region_values import FloatRegionSearch
from edgeq_converters.sources import detect
from edgeq_converters.worker.protocol import FloatRegionsJob
from edgeq_converters.worker.stateful_samples import matched


def run(job: FloatRegionsJob, step: Step) -> FloatRegionSearch:
    """Do the job.

    Raises:
        ConverterError: EQ2xx the data, EQ3xx the model.
    """
    detect.require_tflite(job.model)
    model = Model.read(job.model)
    require_float(model)
    model = carried_states.declared(model, carried_states.carried(model).states)
    samples = matched(files.read(job.calibration), model)[0]
    return search_float_regions(model, samples, step=step, calibrator=job.calibrator, most=job.most)
