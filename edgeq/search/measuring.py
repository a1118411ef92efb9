"""What the search asks the worker process for: the walk over float islands, and latencies on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import DataError, MissingExtra, ModelError
from edgeq_converters.errors import translated
from edgeq_converters.sensitivity.float_region_values import IslandWalk
from edgeq_converters.worker.client import run_worker

Progress = Callable[[str, int, int], None]
_ERRORS: Mapping[str, Callable[..., Exception]] = {"EQ1": MissingExtra, "EQ2": DataError, "EQ3": ModelError}
_DEADLINE_S = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A model's measured latency.

    Attributes:
        low_ns, high_ns: how far the median moved while it was measured.
        memory_peak_bytes: None where it was not measured.
    """

    p50_ns: int
    p95_ns: int
    low_ns: int
    high_ns: int
    memory_peak_bytes: int | None = None


def walk_islands(
    model: Path, calibration: Path, *, calibrator: str, most: int, on_progress: Progress | None
) -> IslandWalk:
    """Return the SQNR of many choices of float islands of a float `.tflite`.

    Raises:
        DataError, ModelError: the data or the model cannot be used.
    """
    job = {
        "verb": "islands",
        "model": str(model),
        "calibration": str(calibration),
        "calibrator": calibrator,
        "most": most,
    }
    return IslandWalk.from_dict(_run(job, str(model), on_progress))


def host_latencies(
    models: Sequence[Path], *, rounds: int, on_progress: Progress | None
) -> tuple[Latency, ...]:
    """Return the latency of each model on this machine: one thread, in turns, loaded anew each time.

    Raises:
        ModelError: a model does not run.
    """
    job = {"verb": "latency", "models": [str(model) for model in models], "rounds": rounds, "seed": 0}
    found = _run(job, str(models[0]), on_progress)["latencies"]
    keys = ("p50_ns", "p95_ns", "low_ns", "high_ns")
    return tuple(Latency(**{key: each[key] for key in keys}) for each in found)


def _run(job: Mapping[str, Any], subject: str, on_progress: Progress | None) -> dict[str, Any]:
    with (
        translated(_ERRORS),
        tempfile.TemporaryDirectory(prefix="edgeq-search-", ignore_cleanup_errors=True) as folder,
    ):
        return run_worker(
            job, workdir=Path(folder), subject=subject, deadline_s=_DEADLINE_S, on_progress=on_progress
        )
