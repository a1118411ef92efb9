"""Models that keep state, and models with a fallback, from the command line to a device."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `convert`", exc_type=ImportError)

from edgeq.bundle import read_bundle
from edgeq.cli import main
from edgeq.errors import DeviceUnsupported
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import make_plan
from edgeq.fleet.inventory import Inventory
from tests import compiled_models, stateful

pytestmark = [pytest.mark.convert, pytest.mark.slow]

X = np.concatenate([stateful.samples()] * 5)


def _document(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0, capsys.readouterr().err
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_sequence_on_a_device(loopback_server: Any, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loopback_server.enrol(site)
    (site / "total.tflite").write_bytes(stateful.accumulator())
    np.savez(site / "x.npz", x=X)
    np.savez(site / "ids.npz", x=X, sequence_id=np.repeat(np.arange(5), 6))
    bundle = ["bundle", "total.tflite", "-o", "t.eqb", "--name", "total", "--data", "x.npz", "--sequence"]
    assert main(bundle) == 0
    assert main(["deploy", "t.eqb", "--to", "pi"]) == 0
    infer = ["infer", "total", "--on", "pi", "--outputs", "--data"]
    start = np.array(stateful.START, np.float32)
    alone = _document(capsys, *infer, "x.npz")
    np.testing.assert_allclose(alone["outputs"], start + X)
    one = _document(capsys, *infer, "x.npz", "--sequence")
    np.testing.assert_allclose(one["outputs"], start + np.cumsum(X, axis=0))
    five = _document(capsys, *infer, "ids.npz")
    np.testing.assert_allclose(five["outputs"], np.tile(start + np.cumsum(X[:6], axis=0), (5, 1)))
    assert (alone["sequences"], one["sequences"], five["sequences"]) == (30, 1, 5)


def test_the_model_for_the_cpu_serves_on_a_device_without_a_tpu(
    loopback_server: Any, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loopback_server.enrol(site)
    (site / "int8.tflite").write_bytes(compiled_models.source())
    (site / "int8_edgetpu.tflite").write_bytes(compiled_models.compiled())
    np.savez(site / "x.npz", x=np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    bundle = [
        "bundle",
        "int8_edgetpu.tflite",
        "--golden-from",
        "int8.tflite",
        "--name",
        "m",
        "--data",
        "x.npz",
    ]
    assert main([*bundle, "--kind", "linux", "-o", "tpu.eqb"]) == 0
    for command in (
        ["deploy", "tpu.eqb", "--to", "pi"],
        ["deploy", "tpu.eqb", "--to", "pi", "--stages", "1,100%"],
        ["plan", "tpu.eqb", "--to", "pi"],
    ):
        main([*command, *(["--yes"] if command[0] == "deploy" else [])])
        shown = capsys.readouterr()
        assert "compiled for the Edge TPU" in shown.out + shown.err, command
        assert "--with-cpu" in shown.out + shown.err, command
    blobs = loopback_server.home / ".edgeq" / "blobs"
    model = hashlib.sha256(compiled_models.compiled()).hexdigest()
    assert model not in str(list(blobs.rglob("*"))), "nothing was sent"
    # The device is asked again, and says the same.
    with open_agent(Inventory.load(site).get("pi")) as client:
        bundle_file = read_bundle(site / "tpu.eqb")
        with pytest.raises(DeviceUnsupported, match="compiled for the Edge TPU") as caught:
            make_plan(client, bundle_file, workspace=site).plan.check()
    assert caught.value.reported_code == "EQ560"
    assert main([*bundle, "--with-cpu", "-o", "both.eqb"]) == 0
    document = _document(capsys, "deploy", "both.eqb", "--to", "pi")
    (device,) = document["devices"].values() if isinstance(document["devices"], dict) else document["devices"]
    assert device["health"]["kernels"] != "edgetpu"
    # Not for the CPU: the device is not of the kind that the bundle is for.
    assert main([*bundle, "-o", "coral.eqb"]) == 0
    assert main(["deploy", "coral.eqb", "--to", "pi"]) != 0
    assert "made for coral" in capsys.readouterr().err
