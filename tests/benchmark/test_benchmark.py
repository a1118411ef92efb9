"""A benchmark's document becomes a value or a named fault, and lines that say what counts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgeq.benchmark import bench, parse_bench, summary
from edgeq.errors import AgentProtocolError
from edgeq.store import Store

_READINGS = {
    "temperature_c": 51.0,
    "governor": "ondemand",
    "cpu_pressure_us": 1000,
    "throttling": {"now": [], "since_boot": ["freq-capped"]},
    "frequency_hz": None,
    "absent": {"frequency_hz": "the kernel has no cpufreq"},
}
DOCUMENT: dict[str, Any] = {
    "schema": "edgeq.bench/1",
    "model": "kws",
    "release": "a" * 64,
    "runtime": {"module": "ai_edge_litert", "version": "2.1.0", "interpreter_python": "3.11.7"},
    "kernels": "xnnpack",
    "threads": 2,
    "runs": 400,
    "duration_s": 1.25,
    "init_ns": 3_000_000,
    "first_inference_ns": 2_000_000,
    "latency_ns": {
        "count": 400,
        "min": 900_000,
        "mean": 1_020_000.5,
        "p50": 1_000_000,
        "p90": 1_200_000,
        "p95": 1_300_000,
        "p99": 1_900_000,
        "max": 3_000_000,
        "p50_ci95": [990_000, 1_010_000],
    },
    "memory": {"peak_bytes": 40 * 2**20, "before_model_bytes": 30 * 2**20, "source": "VmHWM"},
    "environment": {
        "before": _READINGS,
        "after": {**_READINGS, "temperature_c": 58.5, "cpu_pressure_us": 3500},
    },
    "invalid": [],
    "warnings": ["the frequency governor is ondemand"],
    "a later field": 1,
}


class _Agent:
    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer
        self.seen: tuple[str, Mapping[str, Any], float] | None = None

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float = 60,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Mapping[str, Any]:
        self.seen = (verb, request, deadline_s)
        return self.answer


def test_the_request_has_the_settings_and_the_host_waits_longer_than_the_agent(tmp_path: Path) -> None:
    agent = _Agent(DOCUMENT)
    with Store.open(tmp_path) as store:
        result = bench(
            agent, "kws", device="pi", runs=7, min_seconds=0.5, threads=2, timeout_s=30, store=store
        )
        (record,) = store.benches()
    assert (record.device, record.body) == ("pi", DOCUMENT)
    assert agent.seen is not None
    verb, request, deadline_s = agent.seen
    expected = {"model": "kws", "runs": 7, "min_seconds": 0.5, "warmup": 10, "threads": 2, "timeout_s": 30}
    assert (verb, request) == ("bench", expected)
    assert deadline_s > 30
    assert result.latency.p50_ci95_ns == (990_000, 1_010_000)
    assert (result.runtime, result.threads, result.valid) == ("ai_edge_litert 2.1.0", 2, True)
    with pytest.raises(ValidationError, match="frozen"):
        result.threads = 3


def test_the_lines_for_people() -> None:
    assert summary(parse_bench(DOCUMENT, device="pi")) == (
        "latency   p50 1 ms (95 % CI 990 us to 1.01 ms), p90 1.2 ms, p95 1.3 ms, p99 1.9 ms, max 3 ms",
        "runs      400 in 1.2 s on 2 threads",
        "start     load 3 ms, first inference 2 ms",
        "memory    peak 40.0 MiB (VmHWM), 10.0 MiB of it after loading the model",
        "runtime   ai_edge_litert 2.1.0, kernels xnnpack, Python 3.11.7",
        "device    temperature: 51 C -> 58.5 C",
        "device    governor: ondemand",
        "device    tasks waited for the processor for 2.5 ms in all",
        "device    throttling: now none, since_boot freq-capped",
        "device    frequency: not measured (the kernel has no cpufreq)",
        "warning   the frequency governor is ondemand",
    )


def test_a_disturbed_run_and_an_unknown_memory_are_reported() -> None:
    memory = {"peak_bytes": None, "before_model_bytes": None, "source": "the kernel reports no peak"}
    odd = {**DOCUMENT, "invalid": [{"reason": "throttled: freq-capped"}], "memory": memory}
    result = parse_bench(odd, device="pi")
    assert not result.valid
    lines = summary(result)
    assert lines[3] == "memory    not measured (the kernel reports no peak)"
    assert lines[-1] == "INVALID   because throttled: freq-capped"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("schema", "edgeq.bench/2", "schema, expected 'edgeq.bench/1', got 'edgeq.bench/2'"),
        ("model", 5, "model, expected a string, got 5"),
        ("threads", True, "threads, expected an integer, got True"),
        ("init_ns", -1, "init_ns, expected a number of at least 0, got -1"),
        ("duration_s", float("nan"), "duration_s, expected a finite number, got nan"),
        ("latency_ns.p95", "fast", "latency_ns.p95, expected a number, got 'fast'"),
        ("latency_ns.p50_ci95", [1], "latency_ns.p50_ci95.1, expected a value, got nothing"),
        ("environment.before", None, "environment.before, expected an object, got None"),
        ("invalid", ["hot"], "invalid.0, expected an object, got 'hot'"),
        ("warnings", "none", "warnings, expected a list, got 'none'"),
    ],
)
def test_an_invalid_benchmark_document_is_refused(path: str, value: Any, problem: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    *parents, name = path.split(".")
    target: Any = document
    for parent in parents:
        target = target[parent]
    target[name] = value
    with pytest.raises(AgentProtocolError) as caught:
        parse_bench(document, device="pi")
    assert caught.value.message == f"pi: bench: {problem}"
    del target[name]
    with pytest.raises(AgentProtocolError, match="expected a value, got nothing"):
        parse_bench(document, device="pi")
