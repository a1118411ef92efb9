"""The health check that decides an activation: golden outputs, latency, memory, under its runtime."""

from __future__ import annotations

import os

from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.inference import model_process
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.runtimes import native, registry
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


def check(home: Home, wanted: Manifest, runtime: str, timeout_s: float) -> Json:
    """Return what was measured, and the `proof`: `golden` outputs compared, or with a native runtime `ran`.

    Raises:
        AgentError: EQ504 an output, the latency or the memory is not what the manifest allows; EQ511 it
            hangs.
    """
    entry = registry.need(home, runtime)
    folder = home.release(wanted.release)
    found = (
        _native(entry, wanted, folder, timeout_s)
        if native.is_native(entry)
        else _golden(entry, wanted, folder, timeout_s)
    )
    _within(wanted, "latency_p95_ns", found["latency_p95_ns"], wanted.latency_p95_ns, "ns")
    _within(wanted, "memory_peak_bytes", found["memory_peak_bytes"], wanted.memory_peak_bytes, "bytes")
    return found


def _native(entry: Json, wanted: Manifest, folder: str, timeout_s: float) -> Json:
    return native.gate(str(entry["interpreter"]), os.path.join(folder, wanted.model_file), timeout_s)


def _golden(entry: Json, wanted: Manifest, folder: str, timeout_s: float) -> Json:
    job = {
        "job": "golden",
        "module": entry["module"],
        "version": entry["version"],
        "model_path": os.path.join(folder, wanted.model_file),
        "golden_path": os.path.join(folder, wanted.golden_file),
        "golden": wanted.golden,
        "reference_path": os.path.join(folder, wanted.reference_file) if wanted.reference_file else None,
    }
    return dict(model_process.run(str(entry["interpreter"]), job, timeout_s), proof=native.GOLDEN)


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
