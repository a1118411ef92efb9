"""The search's worker jobs: the SQNR of float regions, and latencies on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.converters_client import Progress, worker_session
from edgeq_converters.sensitivity.float_region_values import FloatRegionSearch
from edgeq_converters.worker.protocol import FloatRegionsJob, LatencyJob

_DEADLINE_S = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A model's measured latency.

    Attributes:
        low_ns, high_ns: spread of the median over the session.
        memory_peak_bytes: None where it was not measured.
    """

    p50_ns: int
    p95_ns: int
    low_ns: int
    high_ns: int
    memory_peak_bytes: int | None = None


def measure_float_regions(
    model: Path, calibration: Path, *, calibrator: str, most: int, on_progress: Progress | None
) -> FloatRegionSearch:
    """Return the SQNR of many choices of float regions of a float `.tflite`.

    Args:
        most: the largest number of choices to measure.

    Raises:
        DataError, ModelError: the data or the model cannot be used.
    """
    job = FloatRegionsJob(model=model, calibration=calibration, calibrator=calibrator, most=most)
    with worker_session("search") as session:
        return session.run(job, subject=model, deadline_s=_DEADLINE_S, on_progress=on_progress)


def host_latencies(
    models: Sequence[Path], *, rounds: int, on_progress: Progress | None
) -> tuple[Latency, ...]:
    """Return the latency of each model on this machine: one thread, in turns, freshly loaded each time.

    Raises:
        ModelError: a model does not run.
    """
    job = LatencyJob(models=tuple(models), rounds=rounds, seed=0)
    with worker_session("search") as session:
        result = session.run(job, subject=models[0], deadline_s=_DEADLINE_S, on_progress=on_progress)
    return tuple(
        Latency(p50_ns=each.p50_ns, p95_ns=each.p95_ns, low_ns=each.low_ns, high_ns=each.high_ns)
        for each in result.latencies
    )
