"""A store with a selection, benchmarks and drifting windows, as real commands leave it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.store import Store
from tests.telemetry.golden import received

RELEASE = "a" * 64
EDGES = [float(edge) for edge in np.linspace(0, 1, 11)]


def bench_document(**changes: Any) -> dict[str, Any]:
    """Return a benchmark as the agent reports one."""
    readings = {"temperature_c": 51.0, "governor": "ondemand", "absent": {"frequency_hz": "no cpufreq"}}
    latency = {"count": 400, "min": 9e5, "mean": 1.02e6, "p50": 1e6, "p90": 1.2e6, "p95": 1.3e6}
    document = {
        "schema": "edgeq.bench/1",
        "model": "kws",
        "release": RELEASE,
        "runtime": {"module": "ai_edge_litert", "version": "2.1.0", "interpreter_python": "3.11.7"},
        "kernels": "xnnpack",
        "threads": 1,
        "runs": 400,
        "duration_s": 1.2,
        "init_ns": 3_000_000,
        "first_inference_ns": 2_000_000,
        "latency_ns": {**latency, "p99": 1.9e6, "max": 3e6, "p50_ci95": [9.9e5, 1.01e6]},
        "memory": {"peak_bytes": 40_000_000, "before_model_bytes": 30_000_000, "source": "VmHWM"},
        "environment": {"before": readings, "after": {**readings, "temperature_c": 55.0}},
        "invalid": [],
        "warnings": [],
    }
    return {**document, **changes}


def reference_document() -> dict[str, Any]:
    """Return a drift reference of 500 samples."""
    counts = [50] * 10
    return {
        "schema": "edgeq.reference/1",
        "statistic": "per-sample per-channel mean",
        "inputs": [{"name": "x", "channels": [{"edges": EDGES, "counts": counts}]}],
        "output": {
            "classes": 4,
            "predicted": [200, 100, 100, 100],
            "confidence": {"edges": EDGES, "counts": [0, 0, 0, 10, 20, 30, 40, 100, 150, 150]},
            "confidence_from": "probabilities",
        },
    }


def window_document(seq: int, random: np.random.Generator, *, shifted: bool) -> dict[str, Any]:
    """Return a window of 50 samples."""
    means = random.random(50) ** (4.0 if shifted else 1.0)
    classes = [0.7, 0.1, 0.1, 0.1] if shifted else [0.4, 0.2, 0.2, 0.2]
    sure = np.array([0, 0, 0, 10, 20, 30, 40, 100, 150, 150]) / 500
    return {
        "schema": "edgeq.window/1",
        "device_id": "d1",
        "boot": "boot:nonce",
        "seq": seq,
        "model": "kws",
        "release": RELEASE,
        "started_ns": seq * 10**9,
        "ended_ns": seq * 10**9 + 5 * 10**8,
        "inferences": 50,
        "errors": {},
        "latency": {
            "relative_accuracy": 0.01,
            "counts": {"690": 50},
            "count": 50,
            "sum_ns": 50 * 980_000,
            "min_ns": 970_000,
            "max_ns": 990_000,
        },
        "memory_peak_bytes": 1000,
        "temperature_c": None,
        "inputs": [{"name": "x", "channels": [np.histogram(means, EDGES)[0].tolist()]}],
        "output": {
            "predicted": random.multinomial(50, classes).tolist(),
            "confidence": random.multinomial(50, sure).tolist(),
        },
    }


def selection_document() -> dict[str, Any]:
    """Return what a selection records."""
    candidates = []
    for name, size, accuracy, sqnr, holds in (
        ("float16", 30_000, 0.975, 60.0, False),
        ("int8", 16_000, 0.97, 24.5, True),
        ("<b>int8-min</b>", 17_000, 0.96, 20.0, None),
    ):
        gate = {"name": "size_bytes_max", "limit": 20_000, "value": size, "holds": holds}
        slow = {"name": "latency_p95_ns_max", "limit": 1_200_000, "value": None, "holds": None}
        metrics = {"samples": 500, "accuracy": accuracy, "agreement": 0.99, "output_sqnr_db": sqnr}
        candidates.append(
            {"name": name, "size_bytes": size, "metrics": metrics, "on_front": holds is not None}
            | {"admissible": bool(holds), "gates": [gate, slow]}
        )
    return {"chosen": "int8", "candidates": candidates}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return a filled store; tests must not write to it."""
    folder: Path = tmp_path_factory.mktemp("filled")
    random = np.random.default_rng(4)
    manifest = {"model": "kws", "variant": "int8", "files": {"model.tflite": {"sha256": "b" * 64}}}
    with Store.open(folder) as store:
        store.put_release(RELEASE, manifest, reference_document())
        store.record_run("select", "kws", selection_document())
        store.record_run("deploy", "kws</script><script>alert(1)</script>", {"release": RELEASE})
        store.record_bench("pi", bench_document())
        hot = bench_document(invalid=[{"reason": "throttled: freq-capped"}], threads=4)
        store.record_bench("coral", hot)
        shifted = [window_document(seq, random, shifted=seq > 12) for seq in range(1, 21)]
        store.ingest("pi", [received(window) for window in shifted])
        normal = [window_document(seq, random, shifted=False) for seq in range(1, 13)]
        store.ingest("coral", [received(window) for window in normal], device_id="d2")
        yield store
