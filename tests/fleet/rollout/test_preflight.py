"""A rollout of an older release is refused before its first stage; no device is changed."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.archive import read_bundle
from edgeq.errors import RolloutError
from edgeq.fleet.rollout import operations
from edgeq.fleet.rollout.preflight import refuse_older
from edgeq.fleet.trust_documents import counted_releases
from edgeq.store import Store
from edgeq.testing.loopback import loopback_device
from edgeq.values import Device
from tests.fleet.cli import Cli


def offline(name: str) -> Device:
    """A device at whose address nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return Device(name=name, host="127.0.0.1", port=port, user="x", host_key="ssh-ed25519 AAAA")


def record(store: Store, path: Path, kind: str, **entry: Any) -> None:
    """Record what a deploy or a rollout of a bundle did on one device."""
    bundle = read_bundle(path)
    store.put_release(bundle.release, bundle.manifest, bundle.reference.to_json())
    store.record_run(kind, bundle.model, {"release": bundle.release, "devices": [entry]})


@pytest.mark.parametrize(
    ("kind", "entry", "refused"),
    [
        ("deploy", {"device": "pi", "ok": True, "state": "committed"}, True),
        ("rollout", {"device": "pi", "outcome": "succeeded"}, True),
        ("deploy", {"device": "pi", "ok": True, "state": "rolled_back"}, False),
        ("deploy", {"device": "pi", "ok": False}, False),
        ("rollout", {"device": "pi", "outcome": "failed"}, False),
        ("deploy", {"device": "other", "ok": True, "state": "committed"}, False),
    ],
)
def test_the_store_decides_where_no_device_answers(
    kind: str, entry: dict[str, Any], refused: bool, bundles: dict[str, Path], workspace: Path
) -> None:
    older = read_bundle(bundles["first"])
    with Store.open(workspace) as store:
        record(store, bundles["second"], kind, **entry)
        if not refused:
            refuse_older(store, older, [offline("pi")], first=["pi"], timeout_s=2)
            return
        with pytest.raises(RolloutError) as caught:
            refuse_older(store, older, [offline("pi")], first=["pi"], timeout_s=2)
        assert caught.value.reported_code == "EQ827"
        assert "is older than what pi committed, nothing was changed" in caught.value.message
        refuse_older(store, read_bundle(bundles["second"]), [offline("pi")], first=["pi"], timeout_s=2)


def test_a_release_that_a_counter_reset_withdrew_does_not_count(
    bundles: dict[str, Path], workspace: Path
) -> None:
    """Neither for a rollout, nor for the number of the next release."""
    newer = read_bundle(bundles["second"])
    with Store.open(workspace) as store:
        record(store, bundles["second"], "deploy", device="pi", ok=True, state="committed")
        assert [manifest["counter"] for manifest in counted_releases(workspace, store)] == [2]
        store.record_audit("tests", "keys reset-counter", "pi", {"void": [newer.release]})
        refuse_older(store, read_bundle(bundles["first"]), [offline("pi")], first=["pi"], timeout_s=2)
        assert counted_releases(workspace, store) == []


@pytest.mark.slow
def test_devices_refuse_before_the_first_stage(
    bundles: dict[str, Path], site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    with loopback_device(tmp_path / "a") as one, loopback_device(tmp_path / "b") as two:
        for name, device in (("a", one), ("b", two)):
            address = f"{device.user}@{device.host}:{device.port}"
            cli.text("devices", "add", name, "--host", address, "--identity", str(device.identity))
        cli.text("deploy", str(bundles["second"]), "--to", "b", "--yes")
        journals = [device.home / ".edgeq" / "journal" for device in (one, two)]
        before = [path.read_bytes() if path.exists() else b"" for path in journals]
        stages = ("--stages", "1,100%")
        for more in (["--dry-run"], ["--yes"]):
            argv = ("deploy", str(bundles["first"]), "--to", "all", *stages, *more)
            error = cli.json(*argv, status=1)["error"]
            assert error["code"] == "EQ827"
            assert "is older than what b committed, nothing was changed" in error["message"]
            assert "edgeq rollback double --on b" in error["hint"]
        assert operations.latest(site, read_bundle(bundles["first"])) is None
        assert [path.read_bytes() if path.exists() else b"" for path in journals] == before
        # The store of another workspace knows nothing: the devices of the first stage are asked.
        (site / ".edgeq" / "store.db").unlink()
        error = cli.json("deploy", str(bundles["first"]), "--to", "b", *stages[:1], "100%", "--yes", status=1)
        assert error["error"]["code"] == "EQ827"
