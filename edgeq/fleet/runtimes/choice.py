"""Which runtime a device gets: wheels that fit, else what its own Python has, else the native program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeq.errors import ConfigError, DeviceUnsupported
from edgeq.files import sha256_of
from edgeq.fleet.facts import Facts
from edgeq.fleet.runtimes.wheels import Runtime, Wheel, own_runtime, resolve
from edgeq.values import Device
from edgeq_agent import wire

NATIVE = "benchmark_model"


def choose(device: Device, facts: Facts, folder: Path, *, without: Mapping[str, str]) -> Runtime:
    """Return the best runtime that is not known not to start on the device.

    Args:
        folder: the cache of wheels.
        without: runtimes that did not start there just now, with the reasons.

    Raises:
        TransportError: the package index cannot be reached, and the cache does not have the wheels.
        ConfigError: the native program that the inventory names is not there.
    """
    try:
        return resolve(facts, folder, name=device.name, without=without)
    except DeviceUnsupported as error:
        own = own_runtime(facts, error.message, error.hint)
    if device.native is None:
        # What is installed there may still do; the agent proves it or refuses.
        return own
    if facts.modules and own.digest not in without:
        return own
    found = native_runtime(device.native, own.reason)
    return own if found.digest in {**facts.refused, **without} else found


def native_runtime(path: Path, reason: str) -> Runtime:
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
    program = Wheel(name=NATIVE, sha256=sha256, path=path, size_bytes=size_bytes)
    return Runtime(digest=wire.digest({"native": sha256}), wheels=(), reason=reason, native=program)
