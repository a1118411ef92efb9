"""The commands as people type them: exit status, one JSON document, one line about what failed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeq.fleet.agent.file import build_agent
from edgeq.fleet.inventory import Inventory
from edgeq.testing.loopback import loopback_device
from tests.fleet.cli import Cli
from tests.fleet.servers import Server


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def add(cli: Cli, server: Any, name: str = "pi", *more: str, status: int = 0) -> str:
    address = ["--host", server.host, "--port", str(server.port), "--user", server.user]
    return cli.text(
        "devices", "add", name, *address, "--identity", str(server.identity), *more, status=status
    )


def test_a_device_is_added_listed_and_removed(cli: Cli, loopback_server: Server, site: Path) -> None:
    out = add(cli, loopback_server, "pi", "--kind", "raspberry-pi", "--label", "site=lab")
    assert loopback_server.fingerprint in out
    assert "next: edgeq deploy BUNDLE --to pi" in cli.err
    (entry,) = cli.json("devices", "list")["devices"]
    assert (entry["name"], entry["kind"], entry["labels"]) == ("pi", "raspberry-pi", {"site": "lab"})
    assert entry["fingerprint"] == loopback_server.fingerprint
    assert "did you mean 'pi'" in (cli.text("devices", "remove", "pii", status=2) or cli.err)
    cli.text("devices", "remove", "pi")
    assert cli.json("devices", "list")["devices"] == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--label", "site"), "KEY=VALUE"),
        (("--label", "a b=c"), "label"),
        (("--kind", "toaster"), "raspberry-pi"),
        (("--port", "70000"), "65535"),
    ],
)
def test_arguments_that_are_wrong_start_nothing(
    cli: Cli, loopback_server: Server, site: Path, more: tuple[str, ...], message: str
) -> None:
    add(cli, loopback_server, "pi", *more, status=2)
    assert message in cli.err
    assert not (site / "devices.toml").exists()


def test_another_fingerprint_than_the_expected_is_one_line_and_a_hint(
    cli: Cli, loopback_server: Server, site: Path
) -> None:
    add(cli, loopback_server, "pi", "--fingerprint", "SHA256:other", status=1)
    lines = cli.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error[EQ402]: pi: ")
    assert loopback_server.fingerprint in lines[0]
    assert lines[1].startswith("hint: ")


def test_deploy_infer_status_and_rollback(
    cli: Cli, loopback_server: Server, site: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    import numpy as np

    from edgeq.store import Store

    add(cli, loopback_server)
    for model in (loopback_server.home / ".edgeq" / "models").glob("*"):
        import shutil

        shutil.rmtree(model)
    dry = cli.json("deploy", str(bundles["first"]), "--to", "pi", "--dry-run")
    assert dry["dry_run"]
    assert dry["devices"][0]["steps"][-1]["action"] == "create"
    first = cli.json("deploy", str(bundles["first"]), "--to", "pi")["devices"][0]
    assert (first["ok"], first["changed"], first["previous"]) == (True, True, None)
    assert "nothing to do" in cli.text("deploy", str(bundles["first"]), "--to", "all", "--yes")
    out = cli.text("deploy", str(bundles["second"]), "--to", "pi")
    assert f"~ release  double {cli.json('status')['devices'][0]['models']['double']['current'][:12]}" in out
    assert f"in place of {first['release'][:12]}" in out

    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=x.argmax(1))
    answer = cli.json("infer", "double", "--on", "pi", "--data", str(tmp_path / "x.npz"))
    assert (answer["samples"], answer["accuracy"]) == (30, 1.0)

    assert cli.json("rollback", "double", "--on", "pi")["devices"][0]["release"] == first["release"]
    error = cli.json("rollback", "double", "--on", "pi", status=1)["error"]
    assert error["code"] == "EQ507"
    table = cli.text("status").splitlines()
    assert table[1].split()[:3] == ["pi", "double", first["release"][:12]]

    with Store.open(site) as store:
        assert [run.kind for run in store.runs()].count("deploy") == 3
        record = store.release(first["release"])
        assert record is not None
        assert record.reference is not None


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["blob", "link"])
def test_damaged_files_of_a_release_are_seen_and_sent_again(
    cli: Cli, loopback_server: Server, site: Path, bundles: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    import numpy as np

    add(cli, loopback_server)
    cli.text("deploy", str(bundles["first"]), "--to", "pi")
    link = loopback_server.home / ".edgeq" / "models" / "double" / "current" / "model.tflite"
    if damage == "blob":
        blob = link.resolve()
        blob.write_bytes(blob.read_bytes()[:-1])
    else:
        link.unlink()
        link.mkdir()
    cli.text("status", "pi")
    assert "which serves, are damaged; `edgeq deploy BUNDLE --to DEVICE`" in cli.err
    np.savez(tmp_path / "x.npz", x=np.ones((3, 4), np.float32))
    words = ("infer", "double", "--on", "pi", "--data", str(tmp_path / "x.npz"))
    error = cli.json(*words, status=1)["error"]
    assert (error["code"], "model.tflite of double" in error["subject"]) == ("EQ509", True)
    assert "edgeq deploy" in error["hint"]
    assert "damaged" in cli.text("deploy", str(bundles["first"]), "--to", "pi")
    assert cli.json(*words)["samples"] == 3
    assert "nothing to do" in cli.text("deploy", str(bundles["first"]), "--to", "pi")


@pytest.mark.slow
def test_a_dry_run_of_prune_needs_no_store(cli: Cli, site: Path, tmp_path: Path) -> None:
    with loopback_device(tmp_path / "d") as server:
        add(cli, server)
        for path in (site / ".edgeq").glob("store.db*"):
            path.unlink()
        (site / ".edgeq" / "store.db").write_bytes(b"not a database" * 100)
        assert "pi: nothing to remove" in cli.text("prune", "--on", "pi", "--dry-run")
        assert cli.json("prune", "--on", "pi", status=1)["error"]["code"] == "EQ610"


@pytest.mark.slow
def test_pin_prune_and_unpin(cli: Cli, site: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    with loopback_device(tmp_path / "d") as server:
        add(cli, server)
        first = cli.json("deploy", str(bundles["first"]), "--to", "pi")["devices"][0]["release"]
        assert f"double {first[:12]} is pinned" in cli.text("pin", "double", "--on", "pi")
        assert ", as before" in cli.text("pin", "double", "--release", first[:8], "--on", "pi")
        second = cli.json("deploy", str(bundles["second"]), "--to", "pi")["devices"][0]["release"]
        entry = cli.json("status")["devices"][0]["models"]["double"]
        assert (entry["current"], entry["pins"]) == (second, [first])

        # Back to the first: the second is referred to by nothing.
        cli.text("rollback", "double", "--on", "pi")
        out = cli.text("prune", "--on", "pi", "--dry-run")
        assert "pi: would free " in out
        assert f"pi: kept release {first[:12]} (double: serves, double: pinned)" in out
        assert "next: edgeq prune --on pi" in cli.err
        releases = server.home / ".edgeq" / "releases"
        assert {path.name for path in releases.iterdir()} == {first, second}
        document = cli.json("prune", "--on", "all")
        entry = document["devices"][0]
        assert (entry["removed"]["releases"], entry["dry_run"]) == ([second], False)
        assert entry["freed_bytes"] > 0
        assert [path.name for path in releases.iterdir()] == [first]
        assert "nothing to remove" in cli.text("prune", "--on", "pi")
        assert cli.json("prune", "--on", "pi")["devices"][0]["removed"]["blobs"] == []

        assert cli.json("unpin", "double", "--on", "pi")["devices"][0]["pins"] == []
        error = cli.json("pin", "double", "--release", second, "--on", "pi", status=2)["error"]
        assert (error["code"], first[:12] in error["expected"]) == ("EQ103", True)
        error = cli.json("pin", "nobody", "--on", "pi", status=1)["error"]
        assert error["code"] == "EQ510"
        assert cli.json("deploy", str(bundles["second"]), "--to", "pi")["devices"][0]["release"] == second


@pytest.mark.slow
def test_one_of_two_devices_failing_is_exit_4_and_the_other_is_done(
    cli: Cli, loopback_server: Server, site: Path, bundles: dict[str, Path]
) -> None:
    add(cli, loopback_server)
    add(cli, loopback_server, "gone", "--home", ".edgeq-gone")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    path = site / "devices.toml"
    head, _, tail = path.read_text().partition("[devices.gone]")
    path.write_text(f"{head}[devices.gone]{tail.replace(str(loopback_server.port), str(port))}")
    once = ("--retries", "0")  # what is not there does not come while this waits
    document = cli.json("deploy", str(bundles["first"]), "--to", "all", *once, status=4)
    by_name = {entry["device"]: entry for entry in document["devices"]}
    assert by_name["pi"]["ok"]
    assert by_name["gone"]["error"]["code"] == "EQ401"
    assert document["error"]["code"] == "EQ801"
    assert "error[EQ801]: deploy: 1 of 2 devices failed: gone (EQ401)" in cli.err
    out = cli.text("deploy", str(bundles["first"]), "--to", "all", *once, status=4)
    assert "pi: nothing to do" in out
    assert "gone: failed, " in out
    error = cli.json("deploy", str(bundles["first"]), "--to", "gone", *once, status=1)["error"]
    assert error["code"] == "EQ401"


def test_a_bundle_that_is_none_is_refused_before_any_device_is_asked(
    cli: Cli, loopback_server: Server, site: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    add(cli, loopback_server)
    (tmp_path / "x.eqb").write_bytes(bundles["first"].read_bytes()[:-100])
    for path in (tmp_path / "x.eqb", tmp_path / "absent.eqb"):
        error = cli.json("deploy", str(path), "--to", "pi", status=1)["error"]
        assert error["code"].startswith("EQ6")
    assert "did you mean 'pi'" in (
        cli.text("deploy", str(bundles["first"]), "--to", "pu", status=2) or cli.err
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected arrays x"),
        ({"z": [1.0]}, "expected arrays x"),
        ({"x": []}, "at least 1"),
        ({"x": [float("nan")]}, "not finite"),
        ({"x": [1.0, 2.0], "y": [1]}, "2 labels"),
        ({"x": ["a"]}, "expected numbers"),
    ],
)
def test_data_that_cannot_be_used_does_not_reach_the_device(
    cli: Cli, loopback_server: Server, site: Path, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    import numpy as np

    Inventory.load(site).add(loopback_server.device())
    np.savez(
        tmp_path / "x.npz", **{name: np.array(value) for name, value in arrays.items()}, allow_pickle=True
    )
    cli.text("infer", "double", "--on", "pi", "--data", str(tmp_path / "x.npz"), status=1)
    assert message in cli.err


def test_a_file_that_is_not_an_npz(cli: Cli, loopback_server: Server, site: Path, tmp_path: Path) -> None:
    Inventory.load(site).add(loopback_server.device())
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not really")
    for name in ("x.npz", "absent.npz"):
        cli.text("infer", "double", "--on", "pi", "--data", str(tmp_path / name), status=1)
        assert "error[EQ2" in cli.err


@pytest.mark.sshd
def test_a_device_over_the_ssh_program(cli: Cli, loopback_server: Server, site: Path) -> None:
    add(cli, loopback_server, "pi", "--transport", "openssh")
    assert "(openssh)" in cli.text("devices", "list")
    (entry,) = cli.json("devices", "list")["devices"]
    assert (entry["transport"], entry["jump"], entry["jump_fingerprints"]) == ("openssh", None, [])
    assert cli.json("status", "pi")["devices"][0]["ok"]
    path = site / "devices.toml"
    path.write_text(path.read_text().replace('"openssh"', '"telnet"'))
    cli.text("status", "pi", status=2)
    assert "expected one of paramiko, openssh, got 'telnet'" in cli.err


@pytest.mark.slow
def test_changes_of_keys_are_noted_and_trust_is_one_line(
    cli: Cli, loopback_server: Server, site: Path
) -> None:
    from edgeq.store import Store

    add(cli, loopback_server)
    key = cli.json("keys", "new", "second")["key"]["id"]
    cli.text("keys", "trust", "second", "--on", "pi")
    assert key in cli.text("status", "pi").splitlines()[-1]
    assert any(check["name"] == "trust" for check in cli.json("doctor", "pi", status=0)["checks"])
    cli.text("keys", "revoke", key, "--on", "pi")
    assert f"revoked {key}" in cli.text("status", "pi")
    cli.text("devices", "rotate-key", "pi", "--fingerprint", loopback_server.fingerprint)
    cli.text("devices", "rotate-key", "pi", status=2)
    assert "--jump-fingerprint" in cli.err
    with Store.open(site) as store:
        # The verbs of the agent have entries of their own, whose names are one word.
        actions = [(record.action, record.subject) for record in store.audit() if " " in record.action]
        noted = [action for action in actions if action[0] != "agent file"]
        after = store.audit()[0].body["after"]
    assert noted == [
        ("devices rotate-key", "pi"),
        ("keys revoke", "pi"),
        ("keys trust", "pi"),
        ("devices add", "pi"),
    ]
    assert after["fingerprint"] == loopback_server.fingerprint


def test_a_changed_host_key_stops_every_command(cli: Cli, site: Path, tmp_path: Path) -> None:
    with loopback_device(tmp_path / "d") as device:
        add(cli, device)
    (tmp_path / "d" / "host_key").unlink()
    with loopback_device(tmp_path / "d", port=device.port) as changed:
        for command in (("status",), ("rollback", "double", "--on", "pi")):
            error = cli.json(*command, status=1)["error"]
            assert error["code"] == "EQ402"
            assert device.fingerprint in error["expected"]
            assert changed.fingerprint in error["got"]
            assert "edgeq devices rotate-key pi" in error["hint"]


@pytest.mark.slow
def test_an_emulated_device_lives_until_it_is_stopped(cli: Cli, site: Path) -> None:
    cli.text("devices", "emulate", "toy", "--detach", "--label", "site", status=2)
    document = cli.json("devices", "emulate", "toy", "--detach", "--label", "site=lab")
    try:
        assert cli.json("status", "label:site=lab")["devices"][0]["ok"]
        assert document["device"]["labels"] == {"emulated": "yes", "site": "lab"}
        cli.text("devices", "emulate", "toy", "--detach", status=2)
        assert "is running already" in cli.err
    finally:
        cli.text("devices", "stop", "toy")
    cli.text("status", "toy", status=1)
    cli.text("devices", "stop", "toy", status=2)
    again = cli.json("devices", "emulate", "toy", "--detach")
    cli.text("devices", "stop", "toy")
    assert again["fingerprint"] == document["fingerprint"]
    assert again["device"]["labels"] == document["device"]["labels"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("disposition", "sent", "status"),
    [
        # Whoever starts the tests in the background has them ignore SIGINT, and so would this command.
        ("--default-signal=INT", signal.SIGINT, 0),
        ("--ignore-signal=INT", signal.SIGTERM, -signal.SIGTERM),
    ],
    ids=["ctrl-c", "in the background, SIGTERM"],
)
def test_an_emulated_device_ends_with_the_command_that_started_it(
    site: Path, disposition: str, sent: int, status: int
) -> None:
    edgeq = Path(sys.executable).with_name("edgeq")
    argv = ["env", disposition, str(edgeq), "devices", "emulate", "toy", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            pid = json.loads(process.stdout.readline())["pid"]
            process.send_signal(sent)
            _, talk = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == status, talk
    end_s = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end_s, "the device outlives it"
        time.sleep(0.05)


def test_an_emulated_device_does_not_take_the_name_of_a_real_one(
    cli: Cli, loopback_server: Server, site: Path
) -> None:
    add(cli, loopback_server)
    cli.text("devices", "emulate", "pi", "--detach", status=2)
    assert "is enrolled already" in cli.err
    assert Inventory.load(site).get("pi").port == loopback_server.port


def test_the_agent_is_built_as_a_file(cli: Cli, workspace: Path) -> None:
    document = cli.json("agent", "build", "-o", "out/agent.pyz")
    assert (workspace / "out" / "agent.pyz").read_bytes() == build_agent().data
    assert document["sha256"] == build_agent().sha256


def test_without_devices_the_commands_say_what_to_do(cli: Cli, workspace: Path) -> None:
    assert cli.json("status")["devices"] == []
    assert "edgeq devices add" in cli.err
    cli.text("devices", "list")
    assert "edgeq devices add" in cli.err
