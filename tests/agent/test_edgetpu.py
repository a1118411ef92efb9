"""The Edge TPU, tested without one: model files, file trees, and a library that only has its name."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.inference.edgetpu import is_compiled
from edgeq_agent.platforms import edgetpu
from edgeq_agent.platforms.registry import platform_of

MARK = b"edgetpu-custom-op"

# A delegate that takes no operation, laid out as TfLiteDelegate; flag 1 allows tensors of any size.
_PLUGIN = """
#include <stdio.h>
#include <stdlib.h>
struct delegate { void *data; int (*prepare)(void *, struct delegate *); void *rest[3]; long flags[4]; };
static int prepare(void *context, struct delegate *self) {
    fprintf(stderr, "stand-in prepared\\n");
    return 0;
}
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    struct delegate *made = calloc(1, sizeof *made);
    made->prepare = prepare;
    made->flags[0] = 1;
    return made;
}
void tflite_plugin_destroy_delegate(void *made) { free(made); }
"""


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


@pytest.fixture
def compiled(int8_bundle: Any, kit: Any) -> Any:
    """A bundle whose model says that it was compiled; what follows a model's own bytes is not read."""
    files = {**int8_bundle.files, "model.tflite": int8_bundle.files["model.tflite"] + MARK}
    return kit.bundle_from(files, samples=20, name="tiny")


@pytest.mark.convert
def test_without_the_library_a_compiled_model_is_refused_by_name(ready: Any, compiled: Any) -> None:
    compiled.send(ready)
    error = ready.call("activate", **compiled.request()).error
    assert error["code"] == "EQ560"
    assert "compiled for the Edge TPU" in error["problem"]
    assert "libedgetpu.so.1" in error["problem"]
    assert "install libedgetpu" in error["hint"]
    assert ready.current("tiny") is None


@pytest.mark.slow
@pytest.mark.convert
def test_a_compiled_model_gets_the_delegate_by_its_name(ready: Any, compiled: Any, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    source = tmp_path / "plugin.c"
    source.write_text(_PLUGIN)
    library = tmp_path / "libedgetpu.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    environment = {**ready.environment, "LD_LIBRARY_PATH": str(tmp_path)}
    coral = dataclasses.replace(ready, environment=environment)
    compiled.send(coral)
    answered = coral.call("activate", **compiled.request())
    assert answered.result["health"]["kernels"] == "edgetpu"
    assert "stand-in prepared" in answered.stderr, "the runtime handed the model to it"
    assert coral.call("bench", model="tiny", runs=5, min_seconds=0.01).result["kernels"] == "edgetpu"
