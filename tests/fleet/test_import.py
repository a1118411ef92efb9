"""`edgeq devices import` on real SSH servers: each host on its own, nothing half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.fleet.inventory import Inventory
from edgeq.testing.loopback import loopback_device
from edgeq.values import TransportKind
from tests.fleet.cli import Cli
from tests.fleet.servers import Server


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def row(server: Server, name: str, **more: str) -> str:
    cells = {"name": name, "host": f"{server.user}@{server.host}:{server.port}", **more}
    return ",".join([*cells.values(), str(server.identity)])


def test_each_host_is_enrolled_on_its_own(loopback_server: Server, site: Path, cli: Cli) -> None:
    (site / "hosts.csv").write_text(
        "name,host,identity,site\n"
        f"{row(loopback_server, 'one')},lab\n"
        f"gone,{loopback_server.user}@127.0.0.1:1,{loopback_server.identity},lab\n"
        "bad name,10.0.0.1,,\n"
        f"{row(loopback_server, 'two')},lab\n"
    )
    plan = cli.json("devices", "import", "hosts.csv", "--dry-run", status=4)
    assert not (site / "devices.toml").exists()
    assert [(one["device"], one["ok"]) for one in plan["devices"]] == [
        ("one", True), ("gone", True), ("two", True), ("bad name", False)
    ]  # fmt: skip
    out = cli.text("devices", "import", "hosts.csv", "--label", "room=1", "--retries", "0", status=4)
    assert f"one  {loopback_server.fingerprint}" in out
    assert "hosts.csv:5: two has the address of one in hosts.csv:2" in out
    assert "gone: failed, " in out
    assert "hosts.csv:4: " in out
    assert "2 of 4 hosts were not imported: gone (EQ401); hosts.csv:4 (EQ102)" in cli.err
    (device,) = Inventory.load(site).devices
    assert (device.name, dict(device.labels)) == ("one", {"room": "1", "site": "lab"})
    again = cli.json("devices", "import", "hosts.csv", "one")
    assert [one["action"] for one in again["devices"]] == ["present"]
    assert len(Inventory.load(site).devices) == 1


@pytest.mark.slow
def test_a_host_of_an_ssh_configuration_is_used_through_it(
    loopback_server: Server, site: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f"Host pi-1\n  HostName {loopback_server.host}\n  Port {loopback_server.port}\n"
        f"  User {loopback_server.user}\n  IdentityFile {loopback_server.identity}\n"
    )
    cli.json("devices", "import", "pi-*")
    device = Inventory.load(site).get("pi-1")
    assert (device.host, device.port, device.user) == ("pi-1", loopback_server.port, loopback_server.user)
    assert device.identity == loopback_server.identity.resolve()
    assert cli.json("status", "pi-1")["devices"][0]["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("transport", list(TransportKind))
def test_hosts_of_an_inventory_get_the_labels_of_their_groups(
    site: Path, cli: Cli, tmp_path: Path, transport: TransportKind
) -> None:
    with loopback_device(tmp_path / "a") as a, loopback_device(tmp_path / "b") as b:
        (site / "inventory.ini").write_text(
            f"[cams]\na ansible_host={a.host} ansible_port={a.port}"
            f" ansible_ssh_private_key_file={a.identity}\n"
            f"[gates]\nb ansible_host={b.host} ansible_port={b.port}"
            f" ansible_ssh_private_key_file={b.identity}\n"
            f"[all:vars]\nansible_user={a.user}\n"
        )
        body = cli.json("devices", "import", "inventory.ini", "--transport", transport.value)
        assert [one["action"] for one in body["devices"]] == ["enrolled", "enrolled"]
        assert [one.name for one in Inventory.load(site).select(["label:group=gates"])] == ["b"]
        status = cli.json("status", "label:cams=yes")
        assert [one["device"] for one in status["devices"]] == ["a"]


def test_an_unreadable_file_is_one_line(site: Path, cli: Cli) -> None:
    assert "no such file" in cli.refused("devices", "import", "none.csv", status=2, code="EQ102")
    assert "got a folder" in cli.refused("devices", "import", str(site), status=2, code="EQ102")
