"""What a device said about itself, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import AgentProtocolError
from edgeq.fleet.responses import facts_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFact:
    """A runtime that is on the device.

    Attributes:
        digest: which wheels it was made of; see `wheels.Runtime.digest`.
    """

    digest: str
    interpreter: str
    module: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFact:
    """How the agent file was found when the device was asked.

    Attributes:
        action: `create`, `change` or `same`.
        size_bytes: what was sent for it.
    """

    action: str = "same"
    sha256: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The answer of `probe`.

    Attributes:
        python: the version, such as `3.11.7`.
        libc: its name (`glibc`, `musl`, `bionic`); empty when it cannot be told.
        pointer_bits: 32 on a 64-bit kernel with a 32-bit userland.
        refused: digests of runtimes that were built on it and did not start, with the reasons.
        packages: the versions of packages that its Python has itself (`numpy`).
        measures: by quantity, whether it can be measured and by what, or why not.
        modules: which runtimes its Python has itself, found and not imported.
        time_ns: the device's clock, which may be wrong.
        raw: the whole answer.
    """

    python: str
    implementation: str
    machine: str
    system: str
    libc: str
    libc_version: str
    pointer_bits: int
    free_bytes: int
    memory_bytes: int | None
    cpu_count: int
    model: str | None
    device_id: str
    boot_id: str
    runtimes: tuple[RuntimeFact, ...]
    refused: Mapping[str, str]
    measures: Mapping[str, Any]
    time_ns: int
    packages: Mapping[str, str]
    modules: tuple[str, ...]
    agent: AgentFact
    raw: Mapping[str, Any]

    @property
    def python_version(self) -> tuple[int, int]:
        """Major and minor."""
        major, minor = self.python.split(".")[:2]
        return int(major), int(minor)

    @classmethod
    def from_probe(cls, name: str, body: Mapping[str, Any], agent: AgentFact | None = None) -> Facts:
        """Return the facts of an answer.

        Raises:
            AgentProtocolError: something that must be there is not, or is of another type.
        """
        try:
            libc = body.get("libc") or {}
            facts = cls(
                python=str(body["python"]),
                implementation=str(body["implementation"]),
                machine=str(body["machine"]),
                system=str(body["system"]),
                libc=str(libc.get("name") or ""),
                libc_version=str(libc.get("version") or ""),
                pointer_bits=int(body["pointer_bits"]),
                free_bytes=int(body["free_bytes"]),
                memory_bytes=_number(body.get("memory_bytes")),
                cpu_count=int(body.get("cpu_count") or 1),
                model=body.get("model"),
                device_id=str(body["device_id"]),
                boot_id=str(body.get("boot_id") or ""),
                runtimes=tuple(
                    RuntimeFact(
                        digest=str(runtime["digest"]),
                        interpreter=str(runtime.get("interpreter", "")),
                        module=str(runtime.get("module", "")),
                        version=str(runtime.get("version", "")),
                    )
                    for runtime in body.get("runtimes", ())
                ),
                refused={
                    str(entry["digest"]): str(entry.get("problem", ""))
                    for entry in body.get("refused_runtimes", ())
                },
                measures=dict(body.get("measures", {})),
                time_ns=int(body.get("time_ns", 0)),
                packages={str(k): str(v) for k, v in dict(body.get("packages") or {}).items()},
                modules=tuple(str(name) for name in body.get("modules", ())),
                agent=agent or AgentFact(),
                raw=dict(body),
            )
            _ = facts.python_version
            other = facts_problem(body)
            if other is not None:
                raise ValueError(other)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"its facts cannot be read ({type(error).__name__}: {error})"
            raise AgentProtocolError(name, problem, hint="run with --debug, and report it") from error
        return facts


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
