"""The health check before an activation: golden outputs, latency and memory, under the release's runtime."""

from __future__ import annotations

from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.inference.job import HealthReport, ReleaseFiles
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.runtimes import registry
from edgeq_agent.storage.home import Home


def check(home: Home, manifest: Manifest, runtime: str, timeout_s: float) -> HealthReport:
    """Check a release on this device and return the measurements.

    Args:
        runtime: digest of the runtime.

    Raises:
        AgentError: EQ504, latency or memory is over the manifest's limit; EQ503, the runtime is not usable;
            else as `RuntimeBackend.check_health`.
    """
    health = registry.need(home, runtime).check_health(ReleaseFiles.of(home, manifest), timeout_s)
    limits = (
        ("latency_p95_ns", health.latency_p95_ns, manifest.latency_p95_ns, "ns"),
        ("memory_peak_bytes", health.memory_peak_bytes, manifest.memory_peak_bytes, "bytes"),
    )
    for name, value, limit, unit in limits:
        if value is not None and limit is not None and value > limit:
            raise AgentError(
                UNHEALTHY,
                manifest.model,
                f"{name} is over the blueprint's limit on this device",
                expected=f"at most {limit} {unit}",
                got=f"{value} {unit}",
                hint="the previous release still serves; choose a smaller model or raise the limit",
            )
    return health
