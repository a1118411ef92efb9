"""Benchmark the model that a device serves, and record the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from edgeq.benchmark.native import NativeResult, is_native, parse_native
from edgeq.benchmark.result import BenchResult, parse_bench
from edgeq.errors import DeviceUnsupported
from edgeq.fleet.agent.answer_check import check_answer
from edgeq.store import Store, recording_store

TIMEOUT_S = 120
# The host waits this much longer than the agent, whose own deadline gives the better error.
_GRACE_S = 20


class AgentCaller(Protocol):
    """The connected agent as a benchmark uses it; `AgentClient` is the real one."""

    def call(self, verb: str, request: Mapping[str, Any], *, deadline_s: float = ...) -> Mapping[str, Any]:
        """Run one verb and return its response."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How a benchmark runs.

    Attributes:
        runs, min_seconds: both minimums hold.
        warmup: runs that are not counted.
        threads: of the interpreter.
        timeout_s: time limit on the device, in seconds.
    """

    runs: int = 200
    min_seconds: float = 1.0
    warmup: int = 10
    threads: int = 1
    timeout_s: int = TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBench:
    """A result with the number of its record in the store."""

    number: int
    result: BenchResult | NativeResult


def measure(
    client: AgentCaller, model: str, *, device: str, settings: BenchSettings = BenchSettings()
) -> BenchResult | NativeResult:
    """Benchmark a model in a fresh process on the device, with whichever runtime it has; nothing is recorded.

    Args:
        model: the name under which the device serves it.
        device: the device's name, for messages.

    Raises:
        AgentProtocolError: the response is neither `edgeq.bench/1` nor `edgeq.native-bench/1`, or is about
            another model.
        DeviceError: EQ510 no such model, EQ511 the timeout passed, EQ504 the process crashed.
        TransportError: the connection failed.
    """
    request = {"model": model, **asdict(settings)}
    document = client.call("bench", request, deadline_s=settings.timeout_s + _GRACE_S)
    # Whatever the caller is: figures of another model must not be recorded under this one's name.
    check_answer("bench", request, document, device=device)
    return (
        parse_native(document, device=device) if is_native(document) else parse_bench(document, device=device)
    )


def measure_and_record(
    client: AgentCaller,
    model: str,
    *,
    device: str,
    settings: BenchSettings = BenchSettings(),
    store: Store | None = None,
) -> RecordedBench:
    """Benchmark a model as `measure` does, and record the result.

    Results of the native program are recorded apart: they have other inputs and another statistic.

    Args:
        store: where it is recorded; the store of the default workspace if None.
    """
    result = measure(client, model, device=device, settings=settings)
    with recording_store(store) as opened:
        if isinstance(result, NativeResult):
            number = opened.record_run("native-bench", model, {**result.document, "device": device})
        else:
            number = opened.record_bench(device, result.document)
    return RecordedBench(number=number, result=result)


def bench(
    client: AgentCaller,
    model: str,
    *,
    device: str,
    runs: int = 200,
    min_seconds: float = 1.0,
    warmup: int = 10,
    threads: int = 1,
    timeout_s: int = TIMEOUT_S,
    store: Store | None = None,
) -> BenchResult:
    """Benchmark the model that a device serves, in a fresh process there, and record the result.

    Args:
        client: a connected agent, from `open_agent`.
        model: the name under which the device serves it.
        device: the device's name, for messages and for the record.
        runs: the minimum number of inferences.
        min_seconds: the minimum duration; both minimums hold.
        warmup: runs that are not counted.
        threads: of the interpreter.
        timeout_s: time limit on the device, in seconds.
        store: where it is recorded; the store of the default workspace if None.

    Raises:
        DeviceUnsupported: EQ559, the device has only the native program, whose results do not compare.
        AgentProtocolError, DeviceError, TransportError: as for `measure`.
        StoreError: the store cannot be opened.
    """
    settings = BenchSettings(
        runs=runs, min_seconds=min_seconds, warmup=warmup, threads=threads, timeout_s=timeout_s
    )
    result = measure(client, model, device=device, settings=settings)
    if isinstance(result, NativeResult):
        raise DeviceUnsupported(
            f"{device}: {model}",
            "its runtime is benchmark_model, whose results cannot be compared with other benchmarks",
            hint="choose another device, or install a TFLite runtime on this one",
            code="EQ559",
        )
    with recording_store(store) as opened:
        opened.record_bench(device, result.document)
    return result
