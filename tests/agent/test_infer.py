"""Inference on the device gives the host's outputs, counts errors by kind and stores windows."""

from __future__ import annotations

import io
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert


def _windows(device: Any, **request: Any) -> list[dict[str, Any]]:
    answered = device.call("telemetry", **request)
    assert answered.result["sent"] == len(answered.of("window"))
    return [event["window"] for event in answered.of("window")]


def test_real_values_are_quantized(serving: Any, tiny_models: Any, tiny_data: Any, kit: Any) -> None:
    samples = tiny_data[:120]
    result = serving.call("infer", kit.npz(input_0=samples), model="tiny", outputs=True).result
    _, expected = kit.run_here(tiny_models / "int8.tflite", samples)
    assert result["samples"] == 120
    assert result["predicted"] == expected.argmax(axis=1).tolist()
    real = (expected.astype(float) + 128) / 256
    np.testing.assert_allclose(result["outputs"], real, atol=1e-9)
    np.testing.assert_allclose(result["confidence"], real.max(axis=1), atol=1e-9)
    assert result["errors"] == {}
    assert result["windows"] == 3
    assert 0 < result["latency_ns"]["p50"] <= result["latency_ns"]["p95"] <= result["latency_ns"]["max"]
    assert result["kernels"] in ("xnnpack", "builtin", "unknown")


def test_the_models_own_integers_are_used_as_they_are(
    serving: Any, tiny_models: Any, tiny_data: Any, kit: Any
) -> None:
    quantized, expected = kit.run_here(tiny_models / "int8.tflite", tiny_data[:10])
    result = serving.call("infer", kit.npz(input_0=quantized), model="tiny").result
    assert result["predicted"] == expected.argmax(axis=1).tolist()


@pytest.mark.slow
def test_other_dtypes_are_real_values(ready: Any, float_bundle: Any, tiny_models: Any, kit: Any) -> None:
    float_bundle.send(ready)
    assert ready.call("activate", **float_bundle.request()).result["changed"]
    samples = np.random.default_rng(1).integers(0, 3, (8, 6, 6, 2)).astype(np.uint8)
    _, expected = kit.run_here(tiny_models / "float.tflite", samples.astype(np.float32))
    result = ready.call("infer", kit.npz(input_0=samples), model="tiny", outputs=True).result
    np.testing.assert_allclose(result["outputs"], expected, atol=1e-6)


def test_windows_count_inputs_and_outputs(
    serving: Any, int8_bundle: Any, tiny_models: Any, tiny_data: Any, kit: Any
) -> None:
    samples = tiny_data[:70]
    serving.call("infer", kit.npz(input_0=samples), model="tiny", window=50).result  # noqa: B018
    first, second = _windows(serving)
    assert [first["seq"], second["seq"]] == [1, 2]
    assert [first["inferences"], second["inferences"]] == [50, 20]
    for window in (first, second):
        assert window["schema"] == "edgeq.window/1"
        assert (window["model"], window["release"]) == ("tiny", int8_bundle.release)
        assert window["boot"].count(":") == 1
        assert window["latency"]["count"] == sum(window["latency"]["counts"].values()) == window["inferences"]
        assert window["latency"]["min_ns"] <= window["latency"]["max_ns"] <= window["latency"]["sum_ns"]
        assert window["started_ns"] < window["ended_ns"]
        assert window["memory_peak_bytes"] > 1_000_000
    reference = kit.reference_of(tiny_data, classes=3, channels=2)
    means = samples[:50].astype(np.float64).reshape(50, -1, 2).mean(axis=1)
    for channel in range(2):
        edges = reference["inputs"][0]["channels"][channel]["edges"]
        expected = np.histogram(np.clip(means[:, channel], edges[0], edges[-1]), edges)[0]
        assert first["inputs"][0]["channels"][channel] == expected.tolist()
    _, outputs = kit.run_here(tiny_models / "int8.tflite", samples[:50])
    assert first["output"]["predicted"] == np.bincount(outputs.argmax(axis=1), minlength=3).tolist()
    confidence = (outputs.max(axis=1).astype(float) + 128) / 256
    assert first["output"]["confidence"] == np.histogram(confidence, [0, 0.2, 0.4, 0.6, 0.8, 1.0])[0].tolist()


def test_samples_that_are_not_finite_are_errors(serving: Any, tiny_data: Any, kit: Any) -> None:
    samples = tiny_data[:10].copy()
    samples[3, 0, 0, 0] = np.nan
    samples[7, 0, 0, 0] = np.inf
    result = serving.call("infer", kit.npz(input_0=samples), model="tiny").result
    assert result["errors"] == {"input_not_finite": 2}
    assert [row for row, predicted in enumerate(result["predicted"]) if predicted == -1] == [3, 7]
    (window,) = _windows(serving)
    assert window["errors"] == {"input_not_finite": 2}
    assert (window["inferences"], window["latency"]["count"]) == (10, 8)
    assert sum(window["output"]["predicted"]) == 8
    assert sum(window["inputs"][0]["channels"][0]) == 8


def test_a_payload_without_any_finite_sample(serving: Any, kit: Any) -> None:
    result = serving.call("infer", kit.npz(input_0=np.full((3, 6, 6, 2), np.nan)), model="tiny").result
    assert result["predicted"] == [-1, -1, -1]
    assert result["latency_ns"] == {"p50": None, "p95": None, "max": None}


@pytest.mark.slow
def test_outputs_that_are_not_finite(ready: Any, tiny_models: Any, tiny_data: Any, kit: Any) -> None:
    reference = kit.reference_of(tiny_data, classes=3, channels=2)
    bundle = kit.bundle_of(tiny_models / "sum.tflite", tiny_data[:5], reference, name="sum")
    bundle.send(ready)
    assert ready.call("activate", **bundle.request()).result["changed"]
    samples = np.zeros((2, 6, 6, 2), np.float32)
    samples[1] = 3e38  # the sum of 72 of them is over the largest float32
    result = ready.call("infer", kit.npz(input_0=samples), model="sum").result
    assert result["errors"] == {"output_not_finite": 1}
    assert (result["predicted"][1], result["confidence"][1]) == (-1, 0.0)
    (window,) = _windows(ready)
    assert (window["inferences"], window["latency"]["count"], sum(window["output"]["predicted"])) == (2, 2, 1)


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("arrays", "subject"),
    [
        ({}, "payload"),
        ({"x": np.zeros((1, 6, 6, 2))}, "payload"),
        ({"input_0": np.zeros((1, 6, 6, 3))}, "payload input_0"),
        ({"input_0": np.zeros((0, 6, 6, 2))}, "payload input_0"),
        ({"input_0": np.zeros(())}, "payload input_0"),
        ({"input_0": np.full((1, 6, 6, 2), "text")}, "payload input_0"),
    ],
)
def test_a_payload_that_does_not_fit_the_model_is_refused(
    serving: Any, kit: Any, arrays: Any, subject: str
) -> None:
    error = serving.call("infer", kit.npz(**arrays), model="tiny").error
    assert (error["code"], error["subject"]) == ("EQ512", subject)


def test_a_payload_that_is_not_an_npz_is_refused(serving: Any, kit: Any) -> None:
    assert serving.call("infer", b"no zip", model="tiny").error["code"] == "EQ512"
    pickled = io.BytesIO()
    np.savez(pickled, input_0=np.array([object()]))
    assert serving.call("infer", pickled.getvalue(), model="tiny").error["code"] == "EQ512"
    assert list((serving.home / "tmp").iterdir()) == []


def test_a_payload_that_unpacks_to_too_many_bytes_is_refused(tmp_path: Path, kit: Any) -> None:
    from edgeq_agent import errors
    from edgeq_agent.inference import npz

    path = tmp_path / "payload.npz"
    path.write_bytes(kit.npz(input_0=np.zeros(1000)))
    assert len(npz.open_npz(str(path), "payload")["input_0"]) == 1000
    with pytest.raises(errors.AgentError, match="unpacks to 8128 bytes"):
        npz.open_npz(str(path), "payload", limit_bytes=8000)


def test_a_truncated_payload_is_refused(serving: Any) -> None:
    answered = serving.raw("infer", b'{"model": "tiny", "payload_bytes": 1000}\nshort')
    assert answered.error["code"] == "EQ506"


def test_a_model_without_a_release_is_refused(ready: Any) -> None:
    (ready.home / "models" / "refused").mkdir()  # was tried, never served
    error = ready.call("infer", b"x", model="refused").error
    assert (error["code"], error["expected"]) == ("EQ510", None)


def test_the_error_names_the_models_that_serve(serving: Any) -> None:
    error = serving.call("infer", b"x", model="nobody").error
    assert (error["code"], error["expected"]) == ("EQ510", "one of tiny")


@pytest.mark.slow
def test_a_reference_that_does_not_fit_is_refused_at_activation(
    ready: Any, int8_bundle: Any, tiny_data: Any, kit: Any
) -> None:
    from edgeq_agent import wire

    good = kit.reference_of(tiny_data, classes=3, channels=2)
    other = {"inputs": [{"name": "x", "channels": good["inputs"][0]["channels"] * 2}]}
    for changes in (other, {"schema": "edgeq.reference/9"}, {"inputs": [{"channels": [{"edges": [1]}]}]}):
        files = {**int8_bundle.files, "reference.json": wire.canonical({**good, **changes})}
        bad = kit.bundle_from(files, samples=20, name="tiny")
        bad.send(ready)
        error = ready.call("activate", **bad.request()).error
        assert (error["code"], error["subject"]) == ("EQ504", "reference")


@pytest.mark.slow
def test_a_full_disk_loses_telemetry_but_not_the_result(serving: Any, tiny_data: Any, kit: Any) -> None:
    assert serving.call("infer", kit.npz(input_0=tiny_data[:5]), model="tiny").result["windows"] == 1

    def limit() -> None:  # no file may grow beyond 4 KiB: the payload fits, the outbox's journal does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    payload = kit.npz(input_0=tiny_data[:5])
    request = json.dumps({"model": "tiny", "payload_bytes": len(payload)}).encode() + b"\n"
    result = serving.raw("infer", request + payload, preexec_fn=limit).result
    assert (result["samples"], result["windows"]) == (5, 0)
    assert "not stored" in result["telemetry_problem"]
    assert serving.call("telemetry").result["sent"] == 1


def test_a_benchmark_reports_ordered_latencies(serving: Any, int8_bundle: Any) -> None:
    body = serving.call("bench", model="tiny", runs=50, min_seconds=0.1, warmup=2).result
    assert body["schema"] == "edgeq.bench/1"
    assert (body["model"], body["release"]) == ("tiny", int8_bundle.release)
    latency = body["latency_ns"]
    assert body["runs"] == latency["count"] >= 50
    assert body["duration_s"] >= 0.1
    assert (
        latency["min"]
        <= latency["p50"]
        <= latency["p90"]
        <= latency["p95"]
        <= latency["p99"]
        <= latency["max"]
    )
    assert latency["p50_ci95"][0] <= latency["p50"] <= latency["p50_ci95"][1]
    assert latency["min"] <= latency["mean"] <= latency["max"]
    assert body["init_ns"] > 0
    assert body["first_inference_ns"] > 0
    assert body["memory"]["peak_bytes"] > body["memory"]["before_model_bytes"] > 0
    assert body["runtime"]["module"] == "ai_edge_litert"
    assert body["threads"] == 1
    assert set(body["environment"]) == {"before", "after"}
    assert isinstance(body["invalid"], list)


@pytest.mark.slow
def test_a_benchmark_stops_before_its_deadline_with_a_warning(serving: Any) -> None:
    for timeout_s in (2, 5, 12, 30):  # on a busy machine the runtime alone takes seconds to start
        answered = serving.call("bench", model="tiny", runs=1_000_000, min_seconds=0.1, timeout_s=timeout_s)
        if answered.last["event"] == "result":
            break
        assert answered.error["code"] == "EQ511"
    body = answered.result
    assert 0 < body["runs"] < 1_000_000
    assert any("until the deadline" in warning for warning in body["warnings"])


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_keyword_spotter(ready: Any, kit: Any) -> None:
    with np.load(kit.SHARED / "kws" / "evaluation.npz") as loaded:
        x, y = loaded["x"], loaded["y"]
    model = kit.SHARED / "kws" / "kws_ref_model.tflite"
    bundle = kit.bundle_of(model, x[:30], kit.reference_of(x, classes=12, channels=1), name="kws")
    bundle.send(ready)
    assert ready.call("activate", **bundle.request()).result["health"]["golden"]["worst_steps"] == 0
    result = ready.call("infer", kit.npz(input_0=x), model="kws").result
    predicted = np.array(result["predicted"])
    assert predicted.tolist() == kit.run_here(model, x)[1].argmax(axis=1).tolist()
    assert float(np.mean(predicted == y)) > 0.89
    assert result["windows"] == 18
    assert sum(window["inferences"] for window in _windows(ready)) == 900
