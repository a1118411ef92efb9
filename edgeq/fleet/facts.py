"""The facts of a device: the response of the agent's verb `probe` as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from edgeq.fleet.responses import Count, Items, Response, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFact:
    """What had to be done about the agent file before the device could be probed.

    Attributes:
        action: `create`, `change` or `same`.
        size_bytes: what was sent for it.
    """

    action: str = "same"
    sha256: str = ""
    size_bytes: int = 0


class LibC(Response):
    """The device's C library: `glibc`, `musl` or `bionic`, and its version where it is known."""

    name: str | None = None
    version: str | None = None


class RuntimeFact(Response):
    """A runtime that is installed on the device.

    Attributes:
        digest: of the files that it was built from; see `RuntimeSpec.digest`.
    """

    digest: str
    interpreter: str | None = None
    module: str | None = None
    version: str | None = None


class RefusedRuntime(Response):
    """A runtime that was built on the device and failed its self-test."""

    digest: str
    problem: str = ""


class LastStart(Response):
    """How the last run at boot ended."""

    ok: bool
    problem: str | None


class AutostartFact(Response):
    """What starts the agent when the device boots.

    Attributes:
        whole: whether the installed files are as they were written.
        last: how the last run ended; None before the first.
        at_boot: whether something runs it at boot; None while no boot has shown it. The verb `service`
            reports it, `probe` does not.
    """

    verbs = ("service",)

    kind: str
    whole: bool
    ran_in_this_boot: bool
    seen_at_boot: bool
    last: LastStart | None = None
    at_boot: bool | None = None
    why: str | None = None

    @model_validator(mode="after")
    def _has_run(self) -> Self:
        if self.ran_in_this_boot and self.last is None:
            raise ValueError("a last run, since it ran in this boot")
        return self


class EdgeTpu(Response):
    """What the device has of an Edge TPU.

    Attributes:
        library: the runtime library that was found.
        loads: whether it can be loaded.
        problem: why it cannot.
        devices: the accelerators that are plugged in.
    """

    library: str | None = None
    loads: bool
    problem: str | None = None
    devices: Items[str]

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.library and not self.problem:
            raise ValueError("a library or a problem")
        return self


class Facts(Response):
    """The response of `probe`.

    Attributes:
        document: the response as it arrived.
        python: the version, such as `3.11.7`.
        pointer_bits: 32 on a 64-bit kernel with a 32-bit userland.
        refused_runtimes: runtimes that failed their self-test on the device.
        packages: versions of packages that the device's Python has (`numpy`).
        modules: TFLite runtimes that the device's Python has; found, not imported.
        measures: by quantity, whether it can be measured and by what, or why not.
        time_ns: the device's clock, which may be wrong.
        agent: what was done about the agent file first.
    """

    verbs = ("probe",)

    python: Annotated[str, Field(pattern=r"^\d+\.\d+")]
    implementation: str
    machine: str
    system: str
    c_library: LibC | None = Field(default=None, validation_alias="libc")
    pointer_bits: Count
    free_bytes: Count
    memory_bytes: Count | None = None
    cpu_count: Count = 1
    model: str | None = None
    kind: str | None = None
    device_id: str
    boot_id: str | None = None
    runtimes: Items[RuntimeFact] = ()
    refused_runtimes: Items[RefusedRuntime] = ()
    measures: Mapping[str, Any] = {}
    time_ns: int = 0
    packages: Mapping[str, str] = {}
    modules: Items[str] = ()
    service: AutostartFact | None = None
    edgetpu: EdgeTpu | None = None
    agent: AgentFact = AgentFact()

    @property
    def python_version(self) -> tuple[int, int]:
        """Major and minor."""
        major, minor = self.python.split(".")[:2]
        return int(major), int(minor)

    @property
    def libc(self) -> str:
        """The name of its C library (`glibc`, `musl`, `bionic`); empty when unknown."""
        return (self.c_library.name if self.c_library else None) or ""

    @property
    def libc_version(self) -> str:
        """The version of its C library; empty when unknown."""
        return (self.c_library.version if self.c_library else None) or ""

    @property
    def refused(self) -> dict[str, str]:
        """The digests of refused runtimes, each with the reason."""
        return {runtime.digest: runtime.problem for runtime in self.refused_runtimes}

    @classmethod
    def from_probe(cls, name: str, body: Mapping[str, Any], agent: AgentFact | None = None) -> Facts:
        """Return the facts in a response of `probe`.

        Raises:
            AgentProtocolError: a field is missing or has the wrong type.
        """
        facts = parse(cls, body, device=name, verb="probe")
        return facts if agent is None else facts.model_copy(update={"agent": agent})
