"""Runtimes on the device: built from wheels, tested with an inference, refused when they do not work."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.agent.fake_runtime import fake_wheel, wheel_of

DIGEST = hashlib.sha256(b"a runtime of wheels").hexdigest()


def _request(device: Any, data: bytes, **changes: Any) -> dict[str, Any]:
    sha = device.put(data)
    wheel = {"name": "tflite_runtime-9.9-py3-none-any.whl", "sha256": sha}
    return {"digest": DIGEST, "wheels": [wheel], "modules": ["ai_edge_litert", "tflite_runtime"], **changes}


@pytest.mark.first_is_quick
@pytest.mark.parametrize(("name", "shares"), [("tflite_runtime", "true"), ("numpy", "false")])
def test_wheels_without_numpy_use_numpy_of_the_devices_python(device: Any, name: str, shares: str) -> None:
    request = _request(device, fake_wheel())
    request["wheels"][0]["name"] = f"{name}-9.9-py3-none-any.whl"
    result = device.call("runtime", **request).result
    settings = Path(result["interpreter"]).parents[1] / "pyvenv.cfg"
    assert f"include-system-site-packages = {shares}" in settings.read_text()


@pytest.mark.slow
def test_wheels_become_a_tested_venv(device: Any) -> None:
    answered = device.call("runtime", **_request(device, fake_wheel()))
    result = answered.result
    assert (result["module"], result["version"], result["created"]) == ("tflite_runtime", "9.9", True)
    assert result["interpreter"] == str(device.home / "runtime" / DIGEST / "venv" / "bin" / "python")
    assert os.access(result["interpreter"], os.X_OK)
    assert [event["step"] for event in answered.of("progress")] == ["venv", "wheels", "proved"]
    again = device.call("runtime", **_request(device, fake_wheel())).result
    assert {**again, "created": True} == result
    assert again["created"] is False
    (known,) = device.call("probe").result["runtimes"]
    assert (known["digest"], known["interpreter"]) == (DIGEST, result["interpreter"])
    assert list((device.home / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_broken_venv_is_rebuilt(device: Any) -> None:
    request = _request(device, fake_wheel())
    result = device.call("runtime", **request).result
    Path(result["interpreter"]).unlink()
    assert device.call("probe").result["runtimes"] == []
    assert device.call("runtime", **request).result["created"] is True


def test_a_lost_module_is_reinstalled(device: Any) -> None:
    request = _request(device, fake_wheel())
    device.call("runtime", **request).result  # noqa: B018
    (module,) = (device.home / "runtime").rglob("tflite_runtime/interpreter.py")
    module.unlink()
    answered = device.call("runtime", **request)
    assert answered.result["created"] is True
    assert answered.of("progress")[0]["step"] == "rebuild"


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (fake_wheel(3), "gives [[3.0, 6.0, 9.0, 12.0]]"),
        (wheel_of({"other/__init__.py": ""}), "No module named"),
        (
            fake_wheel(extra={"tflite_runtime/__init__.py": "raise ImportError('libx.so: wrong ELF')"}),
            "wrong ELF",
        ),
        (
            fake_wheel(extra={"tflite_runtime/__init__.py": "import os; os.kill(os.getpid(), 4)"}),
            "killed by SIGILL",
        ),
    ],
)
def test_a_runtime_that_cannot_infer_is_refused(device: Any, data: bytes, why: str) -> None:
    error = device.call("runtime", **_request(device, data)).error
    assert error["code"] == "EQ556"
    assert why in error["problem"]
    probed = device.call("probe").result
    assert probed["runtimes"] == []
    (refused,) = probed["refused_runtimes"]
    assert refused["digest"] == DIGEST
    assert why in refused["problem"]
    assert list((device.home / "tmp").iterdir()) == []


@pytest.mark.slow
def test_refused_wheels_are_tried_again_after_a_system_upgrade(device: Any) -> None:
    device.call("runtime", **_request(device, fake_wheel(3)))
    path = device.home / "runtime" / DIGEST / "refused.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "system": "before the upgrade"}))
    assert device.call("probe").result["refused_runtimes"] == []
    assert device.call("runtime", **_request(device, fake_wheel())).result["created"] is True
    assert not path.exists()


def test_prune_forgets_refused_runtimes(device: Any) -> None:
    device.call("runtime", **_request(device, fake_wheel(3)))
    assert DIGEST in device.call("prune").result["removed"]["runtimes"]
    assert device.call("probe").result["refused_runtimes"] == []


@pytest.mark.slow
def test_a_failed_rebuild_leaves_the_earlier_runtime(device: Any) -> None:
    request = _request(device, fake_wheel())
    device.call("runtime", **request).result  # noqa: B018 - asserts success
    record = device.home / "runtime" / DIGEST / "runtime.json"
    before = record.read_bytes()
    (site,) = (device.home / "runtime" / DIGEST / "venv" / "lib").glob("python*/site-packages")
    (site / "tflite_runtime" / "interpreter.py").write_text("raise ImportError('a busy moment')")
    other = _request(device, fake_wheel(3))
    assert device.call("runtime", **other).error["code"] == "EQ556"
    assert record.read_bytes() == before
    assert device.call("probe").result["refused_runtimes"] == []


@pytest.mark.slow
def test_a_rebuild_replaces_the_earlier_runtime_atomically(device: Any) -> None:
    request = _request(device, fake_wheel())
    first = device.call("runtime", **request).result["interpreter"]
    for _ in range(3):
        (site,) = Path(first).parents[1].glob("lib/python*/site-packages")
        (site / "tflite_runtime" / "interpreter.py").unlink()
        again = device.call("runtime", **request).result
        assert (again["created"], again["interpreter"] != first) == (True, True)
        assert not Path(first).exists()
        assert sorted(path.name for path in (device.home / "runtime" / DIGEST).iterdir()) == [
            "runtime.json",
            Path(again["interpreter"]).parents[1].name,
        ]
        first = again["interpreter"]


def test_an_import_that_hangs_ends_at_the_deadline(device: Any) -> None:
    data = fake_wheel(extra={"tflite_runtime/__init__.py": "import time; time.sleep(1000)"})
    assert device.call("runtime", **_request(device, data, timeout_s=1.5)).error["code"] == "EQ511"
    assert list((device.home / "tmp").iterdir()) == []


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "name", ["/etc/cron.d/x", "../outside.py", "a/../../outside.py", "a\\..\\b.py", "C:/x.py"]
)
def test_a_member_outside_the_wheel_is_refused(device: Any, name: str) -> None:
    error = device.call("runtime", **_request(device, fake_wheel(extra={name: "x"}))).error
    assert error["code"] == "EQ503"
    assert "outside" in error["problem"]
    assert list((device.home / "runtime").iterdir()) == []


def test_a_link_in_a_wheel_is_refused(device: Any) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        member = zipfile.ZipInfo("numpy/link.py")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    error = device.call("runtime", **_request(device, stream.getvalue())).error
    assert (error["code"], "is a link" in error["problem"]) == ("EQ503", True)


def test_a_damaged_wheel_is_refused(device: Any) -> None:
    assert device.call("runtime", **_request(device, b"no zip")).error["code"] == "EQ503"
    data = bytearray(fake_wheel())
    data[60] ^= 0xFF  # inside the first member
    assert device.call("runtime", **_request(device, bytes(data))).error["code"] == "EQ503"


def test_a_missing_wheel_is_named(device: Any) -> None:
    wheel = {"name": "a-1-py3-none-any.whl", "sha256": "0" * 64}
    error = device.call("runtime", digest=DIGEST, wheels=[wheel]).error
    assert (error["code"], error["subject"]) == ("EQ509", wheel["name"])


def test_data_folders_of_a_wheel_are_unpacked_into_site_packages(device: Any) -> None:
    extra = {"x-1.data/platlib/placed.py": "", "x-1.data/scripts/tool": "", "x-1.data/purelib/also.py": ""}
    device.call("runtime", **_request(device, fake_wheel(extra=extra))).result  # noqa: B018
    (site,) = (device.home / "runtime" / DIGEST / "venv" / "lib").glob("python*/site-packages")
    assert (site / "placed.py").exists()
    assert (site / "also.py").exists()
    assert not list(site.rglob("tool"))


def test_the_devices_python_without_a_runtime_is_refused(device: Any, tmp_path: Path, kit: Any) -> None:
    import subprocess

    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    other = kit.Device(home=device.home, command=(str(bare / "bin" / "python"), "-m", "edgeq_agent"))
    error = other.call("runtime", digest=DIGEST, wheels=[]).error
    assert error["code"] == "EQ503"
    assert "ai_edge_litert: No module named" in error["problem"]
    assert "tflite_runtime: No module named" in error["problem"]


def _installed(name: str, distributions: dict[str, importlib.metadata.Distribution]) -> None:
    """Collect a distribution and those of its requirements that are installed."""
    from packaging.requirements import Requirement

    if name in distributions:
        return
    try:
        distributions[name] = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    for line in distributions[name].requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            _installed(requirement.name, distributions)


@pytest.mark.slow
@pytest.mark.convert
def test_a_real_runtime_from_wheels_serves_a_model(
    device: Any, int8_bundle: Any, tiny_data: Any, kit: Any
) -> None:
    """The installed LiteRT, packed back into wheels, becomes the device's own venv and serves there."""
    distributions: dict[str, importlib.metadata.Distribution] = {}
    _installed("ai-edge-litert", distributions)
    wheels = []
    for name, distribution in distributions.items():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for path in distribution.files or []:
                if ".." not in path.parts and "__pycache__" not in path.parts:
                    archive.write(str(distribution.locate_file(path)), str(path))
        wheel = f"{name.replace('-', '_')}-{distribution.version}-cp3-none-any.whl"
        wheels.append({"name": wheel, "sha256": device.put(stream.getvalue())})
    result = device.call("runtime", digest=DIGEST, wheels=wheels).result
    assert result["module"] == "ai_edge_litert"
    assert result["version"] == distributions["ai-edge-litert"].version
    device.enrol()
    int8_bundle.send(device)
    assert device.call("activate", **int8_bundle.request(runtime=DIGEST)).result["changed"]
    assert device.call("infer", kit.npz(input_0=tiny_data[:3]), model="tiny").result["samples"] == 3
    stored = json.loads((device.home / "runtime" / DIGEST / "runtime.json").read_text())
    assert stored["interpreter"] == "venv/bin/python"


def test_the_cause_of_a_failed_import_is_reported_without_the_advice() -> None:
    from edgeq_agent.inference.jobs.self_test import reason_of

    page = (
        "\n\nIMPORTANT: PLEASE READ THIS FOR ADVICE\n\nImporting the numpy C-extensions failed.\n"
        + "advice " * 50
    )
    cause = "libstdc++.so.6: cannot open shared object file"
    assert reason_of(ImportError(f"{page}\nOriginal error was: {cause}\n")) == cause
    assert reason_of(ImportError("No module named 'tflite_runtime'")) == "No module named 'tflite_runtime'"
    assert reason_of(MemoryError()) == "MemoryError"
