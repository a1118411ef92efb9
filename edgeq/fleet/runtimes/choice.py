"""Choose a device's runtime: wheels that fit, else the installed runtime, else the native program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeq.errors import ConfigError, DeviceUnsupported
from edgeq.files import sha256_of
from edgeq.fleet.facts import Facts
from edgeq.fleet.runtimes.wheels import RuntimeFile, RuntimeKind, RuntimeSpec, installed_runtime, resolve
from edgeq.values import Device
from edgeq_agent import wire

NATIVE = "benchmark_model"


def choose(device: Device, facts: Facts, folder: Path, *, without: Mapping[str, str]) -> RuntimeSpec:
    """Return the best runtime that is not known to fail on the device.

    Args:
        folder: the cache of wheels.
        without: digests of runtimes that just failed to start there, with the reasons.

    Raises:
        TransportError: the package index cannot be reached, and the cache does not hold the wheels.
        ConfigError: the native program that the inventory names is missing.
    """
    try:
        return resolve(facts, folder, name=device.name, without=without)
    except DeviceUnsupported as error:
        installed = installed_runtime(facts, error.message, error.hint)
    if device.native is None:
        # An installed runtime may still work; the agent's self-test decides.
        return installed
    if facts.modules and installed.digest not in without:
        return installed
    native = native_runtime(device.native, installed.reason)
    return installed if native.digest in {**facts.refused, **without} else native


def native_runtime(path: Path, reason: str) -> RuntimeSpec:
    """Return the runtime that is a `benchmark_model` program.

    Args:
        reason: why there is no better one.

    Raises:
        ConfigError: there is no such file.
    """
    try:
        size_bytes = path.stat().st_size
        sha256 = sha256_of(path)
    except OSError as error:
        raise ConfigError(str(path), f"the native program cannot be read: {error.strerror}") from error
    program = RuntimeFile(name=NATIVE, sha256=sha256, path=path, size_bytes=size_bytes)
    digest = wire.digest({"native": sha256})
    return RuntimeSpec(kind=RuntimeKind.NATIVE, digest=digest, files=(program,), reason=reason)
