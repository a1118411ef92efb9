"""The exit statuses of the commands are those of docs/errors.md."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import click
import pytest

from edgeq.cli import main
from edgeq.errors import ExitStatus
from edgeq.store import Store
from edgeq.testing.tiny_bundle import write_tiny_bundle
from tests.cli.test_boundary import every_command, leaf
from tests.monitor.test_verdict import fill

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
ALL = {0, 1, 2, 70, 130, 141}
# A command line of each command that contacts several devices; {to} is `all` or one device.
SEVERAL = {
    "plan": ["b.eqb", "--to", "{to}"],
    "deploy": ["b.eqb", "--to", "{to}", "--yes"],
    "rollback": ["double", "--on", "{to}"],
    "pin": ["double", "--on", "{to}"],
    "unpin": ["double", "--on", "{to}"],
    "prune": ["--on", "{to}"],
    "status": ["{to}"],
    "collect": ["{to}"],
    "exec": ["{to}", "--", "true"],
    "logs": ["{to}"],
    "keys list": ["--on", "{to}"],
    "keys trust": ["--on", "{to}"],
    "keys revoke": ["workspace", "--on", "{to}"],
    "keys policy": ["--on", "{to}", "--threshold", "1"],
    "ab start": ["b.eqb", "--to", "{to}"],
    "devices import": ["hosts.csv"],
}


def table() -> dict[str, set[int]]:
    """Return the statuses 3 and 4 that the page gives to commands."""
    statuses: dict[str, set[int]] = {}
    for commands, status in re.findall(r"^\| (`edgeq [^|]+) \| ([34]) \|", PAGE.read_text("utf-8"), re.M):
        for command in re.findall(r"`edgeq ([a-z -]+)`", commands):
            statuses.setdefault(command, set()).add(int(status))
    return statuses


@pytest.fixture
def offline(workspace: Path) -> Path:
    """A workspace with two devices at whose addresses nothing listens, and the bundle of a model."""
    with Store.open(workspace) as store:
        bundle = write_tiny_bundle(workspace / "b.eqb", workspace=workspace)
        store.put_release(bundle.release, bundle.manifest, bundle.reference.to_json())
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ports.append(listener.getsockname()[1])
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtJ0bX9DkXnrAW5Dc0Gq4tGvZ0wZ0jv0m0m0m0m0m0m"
    (workspace / "devices.toml").write_text(
        "".join(
            f'[devices.{name}]\nhost = "127.0.0.1"\nport = {port}\nuser = "x"\nhost_key = "{key}"\n'
            for name, port in zip("ab", ports, strict=True)
        )
    )
    rows = "".join(f"c{port},127.0.0.1,{port}\n" for port in ports)
    (workspace / "hosts.csv").write_text(f"name,host,port\n{rows}")
    return workspace


def test_the_page_lists_the_statuses_of_the_code() -> None:
    section = PAGE.read_text("utf-8").partition("## Exit statuses")[2].partition("Every command")[0]
    assert {int(row) for row in re.findall(r"^\| (\d+) \|", section, re.M)} == set(ExitStatus)
    assert ALL | {3, 4} == set(ExitStatus)


def test_the_table_names_commands() -> None:
    commands = {" ".join(path) for path in every_command()}
    assert set(table()) <= commands
    assert set(SEVERAL) <= {command for command, statuses in table().items() if 4 in statuses}


def test_every_command_for_several_devices_is_in_the_table() -> None:
    several = set()
    for path in every_command():
        command = leaf(path)
        if not isinstance(command, click.Group) and any(
            param.name in ("selectors", "selector") for param in command.params
        ):
            several.add(" ".join(path))
    assert several <= {command for command, statuses in table().items() if 4 in statuses}


@pytest.mark.parametrize("command", SEVERAL)
def test_devices_that_do_not_answer(command: str, offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def status(to: str) -> int:
        before, dashes, after = " ".join(SEVERAL[command]).partition("-- ")
        words = [word.format(to=to) for word in before.split()] + ["--retries", "0"]
        return main([*command.split(), *words, *(["--", *after.split()] if dashes else [])])

    assert status("all") == 4, capsys.readouterr().err
    if "{to}" in SEVERAL[command]:
        assert status("a") == 1, capsys.readouterr().err
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "status"), [([], 0), (["--exit-code"], 3), (["--exit-code", "--json"], 3)])
def test_monitor_ends_with_3_only_where_it_is_asked_to(argv: list[str], status: int, workspace: Path) -> None:
    fill(workspace, since=10)
    assert main(["monitor", *argv]) == status
    assert table()["monitor"] == {3}


def test_monitor_without_windows_is_status_1(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(workspace):
        pass
    assert main(["monitor", "--exit-code"]) == 1
    assert "error[EQ610]" in capsys.readouterr().err
