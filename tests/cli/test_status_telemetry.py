"""`edgeq status` shows the last collected telemetry of a device, also of one that cannot be reached."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.store import Store
from tests.telemetry.golden import EVERY_FIELD, received, window_json

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a workspace with two devices whose port refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"host = '127.0.0.1'\nport = {port}\nuser = 'u'\nhost_key = '{KEY}'\n"
    (tmp_path / "devices.toml").write_text(f"[devices.pi]\n{address}[devices.new]\n{address}")
    return tmp_path


def status(workspace: Path, *more: str) -> int:
    return main(["--workspace", str(workspace), "status", "--retries", "0", *more])


def test_the_last_windows_are_summed_up(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(workspace) as store:
        windows = [received(window_json(name)) for name in ("verb infer", EVERY_FIELD, "arm b again")]
        store.ingest("pi", windows)
        store.ingest("coral", [received(window_json("runtime"))])
    assert status(workspace, "--json") == 4
    entry, new = json.loads(capsys.readouterr().out)["devices"]
    assert (entry["ok"], new["ok"], new["field"]) == (False, False, [])
    first, second = entry["field"]
    assert (first["model"], first["release"], first["inferences"]) == ("kws", "a" * 64, 40)
    assert (first["deadline_misses"], first["feedback"], first["shadow"]) == (None, None, {})
    assert (second["release"], second["windows"], second["merged"]) == ("b" * 64, 2, 2)
    assert (second["memory_peak_bytes"], second["temperature_c"]) == (51_500_000, 53.0)
    assert (second["deadline_misses"], second["unrecorded"]) == (1, 2)
    assert second["feedback"] == {"labelled": 25, "correct": 22, "expired": 5}
    shadow = second["shadow"]["float32.tflite"]
    assert (shadow["compared"], shadow["disagreed"], shadow["dropped"]) == (15, 1, 1)
    assert shadow["sqnr_db"] == pytest.approx(11.027, abs=1e-3)
    assert status(workspace) == 4
    out = capsys.readouterr().out
    assert "pi: kws bbbbbbbbbbbb, last windows: inferences 90, errors 0, p50 " in out
    assert "hottest 53.0 °C, deadline misses 1, unrecorded 2, shadow " in out
    assert "float32.tflite: 15 compared, 1 disagreed (6.7 %), SQNR 11.0 dB, 1 dropped" in out
    assert "feedback 22 of 25 correct, 5 expired" in out
    assert "coral" not in out


def test_a_workspace_without_a_store_gets_none(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(workspace, "--json") == 4
    assert json.loads(capsys.readouterr().out)["devices"][0]["field"] == []
    assert not (workspace / ".edgeq" / "store.db").exists()


def test_a_damaged_store_is_reported_and_hides_no_device(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / ".edgeq").mkdir(exist_ok=True)
    (workspace / ".edgeq" / "store.db").write_bytes(b"damaged" * 1000)
    assert status(workspace, "--json") == 4
    out, err = capsys.readouterr()
    assert "telemetry is not shown: error[EQ610]" in err
    assert json.loads(out)["devices"][0]["error"]["code"] == "EQ401"


def test_each_device_that_fails_has_its_reason(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(workspace) == 4
    out, err = capsys.readouterr()
    assert out.count("failed: EQ401") == 2
    for name in ("pi", "new"):
        assert f"error[EQ401]: {name}: failed, nothing answers at 127.0.0.1:" in err
