"""`edgeq bench` and `edgeq collect` against a device: real SSH, real agent, real runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeq.cli import main
from edgeq.fleet.inventory import Inventory
from edgeq.store import Store
from edgeq.testing.loopback import loopback_device
from edgeq.testing.tiny_bundle import write_tiny_bundle
from tests.fleet.servers import enrol_at

pytestmark = pytest.mark.convert  # a runtime has to be there for the model to run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a workspace whose device `pi` serves the model `double`; `gone` does not answer."""
    workspace = tmp_path_factory.mktemp("site")
    with loopback_device(tmp_path_factory.mktemp("device")) as running:
        device = enrol_at(running, workspace).device
        write_tiny_bundle(workspace / "double.eqb")
        np.savez(workspace / "x.npz", x=np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
        assert (
            main(
                [
                    "--workspace",
                    str(workspace),
                    "deploy",
                    str(workspace / "double.eqb"),
                    "--to",
                    "pi",
                    "--yes",
                ]
            )
            == 0
        )
        text = (workspace / "devices.toml").read_text(encoding="utf-8")
        gone = text.replace("[devices.pi]", "[devices.gone]").replace(f"port = {device.port}", "port = 1")
        (workspace / "devices.toml").write_text(f"{text}\n{gone}", encoding="utf-8")
        assert Inventory.load(workspace).names == ("pi", "gone")
        yield workspace


@pytest.mark.slow
def test_a_benchmark_is_measured_there_and_kept_here(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--workspace", str(site), "bench", "double", "--on", "pi", "--runs", "50", "--seconds", "0.1"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "latency   p50 " in printed
    assert "95 % CI" in printed
    assert main([*argv, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["device"]) == ("edgeq.bench/1", "pi")
    assert document["latency_ns"]["count"] >= 50
    assert document["latency_ns"]["min"] <= document["latency_ns"]["p50"] <= document["latency_ns"]["max"]
    with Store.open(site) as store:
        assert store.benches("double", "pi")[-1].body["latency_ns"] == document["latency_ns"]


def test_windows_arrive_once_and_a_dead_device_stops_no_other(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--workspace", str(site)]
    infer = [*at, "infer", "double", "--on", "pi", "--data", str(site / "x.npz"), "--window", "20"]
    assert main(infer) == 0
    capsys.readouterr()
    assert main([*at, "collect", "--all", "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    pi, gone = document["devices"]
    assert (pi["device"], pi["ok"], pi["new"], pi["pending"]) == ("pi", True, 3, 0)
    assert (gone["device"], gone["ok"], gone["error"]["code"]) == ("gone", False, "EQ401")
    assert main([*at, "collect", "pi"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["pi", "0", "0", "0", "0"]
    with Store.open(site) as store:
        windows = store.windows(model="double", device="pi")
        assert [record.window.inferences for record in windows] == [20, 20, 20]
    assert main([*at, "monitor", "pi", "--json"]) == 0
    (stream,) = json.loads(capsys.readouterr().out)["streams"]
    assert (stream["judged"], stream["skipped"]) == (True, [])


def test_names_are_needed(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--workspace", str(site), "collect"]
    assert main(at) == 2
    assert main([*at, "pi", "--all"]) == 2
    assert main([*at, "pj"]) == 2
    assert "did you mean 'pi'?" in capsys.readouterr().err
    assert main([*at, "gone"]) == 1
    assert capsys.readouterr().err.count("EQ401") == 1
