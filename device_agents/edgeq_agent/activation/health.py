"""The health check before an activation: golden outputs, latency and memory, under the release's runtime."""

from __future__ import annotations

from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.inference.job import HealthReport, ReleaseFiles
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.runtimes import registry
from edgeq_agent.storage.home import Home

_UNITS = {
    "ns": ((10**9, "s"), (10**6, "ms"), (10**3, "us")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
}


def in_units(value: int, unit: str) -> str:
    """Return a duration (`ns`) or a size (`bytes`) in the unit that a reader expects: `20.3 us`."""
    for factor, name in _UNITS[unit]:
        if value >= factor:
            return f"{value / factor:.4g} {name}"
    return f"{value} {unit}"


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
        ("latency_p95_max", health.latency_p95_ns, manifest.latency_p95_ns, "ns"),
        ("memory_peak_max", health.memory_peak_bytes, manifest.memory_peak_bytes, "bytes"),
    )
    for name, value, limit, unit in limits:
        if value is not None and limit is not None and value > limit:
            most, got = in_units(limit, unit), in_units(value, unit)
            if most == got:  # they differ only in digits that the text leaves out
                most, got = f"{limit} {unit}", f"{value} {unit}"
            raise AgentError(
                UNHEALTHY,
                manifest.model,
                f"over the blueprint's {name} on this device",
                expected=f"at most {most}",
                got=got,
                hint="the previous release still serves; choose a smaller model or raise the limit",
            )
    return health
