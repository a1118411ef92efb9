"""Time candidates in one session, on this machine or a device, and record their times."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from edgeq.converters_client import Progress
from edgeq.search.measuring import Latency, host_latencies
from edgeq.search.records import Records, StepKind, key_of
from edgeq.store.records import Body
from edgeq.values import Variant

ROUNDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The latencies of one session, by the SHA-256 of the model, and where it ran."""

    where: str
    latencies: Mapping[str, Latency]

    @classmethod
    def from_json(cls, body: Body) -> Session:
        """Return the session in the body of a run."""
        latencies = {sha: Latency(**each) for sha, each in body["latencies"].items()}
        return cls(where=body["where"], latencies=latencies)


KIND = StepKind(name="search-latency", read=Session.from_json, write=asdict)


class Timing(Protocol):
    """A machine or device that times models."""

    @property
    def where(self) -> str:
        """Return its name, under which timings are recorded and reused."""
        ...

    @property
    def machine(self) -> str:
        """Return the name of its kernel table: a device, or a class of machines."""
        ...

    def measure(self, variants: Sequence[Variant]) -> Mapping[str, Latency]:
        """Return {SHA-256 of a model: latency}, without models that could not be measured."""
        ...


class ThisMachine:
    """Times models on this machine, in turns, each time freshly loaded."""

    def __init__(self, *, rounds: int = ROUNDS, on_progress: Progress | None = None) -> None:
        self._rounds = rounds
        self._on_progress = on_progress

    @property
    def where(self) -> str:
        """Return the machine's name and kind, so that no other machine reuses its timings."""
        return f"host {platform.node()} {platform.machine()} x{self._rounds}"

    @property
    def machine(self) -> str:
        """Return the class of this machine."""
        return platform.machine()

    def measure(self, variants: Sequence[Variant]) -> Mapping[str, Latency]:
        """Return the latency of every model on one thread."""
        latencies = host_latencies(
            [variant.path for variant in variants], rounds=self._rounds, on_progress=self._on_progress
        )
        return {variant.sha256: latency for variant, latency in zip(variants, latencies, strict=True)}


def timed(
    variants: Sequence[Variant],
    timing: Timing,
    records: Records[Session],
    *,
    subject: str,
    say: Callable[[str], None],
) -> tuple[Mapping[str, Latency], bool]:
    """Return ({SHA-256: latency}, whether they came from a record).

    Only figures of one session are comparable. If one candidate is new, all are timed again.
    """
    unique = list({variant.sha256: variant for variant in variants}.values())
    key = key_of(where=timing.where, models=sorted(variant.sha256 for variant in unique))
    known = records.find(key)
    if known is not None:
        return known.latencies, True
    say(f"timing {len(unique)} models on {timing.where}")
    latencies = timing.measure(unique)
    records.put(key, subject, Session(where=timing.where, latencies=latencies))
    return latencies, False
