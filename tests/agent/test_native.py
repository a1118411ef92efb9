"""The native program as a runtime: what it prints, what the gate then says, and what it cannot do.

The program of these tests is a stand-in (see `tests.agent.stand_in`); the lines that are parsed are those
that real ones printed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import pytest

from edgeq_agent.errors import AgentError
from edgeq_agent.runtimes import native_output
from tests import compiled_models
from tests.agent.stand_in import benchmark_model

pytestmark = pytest.mark.convert
RUNTIME = hashlib.sha256(b"native").hexdigest()

# As users of different versions posted it.
NEW = """INFO: STARTING!
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 6.395ms.
INFO: count=153 first=2761 curr=2885 min=2605 max=18080 avg=3243.58 std=2165 p5=2630 median=2761 p95=5331

INFO: count=337 first=2881 curr=2703 min=2605 max=20356 avg=2942.27 std=1190 p5=2647 median=2781 p95=3169

INFO: Inference timings in us: Init: 6395, First inference: 2761, Warmup (avg): 3243, Inference (avg): 2942.27
INFO: Memory footprint delta from the start of the tool (MB): init=39.4531 overall=40.8281
"""
OLD = """STARTING!
Loaded model ./mobilenet_v1_1.0_224.tflite
count=1 curr=3512391

count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 351239, Warmup (avg): 3e+06, Inference (avg): 2.95e+06
Peak memory footprint (MB): init=4.92969 overall=138.809
"""
ANDROID = "07-08 15:34:26.201 I/tflite  ( 5395): "


def test_the_last_count_is_the_measurement() -> None:
    measured = native_output.parse(NEW)
    assert (measured.runs, measured.min_ns, measured.max_ns) == (337, 2_605_000, 20_356_000)
    assert (measured.p5_ns, measured.p50_ns, measured.p95_ns) == (2_647_000, 2_781_000, 3_169_000)
    assert (measured.init_ns, measured.first_ns, measured.mean_ns) == (6_395_000, 2_761_000, 2_942_270)
    assert measured.kernels == "xnnpack"


def test_figures_that_an_older_version_does_not_print_are_absent() -> None:
    measured = native_output.parse(OLD)
    assert (measured.runs, measured.mean_ns, measured.std_ns) == (50, 2_950_000_000, 109_798_000)
    assert (measured.p5_ns, measured.p50_ns, measured.p95_ns) == (None, None, None)
    assert measured.kernels == "unknown"


def test_an_android_log_and_a_single_run_are_parsed() -> None:
    lines = [
        "count=1 curr=40 p5=40 median=40 p95=40",
        "count=1 curr=30",
        "Inference timings in us: Init: 5, First inference: 40, Warmup (avg): 40, Inference (avg): 30",
    ]
    measured = native_output.parse("\n".join(ANDROID + line for line in lines))
    assert (measured.runs, measured.min_ns, measured.max_ns, measured.p95_ns) == (1, 30_000, 30_000, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "count=5 min=1 max=2\n",
        NEW.replace("Inference timings in us", "Timings"),
        NEW.replace("count=", "n="),
        OLD.replace("min=2727568 ", ""),
        NEW.replace("max=20356", "max=nan"),
        NEW.replace("count=337", "count=0"),
        NEW.replace("Init: 6395", "Init: 1e999"),
    ],
)
def test_other_output_is_refused(text: str) -> None:
    with pytest.raises(AgentError) as caught:
        native_output.parse(text)
    assert caught.value.code == "EQ561"


def build(device: Any, data: bytes) -> Any:
    return device.call("runtime", digest=RUNTIME, wheels=[], native={"sha256": device.put(data)})


@pytest.fixture
def phone(ready: Any, int8_bundle: Any) -> Any:
    """A device whose runtime is the program, with a bundle sent."""
    build(ready, benchmark_model()).result  # noqa: B018 - asserts success
    int8_bundle.send(ready)
    return ready


def test_the_program_is_tested_and_stored_by_its_digest(ready: Any) -> None:
    data = benchmark_model()
    result = build(ready, data).result
    assert (result["module"], result["created"]) == ("benchmark_model", True)
    assert result["version"] == hashlib.sha256(data).hexdigest()[:12]
    assert os.access(result["interpreter"], os.X_OK)
    assert build(ready, data).result["created"] is False
    assert RUNTIME in [known["digest"] for known in ready.call("probe").result["runtimes"]]
    assert list((ready.home / "tmp").iterdir()) == []


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("data", "code", "why"),
    [
        (b"\x7fELF of another processor", "EQ503", "does not start here"),
        (b"#!/bin/sh\necho hello\n", "EQ561", "not what TFLite's benchmark_model prints"),
        (b"#!/bin/sh\necho no such model\nexit 3\n", "EQ503", "exit status 3: no such model"),
        (b"#!/bin/sh\nkill -4 $$\n", "EQ503", "killed by signal 4"),
    ],
)
def test_another_program_is_refused_and_remembered(ready: Any, data: bytes, code: str, why: str) -> None:
    error = build(ready, data).error
    assert error["code"] == code
    assert why in error["problem"]
    (refused,) = ready.call("probe").result["refused_runtimes"]
    assert refused["digest"] == RUNTIME
    assert RUNTIME not in [known["digest"] for known in ready.call("probe").result["runtimes"]]


def test_a_program_that_hangs_ends_at_the_deadline(ready: Any) -> None:
    sha = ready.put(b"#!/bin/sh\nsleep 1000\n")
    error = ready.call("runtime", digest=RUNTIME, wheels=[], native={"sha256": sha}, timeout_s=1.5).error
    assert error["code"] == "EQ511"


@pytest.mark.slow
def test_it_runs_the_model_for_the_cpu_of_a_bundle_that_has_two(phone: Any, kit: Any) -> None:
    files = {"model.tflite": compiled_models.compiled(), "golden.npz": b"", "reference.json": b"{}"}
    alone = kit.bundle_from(files, samples=1, name="tiny")
    alone.send(phone)
    error = phone.call("activate", **alone.request(runtime=RUNTIME)).error
    assert (error["code"], "--with-cpu" in error["hint"]) == ("EQ560", True)
    files["model-cpu.tflite"] = compiled_models.source()
    fallback = {"fallback": {"file": "model-cpu.tflite"}}
    both = kit.bundle_from(files, samples=1, name="tiny", change=lambda body: body.update(fallback))
    both.send(phone)
    assert phone.call("activate", **both.request(runtime=RUNTIME)).result["health"]["runs"] == 50
    assert phone.call("bench", model="tiny", runs=5, min_seconds=0.01).result["runs"] >= 5


@pytest.mark.slow
def test_the_health_check_says_only_that_a_release_ran(phone: Any, int8_bundle: Any) -> None:
    answer = phone.call("activate", **int8_bundle.request(runtime=RUNTIME)).result
    assert answer["health"]["proof"] == "ran"
    assert answer["health"]["golden"] == {"samples": 0, "checked": False}
    assert answer["health"]["runs"] == 50
    assert answer["health"]["latency_of"] == "p95"
    assert answer["health"]["memory_peak_bytes"] > 1_000_000
    assert phone.call("status").result["models"]["tiny"]["proof"] == "ran"
    assert phone.call("activate", **int8_bundle.request()).result["health"]["proof"] == "golden"
    assert phone.call("status").result["models"]["tiny"]["proof"] == "golden"


def test_a_model_that_does_not_load_is_refused_by_the_health_check(
    phone: Any, int8_bundle: Any, kit: Any
) -> None:
    broken = kit.bundle_from({**int8_bundle.files, "model.tflite": b"no model"}, samples=20, name="tiny")
    broken.send(phone)
    error = phone.call("activate", **broken.request(runtime=RUNTIME)).error
    assert error["code"] == "EQ504"
    assert "Failed to load model" in error["problem"]
    assert phone.current("tiny") is None


def test_the_blueprints_limits_apply_to_it_too(phone: Any, int8_bundle: Any, kit: Any) -> None:
    manifest = json.loads(json.dumps(int8_bundle.manifest))
    manifest.setdefault("limits", {})["latency_p95_ns"] = 1
    strict = type(int8_bundle)(manifest=manifest, files=int8_bundle.files)
    error = phone.call("activate", **strict.request(runtime=RUNTIME)).error
    assert error["code"] == "EQ504"
    assert "over the blueprint's latency_p95_max" in error["problem"]


@pytest.mark.slow
@pytest.mark.parametrize("percentiles", [True, False])
def test_its_benchmark_has_its_own_schema(ready: Any, int8_bundle: Any, *, percentiles: bool) -> None:
    build(ready, benchmark_model(percentiles=percentiles)).result  # noqa: B018 - asserts success
    int8_bundle.send(ready)
    health = ready.call("activate", **int8_bundle.request(runtime=RUNTIME)).result["health"]
    assert health["latency_of"] == ("p95" if percentiles else "max")
    body = ready.call("bench", model="tiny", runs=30, min_seconds=0.01, warmup=2).result
    assert body["schema"] == "edgeq.native-bench/1"
    assert body["source"] == "benchmark_model"
    assert body["runs"] == body["latency_ns"]["count"] >= 30
    latency = body["latency_ns"]
    assert 0 < latency["min"] <= latency["mean"] <= latency["max"]
    assert (latency["p50"] is None) is not percentiles
    assert body["init_ns"] > 0


@pytest.mark.slow
def test_inference_is_refused(phone: Any, int8_bundle: Any, tiny_data: Any, kit: Any) -> None:
    phone.call("activate", **int8_bundle.request(runtime=RUNTIME)).result  # noqa: B018
    error = phone.call("infer", kit.npz(input_0=tiny_data[:2]), model="tiny").error
    assert error["code"] == "EQ559"
    assert "gives no outputs" in error["problem"]


@pytest.mark.slow
def test_experiments_are_refused(phone: Any, int8_bundle: Any, float_bundle: Any) -> None:
    """It gives no outputs and no telemetry: neither arm of an experiment may depend on it."""
    phone.call("activate", **int8_bundle.request()).result  # noqa: B018
    float_bundle.send(phone)
    error = phone.call("stage", **float_bundle.request(runtime=RUNTIME)).error
    assert (error["code"], "no outputs to compare" in error["problem"]) == ("EQ559", True)
    phone.call("activate", **int8_bundle.request(runtime=RUNTIME)).result  # noqa: B018
    for verb in ("stage", "split"):
        arms = [{"name": "a", "release": int8_bundle.release, "weight": 1}]
        request = {**float_bundle.request(), **({"arms": arms} if verb == "split" else {})}
        assert phone.call(verb, **request).error["code"] == "EQ559"
    entry = phone.call("status").result["models"]["tiny"]
    assert (entry["staged"], entry["split"], entry["attempts"]) == ({}, None, [])


@pytest.mark.slow
def test_an_application_uses_its_own_runtime(phone: Any, int8_bundle: Any, tiny_data: Any) -> None:
    """If the application's Python has a runtime, the SDK checks the release by its outputs."""
    from edgeq_agent import Runtime

    phone.call("activate", **int8_bundle.request(runtime=RUNTIME)).result  # noqa: B018
    with Runtime("tiny", str(phone.home), telemetry=False) as runtime:
        assert runtime.infer(tiny_data[0]) is not None
    assert "benchmark_model" not in sys.modules


@pytest.mark.slow
def test_prune_keeps_the_program_in_use(phone: Any, int8_bundle: Any) -> None:
    phone.call("activate", **int8_bundle.request(runtime=RUNTIME)).result  # noqa: B018
    removed = phone.call("prune").result["removed"]
    assert RUNTIME not in removed["runtimes"]
    assert hashlib.sha256(benchmark_model()).hexdigest() not in removed["blobs"]
    assert phone.call("bench", model="tiny", runs=5, min_seconds=0.01).result["runs"] >= 5
