"""The Python API records what the command line records."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeq.benchmark import bench
from edgeq.bundle import read_bundle
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one
from edgeq.fleet.operations import prune_many, rollback_many
from edgeq.store import Store
from tests.fleet.cli import Cli
from tests.fleet.servers import Server
from tests.fleet.test_commands import add

# What differs between two runs of the same operation.
VARYING = {"duration_s", "sent_bytes", "health", "freed_bytes", "time_ns", "boot_id"}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def shape(value: Any) -> Any:
    """Return a record without what varies."""
    if isinstance(value, Mapping):
        return {key: shape(item) for key, item in value.items() if key not in VARYING}
    return [shape(item) for item in value] if isinstance(value, list) else value


def records(workspace: Path) -> tuple[list[Any], list[Any], list[str], list[str]]:
    """Return the runs, the audit log, the releases and the models that were benchmarked."""
    with Store.open(workspace) as store:
        runs = [(run.kind, run.subject, shape(run.body)) for run in reversed(store.runs())]
        audit = [(entry.action, entry.subject, entry.body) for entry in store.audit()]
        return runs, audit, [r.release for r in store.releases()], [b.model for b in store.benches()]


@pytest.mark.slow
def test_the_api_leaves_the_records_of_the_command_line(
    cli: Cli, loopback_server: Server, site: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both halves begin on an empty device; the server is shared with other tests.
    shutil.rmtree(loopback_server.home / ".edgeq", ignore_errors=True)
    add(cli, loopback_server)
    cli.json("deploy", str(bundles["first"]), "--to", "pi")
    cli.json("deploy", str(bundles["second"]), "--to", "pi")
    cli.json("bench", "double", "--on", "pi", "--runs", "2", "--seconds", "0.01")
    cli.json("rollback", "double", "--on", "pi")
    cli.json("prune", "--on", "pi")
    by_command = records(site)

    for name in ("store.db", "audit-head.json"):
        (site / ".edgeq" / name).unlink()
    (site / "devices.toml").unlink()
    shutil.rmtree(loopback_server.home / ".edgeq")
    monkeypatch.setenv("EDGEQ_WORKSPACE", str(site))
    device = loopback_server.enrol(site)
    for name in ("first", "second"):
        deploy_one(device, read_bundle(bundles[name]), workspace=site)
    with open_agent(device) as client:
        bench(client, "double", device="pi", runs=2, min_seconds=0.01)
    rollback_many([device], "double")
    prune_many([device], dry_run=False)
    assert records(site) == by_command
