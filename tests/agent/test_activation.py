"""Activate and roll back with real models: a healthy release serves; an unhealthy one changes nothing."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

pytestmark = pytest.mark.convert


def test_a_healthy_release_serves(serving: Any, int8_bundle: Any) -> None:
    status = serving.call("status").result
    model = status["models"]["tiny"]
    assert model["current"] == int8_bundle.release == serving.current("tiny")
    assert model["state"] == "committed"
    assert model["previous"] is None
    assert model["releases"] == [int8_bundle.release]
    states = [entry["state"] for entry in status["journal"] if entry["event"] == "state"]
    assert states == ["staged", "verified", "activating", "committed"]


@pytest.mark.slow
def test_the_response_has_health_and_states(ready: Any, int8_bundle: Any) -> None:
    int8_bundle.send(ready)
    answered = ready.call("activate", **int8_bundle.request())
    result = answered.result
    assert result["states"] == ["staged", "verified", "activating", "committed"]
    assert [event["step"] for event in answered.of("progress")] == result["states"]
    assert result["previous"] is None
    golden = result["health"]["golden"]
    assert golden["samples"] == 20
    assert golden["worst_steps"] == 0
    assert golden["max_steps"] == 1
    assert result["health"]["memory_peak_bytes"] > 1_000_000
    assert result["health"]["latency_p95_ns"] > 0


def test_a_second_activation_changes_nothing(serving: Any, int8_bundle: Any) -> None:
    before = (serving.home / "models" / "tiny" / "state.json").read_bytes()
    result = serving.call("activate", **int8_bundle.request()).result
    assert result["changed"] is False
    assert result["states"] == []
    assert result["health"]["golden"]["samples"] == 20
    assert (serving.home / "models" / "tiny" / "state.json").read_bytes() == before


def test_rollback_returns_to_the_previous_release_and_no_further(
    serving: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    assert serving.call("rollback", model="tiny").error["code"] == "EQ507"
    float_bundle.send(serving)
    activated = serving.call("activate", **float_bundle.request()).result
    assert activated["previous"] == int8_bundle.release
    assert serving.call("status").result["models"]["tiny"]["previous"] == int8_bundle.release
    rolled = serving.call("rollback", model="tiny").result
    assert rolled["release"] == int8_bundle.release == serving.current("tiny")
    assert rolled["previous"] == float_bundle.release
    assert rolled["changed"] is True
    assert serving.call("rollback", model="tiny").error["code"] == "EQ507"


@pytest.mark.slow
def test_rollback_from_a_named_release_is_idempotent(
    serving: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]
    request = {"model": "tiny", "from": float_bundle.release}
    assert serving.call("rollback", **request).result["changed"] is True
    again = serving.call("rollback", **request).result
    assert again["changed"] is False
    assert again["release"] == int8_bundle.release


def test_rollback_of_an_unknown_model(ready: Any) -> None:
    assert ready.call("rollback", model="nobody").error["code"] == "EQ510"


def test_wrong_golden_outputs_leave_the_previous_release(
    serving: Any, int8_bundle: Any, float_bundle: Any, tiny_data: Any, kit: Any
) -> None:
    files = {**int8_bundle.files, "golden.npz": _shifted_golden(int8_bundle, kit, steps=2)}
    bad = kit.bundle_from(files, samples=20, name="tiny")
    bad.send(serving)
    error = serving.call("activate", **bad.request()).error
    assert error["code"] == "EQ504"
    assert error["expected"] == "at most 1 steps"
    assert serving.current("tiny") == int8_bundle.release
    model = serving.call("status").result["models"]["tiny"]
    assert model["state"] == "rolled_back"
    assert "EQ504" in model["reason"]
    assert serving.call("infer", kit.npz(input_0=tiny_data[:3]), model="tiny").result["samples"] == 3
    float_bundle.send(serving)
    assert serving.call("activate", **float_bundle.request()).result["changed"]


@pytest.mark.first_is_quick
@pytest.mark.parametrize(("steps", "healthy"), [(1, True), (2, False)])
def test_the_manifest_sets_the_tolerance(
    ready: Any, int8_bundle: Any, kit: Any, steps: int, healthy: bool
) -> None:
    files = {**int8_bundle.files, "golden.npz": _shifted_golden(int8_bundle, kit, steps=steps)}
    bundle = kit.bundle_from(files, samples=20, name="tiny")
    bundle.send(ready)
    answered = ready.call("activate", **bundle.request())
    assert answered.last["event"] == ("result" if healthy else "error")
    assert (ready.current("tiny") == bundle.release) is healthy


@pytest.mark.slow
def test_the_same_runtime_and_machine_must_be_exact(ready: Any, int8_bundle: Any, kit: Any) -> None:
    version = ready.call("probe").result["runtimes"][0]["version"]

    def same(manifest: dict[str, Any]) -> None:
        manifest["golden"]["runtime"] = {
            "module": "ai_edge_litert",
            "version": version,
            "machine": os.uname().machine,
        }

    files = {**int8_bundle.files, "golden.npz": _shifted_golden(int8_bundle, kit, steps=1)}
    shifted = kit.bundle_from(files, samples=20, name="tiny", change=same)
    shifted.send(ready)
    error = ready.call("activate", **shifted.request()).error
    assert (error["code"], error["expected"], error["got"]) == ("EQ504", "at most 0 steps", "1 steps")
    exact = kit.bundle_from(int8_bundle.files, samples=20, name="tiny", change=same)
    exact.send(ready)
    assert ready.call("activate", **exact.request()).result["health"]["golden"]["exact"] is True


@pytest.mark.slow
def test_float_outputs_are_compared_with_the_tolerance(ready: Any, float_bundle: Any, kit: Any) -> None:
    golden = _arrays(float_bundle)
    files = {
        **float_bundle.files,
        "golden.npz": kit.npz(input_0=golden["input_0"], output_0=golden["output_0"] + 0.01),
    }
    bad = kit.bundle_from(files, samples=20, name="tiny")
    bad.send(ready)
    error = ready.call("activate", **bad.request()).error
    assert error["code"] == "EQ504"
    assert error["got"].startswith("an error of 0.01")


@pytest.mark.first_is_quick
@pytest.mark.parametrize(("limit", "value"), [("latency_p95_ns", 1), ("memory_peak_bytes", 1000)])
def test_a_release_over_the_blueprints_limits_is_unhealthy(
    ready: Any, int8_bundle: Any, kit: Any, limit: str, value: int
) -> None:
    bundle = kit.bundle_from(
        int8_bundle.files, samples=20, name="tiny", change=lambda body: body["limits"].update({limit: value})
    )
    bundle.send(ready)
    error = ready.call("activate", **bundle.request()).error
    assert error["code"] == "EQ504"
    key = limit.replace("_ns", "_max").replace("_bytes", "_max")
    assert f"over the blueprint's {key} on this device" == error["problem"]
    assert ready.current("tiny") is None


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"no model at all", b""])
def test_a_file_that_is_not_a_model_is_refused(
    serving: Any, int8_bundle: Any, kit: Any, content: bytes
) -> None:
    bad = kit.bundle_from({**int8_bundle.files, "model.tflite": content}, samples=20, name="tiny")
    bad.send(serving)
    assert serving.call("activate", **bad.request()).error["code"] == "EQ504"
    assert serving.current("tiny") == int8_bundle.release


@pytest.mark.slow
def test_a_truncated_model_is_refused(serving: Any, int8_bundle: Any, kit: Any) -> None:
    cut = int8_bundle.files["model.tflite"][:1500]
    bad = kit.bundle_from({**int8_bundle.files, "model.tflite": cut}, samples=20, name="tiny")
    bad.send(serving)
    assert serving.call("activate", **bad.request()).error["code"] == "EQ504"
    assert serving.current("tiny") == int8_bundle.release


def test_a_missing_blob_is_named(ready: Any, int8_bundle: Any) -> None:
    for name, data in int8_bundle.files.items():
        if name != "golden.npz":
            ready.put(data)
    error = ready.call("activate", **int8_bundle.request()).error
    assert error["code"] == "EQ509"
    assert "golden.npz" in error["subject"]


@pytest.mark.slow
def test_a_damaged_blob_is_removed_and_named(ready: Any, int8_bundle: Any) -> None:
    int8_bundle.send(ready)
    sha = int8_bundle.manifest["files"]["model.tflite"]["sha256"]
    blob = ready.home / "blobs" / "sha256" / sha
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.write_bytes(data)
    error = ready.call("activate", **int8_bundle.request()).error
    assert error["code"] == "EQ509"
    assert "damaged" in error["problem"]
    assert not blob.exists()
    int8_bundle.send(ready)
    assert ready.call("activate", **int8_bundle.request()).result["changed"]


def test_an_altered_manifest_is_refused(ready: Any, int8_bundle: Any, kit: Any) -> None:
    request = int8_bundle.request(manifest={**int8_bundle.manifest, "variant": "other"})
    assert ready.call("activate", **request).error["code"] == "EQ534"
    request["signatures"] = [kit.signature_of(request["manifest"])]
    assert ready.call("activate", **request).error["code"] == "EQ505"


@pytest.mark.slow
def test_a_release_for_another_kind_of_device_is_refused(ready: Any, int8_bundle: Any, kit: Any) -> None:
    bundle = kit.bundle_from(
        int8_bundle.files,
        samples=20,
        name="tiny",
        change=lambda body: body["requires"].update(kinds=["coral"]),
    )
    bundle.send(ready)
    error = ready.call("activate", **bundle.request()).error
    assert (error["code"], error["expected"]) == ("EQ503", "coral")
    assert ready.call("activate", **bundle.request(kind="coral")).result["changed"]


def test_a_release_that_needs_more_space_is_refused(ready: Any, int8_bundle: Any, kit: Any) -> None:
    bundle = kit.bundle_from(
        int8_bundle.files,
        samples=20,
        name="tiny",
        change=lambda body: body["requires"].update(free_bytes=1 << 47),
    )
    bundle.send(ready)
    assert ready.call("activate", **bundle.request()).error["code"] == "EQ501"


def test_a_missing_runtime_is_refused(ready: Any, int8_bundle: Any) -> None:
    int8_bundle.send(ready)
    error = ready.call("activate", **int8_bundle.request(runtime="0" * 64)).error
    assert error["code"] == "EQ503"


@pytest.mark.first_is_quick
@pytest.mark.parametrize("damage", ["{", "[]", '{"state": "elsewhere"}'])
def test_a_damaged_state_file_does_not_stop_the_next_deploy(
    serving: Any, int8_bundle: Any, damage: str
) -> None:
    (serving.home / "models" / "tiny" / "state.json").write_text(damage)
    model = serving.call("status").result["models"]["tiny"]
    assert model["current"] == int8_bundle.release
    assert model["reason"] == "state.json was damaged; this state was rebuilt"
    assert not serving.call("activate", **int8_bundle.request()).result["changed"]
    assert serving.call("status").result["models"]["tiny"]["state"] == "committed"


def test_only_the_owner_can_read_the_folders(serving: Any) -> None:
    for folder, _, files in os.walk(serving.home):
        assert os.stat(folder).st_mode & 0o077 == 0, folder
        for name in files:
            assert os.lstat(os.path.join(folder, name)).st_mode & 0o777 in (0o600, 0o777), name


def test_no_partial_files_are_left(serving: Any) -> None:
    assert list((serving.home / "tmp").iterdir()) == []
    stored = json.loads((serving.home / "models" / "tiny" / "state.json").read_text())
    assert stored["pinned"] == [stored["target"]]


def _arrays(bundle: Any) -> dict[str, Any]:
    import io

    import numpy as np

    with np.load(io.BytesIO(bundle.files["golden.npz"])) as loaded:
        return {name: loaded[name] for name in loaded.files}


def _shifted_golden(bundle: Any, kit: Any, *, steps: int) -> bytes:
    import numpy as np

    golden = _arrays(bundle)
    output = golden["output_0"].astype(np.int32)
    shifted = np.where(output > 0, output - steps, output + steps).astype(np.int8)
    packed: bytes = kit.npz(input_0=golden["input_0"], output_0=shifted)
    return packed
