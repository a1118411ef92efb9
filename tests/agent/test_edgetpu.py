"""The Edge TPU, tested without one: model files, file trees, and a library that only has its name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_agent import Runtime, wire
from edgeq_agent.errors import AgentError
from edgeq_agent.inference.edgetpu import is_compiled
from edgeq_agent.platforms import edgetpu
from edgeq_agent.platforms.registry import platform_of
from edgeq_agent.releases import manifest
from tests import compiled_models
from tests.once import Once

MARK = b"edgetpu-custom-op"


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_a_device_without_library_and_accelerator_has_none(tmp_path: Path) -> None:
    assert edgetpu.detect(platform_of(str(tmp_path))) is None


def test_a_library_that_does_not_load_is_reported_with_the_reason(tmp_path: Path) -> None:
    root = tree(tmp_path, {"usr/lib/aarch64-linux-gnu/libedgetpu.so.1": "no library", "dev/apex_0": ""})
    detected = edgetpu.detect(platform_of(root))
    assert detected is not None
    assert detected.library == "/usr/lib/aarch64-linux-gnu/libedgetpu.so.1"
    assert "invalid ELF header" in str(detected.problem) or "too short" in str(detected.problem)
    assert detected.devices == ("/dev/apex_0",)


def test_a_usb_accelerator_without_its_library(tmp_path: Path) -> None:
    usb = "sys/bus/usb/devices"
    files = {
        f"{usb}/1-1/idVendor": "18d1\n",
        f"{usb}/1-1/idProduct": "9302\n",
        f"{usb}/1-2/idVendor": "18d1\n",
        f"{usb}/1-2/idProduct": "4ee7\n",
    }
    detected = edgetpu.detect(platform_of(tree(tmp_path, files)))
    assert detected is not None
    assert detected.to_json() == {
        "library": None,
        "loads": False,
        "problem": "there is no libedgetpu.so.1",
        "devices": ["usb 18d1:9302"],
    }


@pytest.mark.parametrize("before", [0, 1, 1024 * 1024 - 5, 1024 * 1024, 3 * 1024 * 1024 - 16])
def test_a_compiled_model_is_recognized_wherever_its_operation_is(tmp_path: Path, before: int) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"a" * before + MARK + b"b" * 100)
    assert is_compiled(str(path))
    path.write_bytes(b"a" * before + MARK[:-1] + b"b" * 100)
    assert not is_compiled(str(path))


@pytest.fixture(scope="session")
def edgetpu_library(once: Once) -> Path:
    """Return a folder with the stand-in of libedgetpu."""
    if compiled_models.c_compiler() is None:
        pytest.skip("there is no C compiler here")
    return once.folder("edgetpu-stand-in", compiled_models.build_library)


@pytest.fixture
def coral(ready: Any, edgetpu_library: Path) -> Any:
    """Return a device with the stand-in of libedgetpu."""
    environment = {**ready.environment, "LD_LIBRARY_PATH": str(edgetpu_library)}
    return dataclasses.replace(ready, environment=environment)


def _bundle(kit: Any, *, with_cpu: bool = False, shift: int = 0) -> Any:
    """Return the bundle of a compiled model, whose operation adds `shift` steps to what the CPU computes."""
    integers = np.arange(-40, 40, dtype=np.int8).reshape(20, 4)
    reference = {"schema": wire.REFERENCE_SCHEMA, "inputs": [], "output": {"classes": 4}}
    files = {
        "model.tflite": compiled_models.compiled(shift=shift),
        "golden.npz": kit.npz(input_0=integers, output_0=integers),
        "reference.json": wire.canonical(reference),
    }
    changes: dict[str, Any] = {"labels": ["a", "b", "c", "d"]}
    if with_cpu:
        files["model-cpu.tflite"] = compiled_models.source()
        changes["fallback"] = {"file": "model-cpu.tflite"}
    return kit.bundle_from(files, samples=20, name="tiny", change=lambda body: body.update(changes))


@pytest.mark.convert
def test_without_the_library_a_compiled_model_is_refused_by_name(ready: Any, kit: Any) -> None:
    bundle = _bundle(kit)
    bundle.send(ready)
    error = ready.call("activate", **bundle.request()).error
    assert error["code"] == "EQ560"
    assert "compiled for the Edge TPU" in error["problem"]
    assert "libedgetpu.so.1" in error["problem"]
    assert "install libedgetpu" in error["hint"]
    assert ready.current("tiny") is None


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.parametrize("with_cpu", [False, True])
def test_a_compiled_model_runs_on_the_accelerator(coral: Any, kit: Any, with_cpu: bool) -> None:
    # The operation of the stand-in differs from the CPU by a step, so that its answers show who ran them.
    bundle = _bundle(kit, with_cpu=with_cpu, shift=1)
    bundle.send(coral)
    answered = coral.call("activate", **bundle.request())
    health = answered.result["health"]
    assert (health["kernels"], health["golden"]["worst_steps"]) == ("edgetpu", 1)
    assert coral.call("bench", model="tiny", runs=5, min_seconds=0.01).result["kernels"] == "edgetpu"
    sample = np.array([[1, 2, 3, 4]], np.int8)
    done = coral.call("infer", kit.npz(input_0=sample), model="tiny", outputs=True).result
    assert done["kernels"] == "edgetpu"
    assert done["outputs"] == [[(value + 1) * compiled_models.OUT for value in (1, 2, 3, 4)]]


@pytest.mark.convert
@pytest.mark.slow
def test_wrong_answers_of_the_accelerator_are_refused_even_with_a_model_for_the_cpu(
    coral: Any, kit: Any
) -> None:
    bundle = _bundle(kit, with_cpu=True, shift=5)
    bundle.send(coral)
    error = coral.call("activate", **bundle.request()).error
    assert (error["code"], error["got"]) == ("EQ504", "5 steps")


@pytest.mark.convert
@pytest.mark.slow
def test_the_model_for_the_cpu_serves_where_no_accelerator_is(ready: Any, kit: Any) -> None:
    bundle = _bundle(kit, with_cpu=True, shift=1)
    bundle.send(ready)
    health = ready.call("activate", **bundle.request()).result["health"]
    assert (health["golden"]["worst_steps"], health["kernels"] == "edgetpu") == (0, False)
    assert ready.call("bench", model="tiny", runs=5, min_seconds=0.01).result["kernels"] != "edgetpu"
    sample = np.array([1, 2, 3, 4], np.int8)
    with Runtime("tiny", str(ready.home)) as rt:
        np.testing.assert_allclose(rt.infer(sample), sample * np.float32(compiled_models.OUT))
        assert rt.kernels != "edgetpu"
        with rt.session() as session:
            np.testing.assert_array_equal(session.infer(sample), rt.infer(sample))


@pytest.mark.parametrize("wrong", ["absent.tflite", 7, None])
def test_a_manifest_whose_fallback_is_not_a_file_is_refused(kit: Any, wrong: Any) -> None:
    bundle = _bundle(kit, with_cpu=True)
    document = {**bundle.manifest, "fallback": {"file": wrong}}
    if wrong is None:
        assert manifest.parse(document, wire.digest(document)).cpu_file is None
        return
    with pytest.raises(AgentError) as caught:
        manifest.parse(document, wire.digest(document))
    assert caught.value.code == "EQ512"
