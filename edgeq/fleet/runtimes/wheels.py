"""The runtime for a device: its wheels, resolved and fetched here, since devices are often offline."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import DeviceUnsupported, DiskRefused, TransportError
from edgeq.files import sha256_of, write_atomic
from edgeq.fleet.facts import Facts
from edgeq.fleet.runtimes.platform_tags import Choice, Target, choices_for, machine_of, target_of
from edgeq_agent import wire

_PIP_S = 900
_FREE = "free space there, then run the same command again"
_SCHEMA = "edgeq.wheels/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One file on this machine that a runtime is made of: a wheel, or the native program."""

    name: str
    sha256: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What inference runs on.

    Attributes:
        digest: names it on the device: of the wheels' digests and the Python version.
        wheels: empty means the native program, or the device's own interpreter with what is installed there.
        reason: why there are no wheels, when there are none.
        passed: what would have been better and does not start on the device, each with the reason.
        native: the program `benchmark_model`, which only measures.
        hint: what to do when the device's own does not do, either.
    """

    digest: str
    wheels: tuple[Wheel, ...]
    reason: str = ""
    passed: tuple[str, ...] = ()
    hint: str = ""
    native: Wheel | None = None

    @property
    def files(self) -> tuple[Wheel, ...]:
        """What is sent for it."""
        return self.wheels if self.native is None else (self.native,)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)


def resolve(
    facts: Facts, folder: Path, *, name: str = "device", without: Mapping[str, str] | None = None
) -> Runtime:
    """Return the wheels of a TFLite runtime that fit a device; fetched once for each kind of device.

    Args:
        folder: the cache: `<key>.json` beside the wheel files. A hit needs no network.
        without: runtimes that did not start on the device, with the reasons, beside those that it told.

    Raises:
        DeviceUnsupported: no wheel fits; the message has what was tried.
        TransportError: the package index cannot be reached, and the cache does not have it.
    """
    target = target_of(name, facts)
    refused = {**facts.refused, **(without or {})}
    tried: list[str] = []
    passed: list[str] = []
    with _one_at_a_time(folder):
        for choice in choices_for(facts):
            found = _cached(folder, target, choice) or _fetch(name, folder, target, choice)
            if found is None:
                tried.append(choice.text)
                continue
            digest = _digest(target, choice, found)
            if digest not in refused:
                return Runtime(digest=digest, wheels=found, passed=tuple(passed))
            passed.append(f"{choice.text} does not start there ({refused[digest]})")
    nothing = [f"nothing for {'; '.join(tried) or 'any'}"] if tried or not passed else []
    raise DeviceUnsupported(
        name,
        f"no wheels of a TFLite runtime {'that start there ' if passed else ''}fit {target.text}",
        got="; ".join([*nothing, *passed]),
        hint=_hint(facts),
    )


def _hint(facts: Facts) -> str:
    if machine_of(facts) == "armv7l" and "numpy" not in facts.packages:
        return "install numpy 1.x there (apt install python3-numpy): nobody makes its wheel for 32-bit ARM"
    return "install ai-edge-litert or tflite-runtime on the device; its own is used then"


def own_runtime(facts: Facts, reason: str, hint: str = "") -> Runtime:
    """Return the runtime that is the device's own interpreter, for when no wheels fit."""
    return Runtime(digest=wire.digest({"own": facts.python}), wheels=(), reason=reason, hint=hint)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    # Ten devices of one kind are planned at once: one fetches, nine find it in the cache.
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _digest(target: Target, choice: Choice, found: tuple[Wheel, ...]) -> str:
    content = {"python": target.python, "wheels": sorted([w.name, w.sha256] for w in found)}
    # Another numpy of the device's own makes another runtime, which is proved anew.
    return wire.digest({**content, "own": choice.own} if choice.own else content)


def _key(target: Target, choice: Choice) -> str:
    content = {"platforms": target.platforms, "python": target.python, "abi": target.abi}
    return wire.digest({**content, "requirements": choice.requirements, "alone": bool(choice.own)})[:16]


def _cached(folder: Path, target: Target, choice: Choice) -> tuple[Wheel, ...] | None:
    try:
        content = json.loads((folder / f"{_key(target, choice)}.json").read_bytes())
        wheels = tuple(
            Wheel(
                name=entry["name"],
                sha256=entry["sha256"],
                path=folder / entry["name"],
                size_bytes=entry["size_bytes"],
            )
            for entry in content["wheels"]
        )
        intact = all(sha256_of(wheel.path) == wheel.sha256 for wheel in wheels)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # not fetched yet, or damaged: fetched anew either way
    return wheels if intact and content.get("schema") == _SCHEMA else None


def _fetch(name: str, folder: Path, target: Target, choice: Choice) -> tuple[Wheel, ...] | None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        if not _download(name, Path(scratch), target, choice):
            return None
        wheels: list[Wheel] = []
        for source in sorted(Path(scratch).glob("*.whl")):
            wheel = Wheel(
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
    write_atomic(folder / f"{_key(target, choice)}.json", json.dumps(document, indent=1).encode())
    return tuple(wheels)


def _download(name: str, folder: Path, target: Target, choice: Choice) -> bool:
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
        raise TransportError(name, f"pip did not fetch {requirements[0]} within {_PIP_S} s") from error
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
    if reason == "Exception:":  # pip prints what happened below it, as the end of a traceback
        reason = text.splitlines()[-1]
    raise TransportError(
        name,
        f"the wheels for {target.text} cannot be fetched: {reason[:300]}",
        hint="connect this machine to a package index once (pip's settings are used); later runs need none",
    )
