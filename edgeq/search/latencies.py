"""Latencies of candidates: all in one session, here or on a device, recorded for the next search."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

from edgeq.search.measuring import Latency, Progress, host_latencies
from edgeq.search.records import Records, key_of
from edgeq.values import Variant

KIND = "search-latency"
ROUNDS = 15


class Timing(Protocol):
    """A place where models are timed."""

    @property
    def where(self) -> str:
        """Return the name of the place; the same models there are not timed twice."""
        ...

    def measure(self, variants: Sequence[Variant]) -> Mapping[str, Latency]:
        """Return {SHA-256 of a model: latency}; what could not be measured is absent."""
        ...


class ThisMachine:
    """Times models on this machine, in turns, each time loaded anew."""

    def __init__(self, *, rounds: int = ROUNDS, on_progress: Progress | None = None) -> None:
        self._rounds = rounds
        self._on_progress = on_progress

    @property
    def where(self) -> str:
        """Return the machine's name and kind: another machine measures for itself."""
        return f"host {platform.node()} {platform.machine()} x{self._rounds}"

    def measure(self, variants: Sequence[Variant]) -> Mapping[str, Latency]:
        """Return every model's latency, one thread."""
        found = host_latencies(
            [variant.path for variant in variants], rounds=self._rounds, on_progress=self._on_progress
        )
        return {variant.sha256: latency for variant, latency in zip(variants, found, strict=True)}


def timed(
    variants: Sequence[Variant],
    timing: Timing,
    records: Records,
    *,
    subject: str,
    say: Callable[[str], None],
) -> tuple[Mapping[str, Latency], bool]:
    """Return ({SHA-256: latency}, whether records had them all).

    Figures of one session are comparable with each other, so that a session is one piece of work: where
    one candidate is new, all are timed again.
    """
    unique = list({variant.sha256: variant for variant in variants}.values())
    key = key_of(where=timing.where, models=sorted(variant.sha256 for variant in unique))
    known = records.find(key)
    if known is not None:
        return {sha: Latency(**body) for sha, body in known["latencies"].items()}, True
    say(f"timing {len(unique)} models on {timing.where}")
    found = timing.measure(unique)
    body = {"where": timing.where, "latencies": {sha: asdict(each) for sha, each in found.items()}}
    records.put(key, subject, body)
    return found, False
