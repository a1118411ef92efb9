"""The job `merge`: put models beside each other into one."""

from __future__ import annotations

from edgeq_converters.graph.merge import merged
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Step
from edgeq_converters.worker.protocol import MergeJob, MergeResult


def run(job: MergeJob, step: Step) -> MergeResult:
    """Do the job.

    Raises:
        ConverterError: EQ303 a model is damaged.
    """
    advance = step("merge models", 1)
    model = merged({path.stem: Model.read(path) for path in job.models}, subject=job.output.name)
    job.output.write_bytes(model.data)
    advance(1)
    return MergeResult(size_bytes=len(model.data))
