"""Parse the output of TFLite's `benchmark_model` into figures; pure.

Its lines are as follows; newer versions put a prefix such as `INFO: ` before them
(tensorflow/lite/tools/benchmark, README and benchmark_model.cc; percentiles since 2024):

    count=50 first=2881 curr=2703 min=2605 max=20356 avg=2942.27 std=1190 p5=2647 median=2781 p95=3169
    Inference timings in us: Init: 6395, First inference: 2761, Warmup (avg): 3243.5, Inference (avg): 2942.2

The first line comes twice, for the warm-up and for the measurement; after a single run it has only `curr`.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from edgeq_agent.errors import NATIVE_UNREADABLE, AgentError
from edgeq_agent.wire import Json

_NUMBER = r"[0-9][0-9.]*(?:e[+-]?[0-9]+)?"
_COUNTS = re.compile(rf"\bcount=([0-9]+)((?: [a-z0-9]+={_NUMBER})+)")
_PAIR = re.compile(rf"([a-z0-9]+)=({_NUMBER})")
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: ({_NUMBER}), First inference: ({_NUMBER}), "
    rf"Warmup \(avg\): ({_NUMBER}), Inference \(avg\): ({_NUMBER})"
)


class NativeFigures(NamedTuple):
    """The figures of one run, in nanoseconds; None where this version of the program does not print them."""

    runs: int
    init_ns: int
    first_ns: int
    mean_ns: int
    min_ns: int
    max_ns: int
    std_ns: int | None
    p5_ns: int | None
    p50_ns: int | None
    p95_ns: int | None
    kernels: str

    def latency(self) -> Json:
        """Return the latencies as the response has them."""
        return {
            "count": self.runs,
            "min": self.min_ns,
            "mean": self.mean_ns,
            "max": self.max_ns,
            "std": self.std_ns,
            "p5": self.p5_ns,
            "p50": self.p50_ns,
            "p95": self.p95_ns,
        }


def parse(text: str) -> NativeFigures:
    """Return the figures in the output of a run.

    Raises:
        AgentError: EQ561, this is not what the program prints after a successful run.
    """
    counts, timings = _COUNTS.findall(text), _TIMINGS.findall(text)
    if not counts or not timings:
        last = text.strip().splitlines()[-1:]
        raise _unreadable(
            "the lines `count=...` and `Inference timings in us: ...`", "".join(last) or "nothing"
        )
    runs = int(counts[-1][0])
    pairs = {name: _ns(value) for name, value in _PAIR.findall(counts[-1][1])}
    only = pairs.get("curr") if runs == 1 else None
    init_ns, first_ns, _, mean_ns = (_ns(value) for value in timings[-1])
    min_ns, max_ns = pairs.get("min", only), pairs.get("max", only)
    if runs < 1 or min_ns is None or max_ns is None:
        raise _unreadable("at least one run, with min and max", " ".join(counts[-1]).strip())
    return NativeFigures(
        runs=runs,
        init_ns=init_ns,
        first_ns=first_ns,
        mean_ns=mean_ns,
        min_ns=min_ns,
        max_ns=max_ns,
        std_ns=pairs.get("std"),
        p5_ns=pairs.get("p5"),
        p50_ns=pairs.get("median"),
        p95_ns=pairs.get("p95"),
        kernels="xnnpack" if "XNNPACK delegate" in text else "unknown",
    )


def _unreadable(expected: str, got: str) -> AgentError:
    return AgentError(
        NATIVE_UNREADABLE,
        "benchmark_model",
        "its output is not what TFLite's benchmark_model prints",
        expected,
        got[:200],
        hint="use TFLite's own benchmark_model, built for this device: `edgeq devices native DEVICE FILE`",
    )


def _ns(microseconds: str) -> int:
    value = float(microseconds) * 1000
    if not math.isfinite(value):
        raise _unreadable("times in microseconds", microseconds)
    return round(value)
