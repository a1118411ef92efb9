"""Every change of a device is in the audit log, by whatever command or function it is made."""

from __future__ import annotations

import ast
import getpass
import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgeq.errors import EdgeqError, StoreError
from edgeq.fleet.audit import CHANGING, READING, changes
from edgeq.fleet.connect import open_agent
from edgeq.fleet.operations import pin, prune
from edgeq.fleet.run_command import run_command
from edgeq.store import Store
from edgeq_agent import wire
from tests.fleet.cli import Cli
from tests.fleet.servers import Server

# The functions that may start a command on a device. Whoever adds one decides here how it is audited.
STARTERS = {
    "edgeq/fleet/agent/client.py": "audited by the verb",
    "edgeq/fleet/agent/bootstrap.py": "the agent file: `AgentClient.install_agent_file` records it",
    "edgeq/fleet/run_command.py": "audited as exec",
}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def entries(workspace: Path) -> list[tuple[str, str, str | None]]:
    with Store.open(workspace) as store:
        return [(one.action, one.subject, one.result) for one in reversed(store.audit(limit=1000))]


def test_every_verb_of_the_agent_is_known_as_reading_or_changing() -> None:
    assert set(CHANGING) | READING == set(wire.VERBS)
    assert not set(CHANGING) & READING
    assert not changes("trust", {})
    assert all(changes("trust", {name: [1]}) for name in ("change", "documents", "new-field"))
    assert [changes("prune", {"dry_run": value}) for value in (True, False)] == [False, True]
    with pytest.raises(ValueError, match="neither"):
        changes("new-verb", {})


def starts_commands(source: str) -> bool:
    """Return whether a module runs a command over a transport."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "run"
        and "transport" in ast.unparse(node.func.value).lower()
        for node in ast.walk(ast.parse(source))
    )


def test_commands_on_devices_start_only_where_they_are_audited(project_root: Path) -> None:
    modules = (project_root / "edgeq").rglob("*.py")
    starters = {
        str(path.relative_to(project_root)) for path in modules if starts_commands(path.read_text("utf-8"))
    }
    assert starters == set(STARTERS)
    assert starts_commands("with open_transport(d) as transport:\n    transport.run(['x'])")


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=() if verb == "pin" else pytest.mark.slow) for verb in CHANGING]
)
def test_a_call_that_changes_is_recorded_before_and_after(
    loopback_server: Server, site: Path, verb: str
) -> None:
    device = loopback_server.enrol(site, "one", home=".edgeq-audit")
    before = len(entries(site))
    # Most agents refuse this request: what counts is that no call passes without its entries.
    request = {"model": "UPPER", "change": {"x": 1}, "action": "odd"}
    result = "done"
    with open_agent(device) as client:
        try:
            client.call(verb, request)
        except EdgeqError as error:
            result = f"failed: {error.reported_code}"
    assert (result == "done") == (verb in ("recover", "prune"))
    assert entries(site)[before:] == [(verb, "one", "started"), (verb, "one", result)]


@pytest.mark.slow
def test_who_did_what_from_where_by_which_command(loopback_server: Server, site: Path, cli: Cli) -> None:
    loopback_server.enrol(site, "one", home=".edgeq-audit2")
    cli.json("prune", "--on", "one", "--dry-run")
    cli.json("status", "one")
    reading = len(entries(site))
    cli.text("exec", "one", "--", "echo TOKEN=hunter2")
    cli.json("prune", "--on", "one")
    assert entries(site)[reading:] == [
        ("exec", "one", "started"),
        ("exec", "one", "exit status 0"),
        ("prune", "one", "started"),
        ("prune", "one", "done"),
    ]
    listed = cli.json("audit", "list", "one", "--action", "prune")["entries"][0]
    assert (listed["actor"].split()[-1], listed["host"]) == (getpass.getuser(), socket.gethostname())
    assert listed["command"] == "edgeq prune --on one --json"
    table = cli.text("audit", "list")
    assert "hunter2" not in table
    assert table.count("  prune") == 1
    assert cli.json("audit", "verify")["problems"] == []
    with Store.open(site) as store:
        assert "hunter2" not in json.dumps([record.body for record in store.audit(limit=1000)])


def test_an_altered_log_is_an_error_with_each_place(loopback_server: Server, site: Path, cli: Cli) -> None:
    with Store.open(site) as store:
        for number in range(4):
            store.record_audit("ann", "pin", "pi", {"number": number})
    head = cli.json("audit", "verify")["head"]["sha256"]
    assert "4 entries fit" in cli.text("audit", "verify", "--head", head)
    with closing(sqlite3.connect(site / ".edgeq" / "store.db")) as database:
        database.execute("UPDATE audit SET actor = 'eve' WHERE id = 2")
        database.commit()
    out = cli.text("audit", "verify", status=1)
    assert "entry 2: was changed" in out
    assert "error[EQ612]" in cli.err
    assert cli.json("audit", "verify", status=1)["error"]["code"] == "EQ612"


def test_nothing_is_changed_where_it_cannot_be_recorded(loopback_server: Server, site: Path) -> None:
    device = loopback_server.enrol(site, "one", home=".edgeq-audit3")
    marker = loopback_server.home / "changed"
    (site / ".edgeq" / "store.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError):
        prune(device, dry_run=False)
    with pytest.raises(StoreError):
        run_command(device, ["touch", str(marker)])
    assert not marker.exists()


def test_an_interface_without_a_store_records_too(loopback_server: Server, site: Path) -> None:
    device = loopback_server.enrol(site, "one", home=".edgeq-audit4")
    assert entries(site)[0] == ("agent file", "one", "done")
    with pytest.raises(EdgeqError):
        pin(device, "double", None, keep=True)
    assert entries(site)[-2:] == [("pin", "one", "started"), ("pin", "one", "failed: EQ510")]
