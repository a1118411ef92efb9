"""What `benchmark_model` measured on a device: its figures, with what they can be compared to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import AgentProtocolError
from edgeq.units import format_duration, format_size
from edgeq_agent import wire

_TIMES = ("min", "p5", "p50", "mean", "p95", "max")
# Nanoseconds or bytes; what is beyond any float, or none of its numbers, is no figure.
_MOST = 2**63
_DURATIONS = ("init_ns", "first_inference_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeResult:
    """A benchmark by the native program: on inputs of its own, without the spread of single runs.

    Attributes:
        document: the agent's `edgeq.native-bench/1` as it came.
    """

    model: str
    release: str
    document: Mapping[str, Any]

    @property
    def valid(self) -> bool:
        """Whether the run counts: the program tells of nothing that disturbed it."""
        return True


def is_native(document: Mapping[str, Any]) -> bool:
    """Tell whether a benchmark's answer is that of the native program."""
    return document.get("schema") == wire.NATIVE_BENCH_SCHEMA


def parse_native(document: Mapping[str, Any], *, device: str) -> NativeResult:
    """Return the result that a document holds.

    Raises:
        AgentProtocolError: a field is missing or of the wrong kind; names it.
    """
    latency = document.get("latency_ns")
    if not isinstance(latency, Mapping):
        raise _wrong(device, "latency_ns", "an object", latency)
    for name in ("count", "min", "mean", "max"):
        _check_number(device, f"latency_ns.{name}", latency.get(name))
    for name in (*_DURATIONS, "threads"):
        _check_number(device, name, document.get(name))
    for name in _TIMES:  # an older program prints no percentile
        if latency.get(name) is not None:
            _check_number(device, f"latency_ns.{name}", latency[name])
    memory, warnings = document.get("memory", {}), document.get("warnings", [])
    if not isinstance(memory, Mapping):
        raise _wrong(device, "memory", "an object", memory)
    if memory.get("peak_bytes") is not None:
        _check_number(device, "memory.peak_bytes", memory["peak_bytes"])
    if not isinstance(warnings, list):
        raise _wrong(device, "warnings", "a list", warnings)
    return NativeResult(
        model=str(document.get("model")), release=str(document.get("release")), document=document
    )


def native_summary(result: NativeResult) -> tuple[str, ...]:
    """Return the lines that `edgeq bench` prints."""
    document = result.document
    latency = document["latency_ns"]
    times = [f"{name} {format_duration(latency[name])}" for name in _TIMES if latency.get(name) is not None]
    peak = document.get("memory", {}).get("peak_bytes")
    memory = "not measured" if peak is None else f"peak {format_size(peak)} of the whole program"
    return (
        "source    benchmark_model, on inputs that it made up; figures of edgeq's own bench compare with it "
        "only roughly",
        f"latency   {', '.join(times)}",
        f"runs      {latency['count']}, threads {document['threads']}",
        f"start     load {format_duration(document['init_ns'])}, "
        f"first inference {format_duration(document['first_inference_ns'])}",
        f"memory    {memory}",
        f"runtime   program {document.get('program')}, kernels {document.get('kernels')}",
        *(f"warning   {warning}" for warning in document.get("warnings", ())),
    )


def _check_number(device: str, field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST:
        raise _wrong(device, field, "a number from 0", value)


def _wrong(device: str, field: str, expected: str, got: object) -> AgentProtocolError:
    return AgentProtocolError(device, f"bench: {field}", expected=expected, got=repr(got)[:80])
