"""The health check that decides an activation: golden outputs, latency, memory, under its runtime."""

from __future__ import annotations

import os

from edgeq_agent import child, runtimes
from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.home import Home
from edgeq_agent.manifest import Manifest
from edgeq_agent.wire import Json


def check(home: Home, wanted: Manifest, runtime: str, timeout_s: float) -> Json:
    """Return what was measured.

    Raises:
        AgentError: EQ504 an output, the latency or the memory is not what the manifest allows; EQ511 it
            hangs.
    """
    entry = runtimes.need(home, runtime)
    folder = home.release(wanted.release)
    job = {
        "job": "golden",
        "module": entry["module"],
        "version": entry["version"],
        "model_path": os.path.join(folder, wanted.model_file),
        "golden_path": os.path.join(folder, wanted.golden_file),
        "golden": wanted.golden,
        "reference_path": os.path.join(folder, wanted.reference_file) if wanted.reference_file else None,
    }
    found = child.run(str(entry["interpreter"]), job, timeout_s)
    _within(wanted, "latency_p95_ns", found["latency_p95_ns"], wanted.latency_p95_ns, "ns")
    _within(wanted, "memory_peak_bytes", found["memory_peak_bytes"], wanted.memory_peak_bytes, "bytes")
    return found


def _within(wanted: Manifest, name: str, value: int | None, limit: int | None, unit: str) -> None:
    if limit is not None and value is not None and value > limit:
        raise AgentError(
            UNHEALTHY,
            wanted.model,
            f"{name} is over the blueprint's limit on this device",
            expected=f"at most {limit} {unit}",
            got=f"{value} {unit}",
            hint="the release that was there before still serves; choose a smaller model or raise the limit",
        )
