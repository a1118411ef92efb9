"""Resolve and download the wheels of a device's runtime on the host, since devices are often offline."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgeq.errors import DeviceUnsupported, DiskRefused, TransportError
from edgeq.files import sha256_of, write_atomic
from edgeq.fleet.facts import Facts
from edgeq.fleet.runtimes.platform_tags import Choice, Target, choices_for, machine_of, target_of
from edgeq_agent import wire

_PIP_S = 900
_FREE = "free space on that disk, then run the same command again"
_SCHEMA = "edgeq.wheels/1"


class RuntimeKind(StrEnum):
    """What a runtime is built from."""

    WHEELS = "wheels"  # wheels that the host sends, in an environment of their own
    INSTALLED = "installed"  # the device's own Python with the TFLite runtime that is installed there
    NATIVE = (
        "native"  # TFLite's program `benchmark_model`, which loads, runs and measures but gives no outputs
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFile:
    """One file on the host that a runtime is built from: a wheel, or the native program."""

    name: str
    sha256: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSpec:
    """A runtime as it is to be built on a device.

    Attributes:
        digest: identifies it on the device; computed from what it is built from.
        files: what is sent for it: wheels, or the native program; nothing for an installed runtime.
        reason: why no wheels are used, when none are.
        rejected: better choices that fail to start on the device, each with the reason.
        hint: what to do if an installed runtime fails as well.
    """

    kind: RuntimeKind
    digest: str
    files: tuple[RuntimeFile, ...] = ()
    reason: str = ""
    rejected: tuple[str, ...] = ()
    hint: str = ""

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for file in self.files)


def resolve(
    facts: Facts, folder: Path, *, name: str = "device", without: Mapping[str, str] | None = None
) -> RuntimeSpec:
    """Return the wheels of a TFLite runtime that fit a device; downloaded once per kind of device.

    Args:
        folder: the cache: `<key>.json` beside the wheel files. A hit needs no network.
        without: runtimes that just failed to start on the device, with the reasons, in addition to those in
            `facts`.

    Raises:
        DeviceUnsupported: no wheel fits; the message lists what was tried.
        TransportError: the package index cannot be reached, and the cache does not hold the wheels.
    """
    target = target_of(name, facts)
    refused = {**facts.refused, **(without or {})}
    tried: list[str] = []
    rejected: list[str] = []
    with _cache_lock(folder):
        for choice in choices_for(facts):
            wheels = _cached(folder, target, choice) or _download(name, folder, target, choice)
            if wheels is None:
                tried.append(choice.text)
                continue
            digest = _digest(target, choice, wheels)
            if digest not in refused:
                return RuntimeSpec(
                    kind=RuntimeKind.WHEELS, digest=digest, files=wheels, rejected=tuple(rejected)
                )
            rejected.append(f"{choice.text} does not start there ({refused[digest]})")
    nothing = [f"nothing for {'; '.join(tried) or 'any'}"] if tried or not rejected else []
    raise DeviceUnsupported(
        name,
        f"no wheels of a TFLite runtime {'that start there ' if rejected else ''}fit {target.text}",
        got="; ".join([*nothing, *rejected]),
        hint=_hint(facts),
    )


def _hint(facts: Facts) -> str:
    if machine_of(facts) == "armv7l" and "numpy" not in facts.packages:
        return "install numpy 1.x on the device (apt install python3-numpy); there is no wheel for 32-bit ARM"
    return "install ai-edge-litert or tflite-runtime on the device; edgeq then uses that one"


def installed_runtime(facts: Facts, reason: str, hint: str = "") -> RuntimeSpec:
    """Return the runtime that is the device's own interpreter, for when no wheels fit."""
    digest = wire.digest({"own": facts.python})
    return RuntimeSpec(kind=RuntimeKind.INSTALLED, digest=digest, reason=reason, hint=hint)


@contextmanager
def _cache_lock(folder: Path) -> Iterator[None]:
    # Ten devices of one kind are planned at once: one downloads, nine find the wheels in the cache.
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _digest(target: Target, choice: Choice, wheels: tuple[RuntimeFile, ...]) -> str:
    content = {"python": target.python, "wheels": sorted([w.name, w.sha256] for w in wheels)}
    # With another version of the device's numpy it is another runtime, which is tested again.
    return wire.digest({**content, "own": choice.own} if choice.own else content)


def cache_key(target: Target, choice: Choice) -> str:
    """Return the name, without suffix, under which the wheels of a choice are recorded for a target."""
    content = {"platforms": target.platforms, "python": target.python, "abi": target.abi}
    return wire.digest({**content, "requirements": choice.requirements, "alone": bool(choice.own)})[:16]


def _cached(folder: Path, target: Target, choice: Choice) -> tuple[RuntimeFile, ...] | None:
    try:
        content = json.loads((folder / f"{cache_key(target, choice)}.json").read_bytes())
        wheels = tuple(
            RuntimeFile(
                name=entry["name"],
                sha256=entry["sha256"],
                path=folder / entry["name"],
                size_bytes=entry["size_bytes"],
            )
            for entry in content["wheels"]
        )
        intact = all(sha256_of(wheel.path) == wheel.sha256 for wheel in wheels)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: downloaded again either way
    return wheels if intact and content.get("schema") == _SCHEMA else None


def _download(name: str, folder: Path, target: Target, choice: Choice) -> tuple[RuntimeFile, ...] | None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        if not _pip_download(name, Path(scratch), target, choice):
            return None
        wheels: list[RuntimeFile] = []
        for source in sorted(Path(scratch).glob("*.whl")):
            wheel = RuntimeFile(
                name=source.name,
                sha256=sha256_of(source),
                path=folder / source.name,
                size_bytes=source.stat().st_size,
            )
            source.replace(wheel.path)
            wheels.append(wheel)
    entries = [{"name": w.name, "sha256": w.sha256, "size_bytes": w.size_bytes} for w in wheels]
    document = {
        "schema": _SCHEMA,
        "target": target.text,
        "requirements": choice.requirements,
        "wheels": entries,
    }
    write_atomic(folder / f"{cache_key(target, choice)}.json", json.dumps(document, indent=1).encode())
    return tuple(wheels)


def _pip_download(name: str, folder: Path, target: Target, choice: Choice) -> bool:
    requirements = choice.requirements
    argv = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
    argv += ["--quiet", "--progress-bar", "off", "--only-binary=:all:", "--dest", str(folder)]
    argv += ["--python-version", target.python, "--implementation", "cp", "--abi", target.abi]
    for platform in target.platforms:
        argv += ["--platform", platform]
    if choice.own:
        argv.append("--no-deps")
    try:
        done = subprocess.run(
            [*argv, *requirements], capture_output=True, text=True, timeout=_PIP_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TransportError(name, f"pip did not download {requirements[0]} within {_PIP_S} s") from error
    if done.returncode == 0:
        return True
    text = done.stderr
    offline = any(sign in text for sign in ("Retrying (", "NewConnectionError", "Connection", "SSLError"))
    if not offline and any(
        sign in text
        for sign in ("No matching distribution", "ResolutionImpossible", "conflicting dependencies")
    ):
        return False
    errors = [line for line in text.splitlines() if line.startswith("ERROR:")] or text.splitlines()
    reason = errors[-1].removeprefix("ERROR: ") if errors else f"exit status {done.returncode}"
    if "No space left" in text:
        raise DiskRefused(str(folder.parent), "cannot be used: no space left for wheels", hint=_FREE)
    if reason == "Exception:":  # pip prints the cause below it, as the end of a traceback
        reason = text.splitlines()[-1]
    raise TransportError(
        name,
        f"the wheels for {target.text} cannot be downloaded: {reason[:300]}",
        hint="connect this machine to a package index once (pip's settings apply); later runs use the cache",
    )
