"""Staged deploys over real SSH devices, as people type them: stages, a device down, abort, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.fleet.inventory import Inventory
from edgeq.testing.loopback import LoopbackDevice, start
from tests.fleet.cli import Cli

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LoopbackDevice]]:
    """Four loopback devices for all tests of this file: each test clears what they serve."""
    started = {name: start(tmp_path_factory.mktemp(f"device-{name}")) for name in NAMES}
    yield started
    for device in started.values():
        device.stop()


class Fleet(Cli):
    """The devices of one workspace, and `edgeq` in this process or in one of its own."""

    def __init__(self, site: Path, capsys: pytest.CaptureFixture[str], bundles: dict[str, Path]) -> None:
        super().__init__(capsys)
        self.site, self.bundles = site, bundles

    def deploy(self, bundle: str, *more: str, status: int = 0) -> dict[str, Any]:
        return self.json("deploy", str(self.bundles[bundle]), "--to", "all", *more, status=status)

    def serving(self) -> dict[str, str | None]:
        entries = self.json("status")["devices"]
        return {entry["device"]: entry["models"].get("double", {}).get("current") for entry in entries}


@pytest.fixture
def fleet(
    machines: dict[str, Any], site: Path, capsys: pytest.CaptureFixture[str], bundles: dict[str, Path]
) -> Fleet:
    import shutil

    made = Fleet(site, capsys, bundles)
    for name, machine in machines.items():
        for model in (machine.home / ".edgeq" / "models").glob("*"):
            shutil.rmtree(model)
        for file in ("journal", "trust.json"):  # each test's workspace has a key and counters of its own
            (machine.home / ".edgeq" / file).unlink(missing_ok=True)
        address = ["--host", machine.host, "--port", str(machine.port), "--user", machine.user]
        label = "canary=yes" if name == "c" else "canary=no"
        made.text("devices", "add", name, *address, "--identity", str(machine.identity), "--label", label)
    return made


def unplug(site: Path, name: str) -> None:
    """Let a device's address be one where nothing answers."""
    from dataclasses import replace

    inventory = Inventory.load(site)
    inventory.replace(replace(inventory.get(name), port=1))


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["device"]: entry for entry in document["devices"]}


def test_a_plan_changes_nothing(fleet: Fleet) -> None:
    document = fleet.json("plan", str(fleet.bundles["first"]), "--to", "all")
    assert document["schema"] == "edgeq.plan/1"
    assert {entry["steps"][-1]["action"] for entry in document["devices"]} == {"create"}
    assert set(fleet.serving().values()) == {None}
    fleet.deploy("first", "--yes")
    out = fleet.text("plan", str(fleet.bundles["first"]), "--to", "label=canary=yes")
    assert "c: nothing to do" in out
    unplug(fleet.site, "a")
    document = fleet.json("plan", str(fleet.bundles["second"]), "--to", "all", status=4)
    assert by_name(document)["a"]["error"]["code"] == "EQ401"


def test_stages_one_down_one_refusing_then_retry_then_rollback(fleet: Fleet) -> None:
    first = fleet.deploy("first", "--yes")["release"]
    stages = ("--stages", "label:canary=yes,100%", "--soak", "1s", "--abort", "any>50%")
    port = Inventory.load(fleet.site).get("a").port
    unplug(fleet.site, "a")
    document = fleet.deploy("second", *stages, status=4)
    rollout = document["rollout"]
    assert document["schema"] == "edgeq.rollout/1"
    assert document["state"] == "done"
    assert document["counts"] == {"succeeded": 3, "unreachable": 1}
    assert document["error"]["code"] == "EQ801"
    entries = by_name(document)
    assert (entries["c"]["stage"], entries["a"]["code"]) == (0, "EQ401")
    assert all(entries[name]["before"] == first for name in "bcd")
    assert "stage 1/2 (label:canary=yes), 1 device: 1 pending; begins" in fleet.err

    from dataclasses import replace

    inventory = Inventory.load(fleet.site)
    inventory.replace(replace(inventory.get("a"), port=port))
    before = fleet.json("rollout", "show", rollout)
    assert by_name(before)["a"]["outcome"] == "unreachable"
    document = fleet.deploy("second", *stages, "--retry-failed")
    assert document["rollout"] == rollout
    assert document["counts"] == {"succeeded": 4}
    assert set(fleet.serving().values()) == {document["release"]}

    # One device was rolled back by hand: this rollout must not change what it serves now.
    fleet.text("rollback", "double", "--on", "d")
    document = fleet.json("rollout", "rollback", rollout)
    assert document["state"] == "rolled_back"
    assert {entry["restored"] for entry in document["devices"]} == {"restored"}
    assert set(fleet.serving().values()) == {first}
    (line,) = [line for line in fleet.text("rollout", "list").splitlines() if line.startswith(rollout)]
    assert "rolled_back" in line
    fleet.text("rollout", "resume", rollout, status=1)
    assert "error[EQ825]" in fleet.err


def test_a_broken_bundle_aborts_at_the_canary_and_what_served_serves(fleet: Fleet) -> None:
    first = fleet.deploy("first", "--yes")["release"]
    document = fleet.deploy(
        "wrong", "--stages", "1,100%", "--abort", "failed>0", "--on-abort", "rollback", status=3
    )
    assert document["error"]["code"] == "EQ710"
    assert document["state"] == "rolled_back"
    assert document["counts"] == {"failed": 1, "pending": 3}
    assert set(fleet.serving().values()) == {first}
    out = fleet.text("deploy", str(fleet.bundles["coral"]), "--to", "all", "--stages", "1,100%", status=3)
    assert "error[EQ824]" in fleet.err  # one device is too few for any>10%,min=5, so the rollout pauses
    assert ": refused, " in out
    rollout = fleet.json("rollout", "list")["rollouts"][-1]["rollout"]
    fleet.deploy("first", "--stages", "100%", status=1)
    assert "error[EQ823]" in fleet.err
    fleet.text("rollout", "resume", rollout, "--accept", status=3)
    assert "stage 2" in fleet.err
    fleet.text("rollout", "abort", rollout)
    assert set(fleet.serving().values()) == {first}
    assert fleet.deploy("first", "--stages", "100%")["counts"] == {"succeeded": 4}
    assert fleet.json("rollout", "show", rollout)["state"] == "aborted"


def test_wrong_options_begin_nothing(fleet: Fleet) -> None:
    for options, message in (
        (("--at-once", "2"), "require --stages"),
        (("--stages", "1,100%", "--abort", "faild>5%"), "did you mean 'failed'"),
        (("--stages", "1,2"), "2 of 4 devices are in no stage"),
        (("--stages", "1,100%", "--soak", "soon"), "--soak"),
        (("--stages", "100%", "--retry-failed"), "there is no rollout of double"),
    ):
        document = fleet.deploy("first", *options, status=2)
        assert message in document["error"]["message"]
    document = fleet.deploy("first", "--stages", "1,100%", "--dry-run")
    assert [len(stage["devices"]) for stage in document["stages"]] == [1, 3]
    assert fleet.json("rollout", "list")["rollouts"] == []
    fleet.text("rollout", "show", "doubel-1", status=2)
    assert set(fleet.serving().values()) == {None}


@pytest.mark.parametrize("moment", ["looked", "deployed", "soaking", "advanced"])
def test_a_controller_that_is_killed_is_continued_by_another(
    fleet: Fleet, machines: dict[str, LoopbackDevice], moment: str
) -> None:
    fleet.deploy("first", "--yes")
    process = controller(fleet, "second", "--stages", "2,100%", "--soak", "2s", "--at-once", "1")
    journal = journal_of(fleet.site)
    wait_for(journal, moment, process)
    # While it runs, no other process gets the lease.
    rollout = journal.parent.name
    fleet.text("rollout", "resume", rollout, status=1)
    assert f"error[EQ821]: {rollout}: has a controller already: process {process.pid}" in fleet.err
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert fleet.json("rollout", "show", rollout)["state"] in ("running", "soaking")
    document = fleet.json("rollout", "resume", rollout)
    assert (document["state"], document["counts"]) == ("done", {"succeeded": 4})
    assert set(fleet.serving().values()) == {document["release"]}
    # By the devices' own journals: none was activated a second time.
    assert {activations(machine, document["release"]) for machine in machines.values()} == {1}
    fleet.text("rollout", "resume", rollout, status=1)
    assert "error[EQ825]" in fleet.err


def test_pause_reaches_the_controller_in_another_process_and_resume_ends_it(fleet: Fleet) -> None:
    fleet.deploy("first", "--yes")
    process = controller(fleet, "second", "--stages", "1,100%", "--soak", "60s")
    journal = journal_of(fleet.site)
    wait_for(journal, "soaking", process)
    rollout = journal.parent.name
    assert fleet.json("rollout", "pause", rollout)["asked"] == "pause"
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "error[EQ824]" in err
    assert "paused, requested by the operator" in out
    fleet.text("rollout", "pause", rollout, status=1)
    assert "error[EQ825]" in fleet.err
    fleet.text("rollout", "resume", rollout, "--accept", status=1)  # nothing failed that could be accepted
    fleet.text("rollout", "abort", rollout)
    assert fleet.json("rollout", "rollback", rollout)["state"] == "rolled_back"


def test_a_damaged_journal_is_one_line_and_the_others_are_listed(fleet: Fleet) -> None:
    fleet.deploy("first", "--stages", "100%")
    journal = journal_of(fleet.site)
    journal.write_bytes(journal.read_bytes().replace(b'"succeeded"', b'"rolled_back"', 1))
    rollout = journal.parent.name
    for command in ("show", "resume", "pause", "rollback"):
        fleet.text("rollout", command, rollout, status=1)
        assert "error[EQ822]" in fleet.err
    assert fleet.deploy("first", "--stages", "100%")["counts"] == {"succeeded": 4}
    document = fleet.json("rollout", "list")
    assert ["error" in entry for entry in document["rollouts"]] == [True, False]


def test_a_device_whose_application_fails_while_soaking_rolls_back(
    fleet: Fleet, machines: dict[str, LoopbackDevice]
) -> None:
    first = fleet.deploy("first", "--yes")["release"]
    process = controller(fleet, "second", "--stages", "label:canary=yes,100%", "--soak", "20s", "--json")
    wait_for(journal_of(fleet.site), "soaking", process)
    state = machines["c"].home / ".edgeq" / "models" / "double" / "state.json"
    body = json.loads(state.read_text(encoding="utf-8"))
    assert body["state"] == "soaking", "the device runs its own soak"
    fail = "import sys; from edgeq_agent.activation import counters; from edgeq_agent.storage import home; "
    fail += "counters.add(home.Home(sys.argv[1]), 'double', sys.argv[2], calls=9, errors=9)"
    subprocess.run(
        [sys.executable, "-c", fail, str(machines["c"].home / ".edgeq"), body["target"]],
        check=True,
        timeout=30,
    )
    out, err = process.communicate(timeout=120)
    document = json.loads(out)
    assert by_name(document)["c"]["outcome"] == "rolled_back", (document, err)
    assert document["state"] != "done"
    assert set(fleet.serving().values()) == {first}, "the other devices were not touched"


def controller(fleet: Fleet, bundle: str, *more: str) -> subprocess.Popen[str]:
    argv = [str(Path(sys.executable).with_name("edgeq")), "deploy", str(fleet.bundles[bundle])]
    environment = {**os.environ, "EDGEQ_WORKSPACE": str(fleet.site)}
    return subprocess.Popen(
        [*argv, "--to", "all", *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def journal_of(site: Path) -> Path:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        for path in site.glob(".edgeq/rollouts/*/journal.jsonl"):
            return path
        time.sleep(0.01)
    raise AssertionError("no rollout began")


def wait_for(journal: Path, event: str, process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 120
    while f'"event":"{event}"' not in journal.read_text(encoding="utf-8"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, journal.read_text(encoding="utf-8")
        time.sleep(0.01)


def activations(machine: LoopbackDevice, release: str) -> int:
    """How often the release was committed there, by the device's own journal."""
    lines = (machine.home / ".edgeq" / "journal").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return sum(entry.get("state") == "committed" and entry["release"] == release for entry in entries)
