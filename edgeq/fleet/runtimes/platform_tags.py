"""Derive pip's platform tags and the choice of packages from a device's facts; pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.errors import DeviceUnsupported
from edgeq.fleet.facts import Facts

# Only these have manylinux wheels of a TFLite runtime.
_MACHINES = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "armv7l",
    "armv8l": "armv7l",  # what a 64-bit kernel reports to a process of the 32-bit personality
}
_OLDEST_GLIBC = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device's platform in pip's terms.

    Attributes:
        platforms: accepted platform tags, the newest first.
        python: such as `3.11`.
        abi: such as `cp311`.
    """

    platforms: tuple[str, ...]
    python: str
    abi: str

    @property
    def text(self) -> str:
        """For messages: `cp311 on manylinux_2_36_x86_64`."""
        return f"{self.abi} on {self.platforms[0]}"


def target_of(name: str, facts: Facts) -> Target:
    """Return the device's platform.

    Raises:
        DeviceUnsupported: there are no wheels for it: not CPython, another C library, another machine.
    """
    if facts.implementation.lower() != "cpython":
        raise DeviceUnsupported(name, "the device's Python", expected="CPython", got=facts.implementation)
    if facts.libc.lower() not in ("glibc", "gnu"):
        raise DeviceUnsupported(
            name,
            "there are no wheels of a TFLite runtime for its C library",
            expected="glibc",
            got=f"{facts.libc or 'unknown'} {facts.libc_version}".strip(),
        )
    machine = machine_of(facts)
    if machine is None:
        raise DeviceUnsupported(
            name,
            "there are no wheels of a TFLite runtime for its machine",
            expected=", ".join(sorted(set(_MACHINES.values()))),
            got=f"{facts.machine}, {facts.pointer_bits} bit",
        )
    major, minor = facts.python_version
    return Target(
        platforms=_platforms(machine, glibc_minor(facts)),
        python=f"{major}.{minor}",
        abi=f"cp{major}{minor}" + ("m" if (major, minor) < (3, 8) else ""),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A set of packages that make up a runtime.

    Attributes:
        requirements: in pip's syntax.
        own: the package and version that the device's own Python provides for the runtime. Dependencies of
            the requirements are then not downloaded.
    """

    requirements: tuple[str, ...]
    own: str = ""

    @property
    def text(self) -> str:
        """For messages."""
        return " ".join(self.requirements) + (f" with the device's {self.own}" if self.own else "")


def choices_for(facts: Facts) -> tuple[Choice, ...]:
    """Return the sets of packages to try, the best first.

    Tags are not enough: the newer ai-edge-litert wheels are tagged for glibc 2.27 but need 2.34 (arm64), the
    older ones 2.30; tflite-runtime was built against numpy 1 and crashes with numpy 2.
    """
    newest = Choice(requirements=("ai-edge-litert>=2.1.1", "numpy"))
    older = Choice(requirements=("ai-edge-litert<2.1.1", "numpy<2"))
    last = (Choice(requirements=("tflite-runtime", "numpy<2")), *_with_own_numpy(facts))
    glibc = glibc_minor(facts)
    if machine_of(facts) == "armv7l":
        return last  # there is no ai-edge-litert for it
    if glibc >= 34:
        return (newest, older, *last)
    return (older, *last) if glibc >= 30 else last


def _with_own_numpy(facts: Facts) -> tuple[Choice, ...]:
    # Only distributions build numpy for 32-bit ARM.
    version = facts.packages.get("numpy", "")
    if machine_of(facts) != "armv7l" or not version.startswith("1."):
        return ()
    return (Choice(requirements=("tflite-runtime",), own=f"numpy {version}"),)


def machine_of(facts: Facts) -> str | None:
    """Return the machine that binaries must be built for: a 64-bit kernel may have a 32-bit userland."""
    machine = _MACHINES.get(facts.machine.lower())
    if machine == "aarch64" and facts.pointer_bits == 32:
        return "armv7l"
    return None if machine == "x86_64" and facts.pointer_bits == 32 else machine


def glibc_minor(facts: Facts) -> int:
    """Return the 36 of glibc 2.36; when it is unknown, the oldest for which there are wheels."""
    parts = facts.libc_version.split(".")
    return int(parts[1]) if len(parts) >= 2 and parts[0] == "2" and parts[1].isdigit() else _OLDEST_GLIBC


def _platforms(machine: str, glibc: int) -> tuple[str, ...]:
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(glibc, _OLDEST_GLIBC - 1, -1)]
    tags.append(f"manylinux2014_{machine}")
    if machine == "x86_64":
        tags += ["manylinux2010_x86_64", "manylinux1_x86_64"]
    # The package index of Raspberry Pi OS has wheels with the bare tag.
    return (*tags, f"linux_{machine}") if machine == "armv7l" else tuple(tags)
