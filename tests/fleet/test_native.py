"""A device for which there is no Python runtime at all: the native program serves and measures, and says so.

The program is a stand-in that runs models for real and speaks as benchmark_model does.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import ConfigError, DeviceUnsupported
from edgeq.fleet.facts import LibC, RefusedRuntime
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.runtimes import wheels
from edgeq.fleet.runtimes.choice import choose, native_runtime
from edgeq.fleet.runtimes.native import use_native
from edgeq.fleet.runtimes.wheels import RuntimeKind
from edgeq.values import Device
from tests.agent.stand_in import benchmark_model, write
from tests.fleet.cli import Cli
from tests.fleet.servers import Server
from tests.fleet.test_wheels import PI

pytestmark = pytest.mark.convert


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write(tmp_path / "benchmark_model", benchmark_model())


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def phone(loopback_server: Server, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device whose Python has no packages, and for which no wheel fits."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setattr(wheels, "choices_for", lambda facts: ())
    python = str(tmp_path / "bare" / "bin" / "python")
    return loopback_server.enrol(site, name="phone", python=python, home=f".edgeq-{tmp_path.name}")


@pytest.mark.slow
def test_the_whole_way_over_the_native_program(
    cli: Cli, phone: Device, program: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    first = str(bundles["first"])
    cli.text("deploy", first, "--to", "phone", "--yes", status=1)
    assert "no wheels were sent" in cli.err, "without the program the device cannot be served"
    named = cli.json("devices", "native", "phone", str(program))
    assert Inventory.load(Path.cwd()).get("phone").native == program
    (planned,) = cli.json("deploy", first, "--to", "phone", "--dry-run")["devices"]
    reasons = " ".join(step["reason"] for step in planned["steps"])
    assert named["runtime"] in [step["key"] for step in planned["steps"]]
    assert "already on the device" in reasons, "the program was sent when it was named"
    out = cli.text("deploy", first, "--to", "phone", "--yes")
    assert "its outputs were not checked" in out
    assert "outputs not checked" in cli.text("status", "phone")
    (entry,) = cli.json("status", "phone")["devices"]
    assert entry["models"]["double"]["proof"] == "ran"

    # It gives nothing that two releases could be compared by; no experiment is begun.
    cli.text("ab", "start", str(bundles["second"]), "--to", "phone", "--yes", status=1)
    (line,) = [line for line in cli.err.splitlines() if line.startswith("error[")]
    assert line.startswith("error[EQ836]: phone: ")
    assert "no answers to compare" in line
    assert cli.json("ab", "list")["experiments"] == []

    measured = cli.json("bench", "double", "--on", "phone", "--runs", "20", "--seconds", "0.01")
    assert (measured["schema"], measured["source"]) == ("edgeq.native-bench/1", "benchmark_model")
    assert measured["latency_ns"]["count"] >= 20
    out = cli.text("bench", "double", "--on", "phone", "--runs", "20", "--seconds", "0.01")
    assert "benchmark_model, on random inputs" in out
    kinds = [run["kind"] for run in cli.json("runs")["runs"]]
    assert kinds.count("native-bench") == 2

    samples = tmp_path / "samples.npz"
    import numpy as np

    np.savez(samples, x=np.zeros((1, 4), np.float32))
    error = cli.json("infer", "double", "--on", "phone", "--data", str(samples), status=1)["error"]
    assert error["code"] == "EQ559"
    cli.json("devices", "native", "phone", "--forget")
    assert Inventory.load(Path.cwd()).get("phone").native is None


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["phone"], 2, "needs a FILE"),
        (["phone", "/nowhere/benchmark_model"], 2, "cannot be read"),
        (["nobody", "/bin/true"], 2, "nobody"),
        (["phone", "/bin/true"], 1, "EQ561"),
    ],
)
def test_a_program_that_cannot_run_there_is_refused_in_one_line(
    cli: Cli, phone: Device, argv: list[str], status: int, message: str
) -> None:
    cli.text("devices", "native", *argv, status=status)
    (line,) = [line for line in cli.err.splitlines() if line.startswith("error[")]
    assert message in line
    assert Inventory.load(Path.cwd()).get("phone").native is None


def test_what_gives_answers_comes_first(tmp_path: Path, program: Path) -> None:
    device = Device(name="pi", host="h", user="u", host_key="k", native=program)
    musl = PI.model_copy(update={"c_library": LibC(name="musl")})
    own = musl.model_copy(update={"modules": ("tflite_runtime",)})
    assert choose(device, musl, tmp_path, without={}).kind is RuntimeKind.NATIVE
    first = choose(device, own, tmp_path, without={})
    assert (first.kind, first.files) == (RuntimeKind.INSTALLED, ())
    assert choose(device, own, tmp_path, without={first.digest: "does not import"}).kind is RuntimeKind.NATIVE
    refused = native_runtime(program, "").digest
    crashed = RefusedRuntime(digest=refused, problem="crashes")
    last = choose(device, musl.model_copy(update={"refused_runtimes": (crashed,)}), tmp_path, without={})
    assert last.kind is RuntimeKind.INSTALLED, "what crashed there is not sent again"
    gone = dataclasses.replace(device, native=tmp_path / "gone")
    with pytest.raises(ConfigError, match="cannot be read"):
        choose(gone, musl, tmp_path, without={})


def test_a_program_that_does_not_start_leaves_the_inventory(
    phone: Device, site: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "for-another-processor", b"\x7fELF and no more")
    with pytest.raises(DeviceUnsupported, match="does not start here") as caught:
        use_native(site, "phone", other)
    assert caught.value.reported_code == "EQ503"
    assert "built for this device" in str(caught.value.hint)
    assert Inventory.load(site).get("phone").native is None


def test_the_setting_is_read_back(site: Path, program: Path) -> None:
    text = f"""[devices.pi]
host = "pi"
user = "pi"
host_key = "{ANY_KEY}"
native = "bin/benchmark_model"
"""
    (site / "devices.toml").write_text(text)
    device: Any = Inventory.load(site).get("pi")
    assert device.native == site / "bin" / "benchmark_model"
    Inventory.load(site).replace(device)
    assert Inventory.load(site).get("pi") == device


ANY_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
