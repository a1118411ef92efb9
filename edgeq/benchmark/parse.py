"""Parsing the agent's benchmark document (`edgeq.bench/1`) into a BenchResult."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeq.benchmark.result import BenchResult, Environment, Latency
from edgeq.errors import AgentProtocolError
from edgeq_agent import wire


def parse_bench(document: Mapping[str, Any], *, device: str) -> BenchResult:
    """Return the result that a document holds; unknown fields are ignored.

    Raises:
        AgentProtocolError: a field is missing or of the wrong kind; names it.
    """
    read = _Reader(document, device)
    schema = read.text("schema")
    if schema != wire.BENCH_SCHEMA:
        raise read.wrong("schema", wire.BENCH_SCHEMA, schema)
    low, high = read.pair("latency_ns", "p50_ci95")
    return BenchResult(
        model=read.text("model"),
        release=read.text("release"),
        runtime=f"{read.text('runtime', 'module')} {read.text('runtime', 'version')}",
        python=read.text("runtime", "interpreter_python"),
        kernels=read.text("kernels"),
        threads=int(read.number("threads")),
        runs=int(read.number("runs")),
        duration_s=read.number("duration_s"),
        init_ns=read.number("init_ns"),
        first_inference_ns=read.number("first_inference_ns"),
        latency=Latency(
            count=int(read.number("latency_ns", "count")),
            min_ns=read.number("latency_ns", "min"),
            mean_ns=read.number("latency_ns", "mean"),
            p50_ns=read.number("latency_ns", "p50"),
            p90_ns=read.number("latency_ns", "p90"),
            p95_ns=read.number("latency_ns", "p95"),
            p99_ns=read.number("latency_ns", "p99"),
            max_ns=read.number("latency_ns", "max"),
            p50_ci95_ns=(low, high),
        ),
        peak_bytes=read.size("memory", "peak_bytes"),
        before_model_bytes=read.size("memory", "before_model_bytes"),
        memory_source=str(read.get("memory").get("source") or "not told"),
        environment=Environment(
            before=read.object("environment", "before"), after=read.object("environment", "after")
        ),
        invalid=tuple(str(entry.get("reason", entry)) for entry in read.objects("invalid")),
        warnings=tuple(str(entry) for entry in read.items("warnings")),
        document=document,
    )


class _Reader:
    """Reads checked fields, and says which one is wrong."""

    def __init__(self, document: Mapping[str, Any], device: str) -> None:
        self._document = document
        self._device = device

    def get(self, *path: str) -> Any:
        value: Any = self._document
        for name in path:
            if not isinstance(value, Mapping) or name not in value:
                raise self.wrong(".".join(path), "a value", "nothing")
            value = value[name]
        return value

    def text(self, *path: str) -> str:
        value = self.get(*path)
        if not isinstance(value, str):
            raise self.wrong(".".join(path), "a text", repr(value))
        return value

    def number(self, *path: str) -> float:
        value = self.get(*path)
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not right or not math.isfinite(value) or value < 0:
            raise self.wrong(".".join(path), "a number from 0", repr(value))
        return float(value)

    def size(self, *path: str) -> int | None:
        return None if self.get(*path) is None else int(self.number(*path))

    def pair(self, *path: str) -> tuple[float, float]:
        values = self.items(*path)
        if len(values) != 2 or not all(isinstance(value, (int, float)) for value in values):
            raise self.wrong(".".join(path), "[low, high]", repr(values))
        return float(values[0]), float(values[1])

    def object(self, *path: str) -> Mapping[str, Any]:
        value = self.get(*path)
        if not isinstance(value, Mapping):
            raise self.wrong(".".join(path), "an object", repr(value))
        return value

    def items(self, *path: str) -> list[Any]:
        value = self.get(*path)
        if not isinstance(value, list):
            raise self.wrong(".".join(path), "a list", repr(value))
        return value

    def objects(self, *path: str) -> list[Mapping[str, Any]]:
        values = self.items(*path)
        if not all(isinstance(value, Mapping) for value in values):
            raise self.wrong(".".join(path), "a list of objects", repr(values))
        return values

    def wrong(self, field: str, expected: str, got: str) -> AgentProtocolError:
        return AgentProtocolError(
            self._device,
            f"bench: {field}",
            expected=expected,
            got=got[:80],
            hint=f"run `edgeq status {self._device}`; a deploy renews the agent",
        )
