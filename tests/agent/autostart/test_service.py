"""Autostart without an init system: the real agent installs, runs, supervises, shows and removes it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.fleet.agent.file import build_agent
from edgeq_agent.storage import code_folder
from tests.agent.served import parsed, rest

pytestmark = pytest.mark.convert
WAIT_S = 150.0


def until(what: str, check: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + WAIT_S
    while not (value := check()):
        assert time.monotonic() < deadline_s, f"not within {WAIT_S} s: {what}"
        time.sleep(0.05)
    return value


def plain(device: Any, folder: Path) -> Any:
    """A device without crontab and systemctl on its path, and with the agent where the host places it."""
    agents = device.home / "agent"
    agents.mkdir(parents=True, exist_ok=True)
    (agents / build_agent().name).write_bytes(build_agent().data)
    (folder / "bin").mkdir()
    environment = {**device.environment, "PATH": str(folder / "bin"), "HOME": str(folder)}
    return dataclasses.replace(device, environment=environment)


@pytest.fixture
def board(serving: Any, tmp_path: Path) -> Iterator[Any]:
    """A device that serves a model; what its service left running is ended."""
    made = plain(serving, tmp_path)
    try:
        yield made
    finally:
        made.call("service", action="disable")


def supervisor(board: Any) -> int | None:
    path = board.home / "service" / "serve.json"
    token = json.loads(path.read_text())["token"] if path.exists() else ""
    pid = token.partition(".")[0]
    return int(pid) if pid and not gone(int(pid)) else None


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends while this reads
        return True


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def answers(board: Any) -> bool:
    try:
        request = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return status_of(board, request) == 200
    except (ConnectionError, FileNotFoundError):
        return False


def status_of(board: Any, request: bytes) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(WAIT_S)
        link.connect(str(board.home / "serve.sock"))
        link.sendall(request)
        status: int = parsed(rest(link))[0]
        return status


@pytest.mark.slow
def test_an_autostart_without_an_init_system_is_installed_run_once_and_an_error(board: Any) -> None:
    error = board.call("service", action="enable", kind="plain").error
    assert error["code"] == "EQ557"
    assert "nothing runs" in error["problem"]
    script = board.home / "service" / "start.sh"
    assert str(script) in error["hint"]
    assert os.access(script, os.X_OK)
    status = board.call("service", action="status").result
    assert (status["enabled"], status["kind"], status["at_boot"], status["whole"]) == (
        True,
        "plain",
        False,
        True,
    )
    assert status["last"]["ok"] is True
    assert status["last"]["models"]["tiny"]["state"] == "committed"
    assert status["ran_in_this_boot"]
    assert not status["seen_at_boot"], "a start by hand is none of the device"
    assert board.call("status").result["service"]["kind"] == "plain"
    assert board.call("probe").result["service"]["whole"] is True


@pytest.mark.slow
def test_disabling_leaves_nothing(board: Any) -> None:
    board.call("service", action="enable", kind="plain")
    before = {path.name for path in board.home.iterdir()}
    gone = board.call("service", action="disable").result
    assert (gone["changed"], gone["enabled"]) == (True, False)
    assert list((board.home / "service").iterdir()) == []
    assert {path.name for path in board.home.iterdir()} == before
    assert board.call("service", action="disable").result["changed"] is False
    assert board.call("status").result["service"] is None


@pytest.mark.slow
def test_a_changed_file_is_reported_and_enabling_again_restores_it(board: Any) -> None:
    board.call("service", action="enable", kind="plain")
    script = board.home / "service" / "start.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    status = board.call("service", action="status").result
    assert status["whole"] is False
    assert "changed after the installation" in status["why"]
    board.call("service", action="enable", kind="plain")
    assert board.call("service", action="status").result["whole"] is True


@pytest.mark.slow
def test_the_start_ends_a_soak_that_a_restart_interrupted(
    board: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    board.call("service", action="enable", kind="plain")
    float_bundle.send(board)
    answer = board.call("activate", **float_bundle.request(soak_s=600)).result
    assert answer["state"] == "soaking"
    # The kernel's boot cannot be changed here: the trial is moved into an earlier one.
    path = board.home / "models" / "tiny" / "state.json"
    path.write_text(path.read_text().replace(boot_id(), "0" * 8 + boot_id()[8:]))
    script = board.home / "service" / "start.sh"
    subprocess.run([str(script)], check=True, timeout=120, env=board.environment)
    assert board.current("tiny") == int8_bundle.release
    last = board.call("service", action="status").result["last"]
    assert last["models"]["tiny"]["changed"] is True
    assert "restarted" in last["models"]["tiny"]["reason"]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.slow
def test_the_server_is_restarted_until_the_service_is_disabled(board: Any) -> None:
    board.call("service", action="enable", kind="plain", models=["tiny"])
    pid = until("a supervisor", lambda: supervisor(board))
    until("an answer", lambda: answers(board))
    (child,) = children(pid)
    os.kill(child, signal.SIGKILL)
    until("another process", lambda: children(pid) not in ([], [child]))
    until("an answer again", lambda: answers(board))
    status = board.call("service", action="status").result
    assert status["models"] == ["tiny"]
    assert status["serving"]["restarts"] == 1
    assert status["serving"]["problem"] == "killed by signal 9"
    # The agent that serves stays, also when a newer one is placed.
    name = build_agent().name
    newer = board.home / "agent" / "edgeq-agent-ffffffffffff.pyz"
    newer.write_bytes(build_agent().data)
    assert name not in board.call("prune").result["removed"]["agents"]
    (child,) = children(pid)
    board.call("service", action="disable").result  # noqa: B018 - asserts success
    assert gone(pid)
    assert gone(child)
    assert not answers(board)


@pytest.mark.slow
def test_the_server_of_a_service_asks_for_the_token(board: Any) -> None:
    token = board.home.parent / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    request = {"action": "enable", "kind": "plain", "models": ["tiny"]}
    for wrong in ("token", ""):
        error = board.call("service", **request, token_file=wrong).error
        assert (error["code"], error["subject"]) == ("EQ512", "token_file")
    board.call("service", **request, token_file=str(token))
    until("an answer", lambda: answers(board))
    assert board.call("service", action="status").result["token_file"] == str(token)
    metadata = b"GET /v2/models/tiny HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    assert status_of(board, metadata + b"\r\n") == 401
    assert status_of(board, metadata + b"Authorization: Bearer 0123456789abcdef\r\n\r\n") == 200


@pytest.mark.parametrize(
    "options",
    [
        {"unix": "serve.sock"}, {"sessions": -1}, {"sessions": "x"}, {"on-swap": "never"}, {"no-such": 1},
        {"threads": 0}, {"deadline": -1}, {"allow-origin": ["x"]}, {"socket-mode": "777"},
        {"socket-mode": "666"}, {"help": True}, {"home": "/x"}, {"model": "m"}, {"port": 1},
        {"unix": "/x", "host": 3}, {"host": "10.0.0.1"},
        {"sess": 4}, {"unix": ["/a", {"b": 1}]}, {"max-body": 10**20},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.slow
def test_an_option_that_serve_would_refuse_is_refused_before_anything_is_installed(
    board: Any, options: dict[str, Any]
) -> None:
    request = {"action": "enable", "kind": "plain", "models": ["tiny"], "options": options}
    assert board.call("service", **request).error["code"] in ("EQ512", "EQ548")
    assert board.call("service", action="status").result["enabled"] is False


@pytest.mark.slow
def test_the_server_of_a_service_has_its_options(board: Any) -> None:
    folder = Path(tempfile.mkdtemp(prefix="edgeq-sock-"))
    path = str(folder / "s.sock")
    options = {
        "unix": path,
        "socket-mode": "666",
        "sessions": 3,
        "on-swap": "end",
        "allow-origin": ["http://a.b"],
    }
    request = {"action": "enable", "kind": "plain", "models": ["tiny"], "options": options}
    # Nothing starts it at boot here, but it is installed and runs.
    assert board.call("service", **request).error["code"] == "EQ557"
    made = board.call("service", action="status").result
    words = {
        "--unix=" + path,
        "--socket-mode=666",
        "--sessions=3",
        "--on-swap=end",
        "--allow-origin=http://a.b",
    }
    assert set(made["options"]) == words
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
    (child,) = children(until("a supervisor", lambda: supervisor(board)))
    line = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
    assert words <= set(line)


@pytest.mark.slow
def test_a_server_that_keeps_failing_is_given_up_with_its_reason(board: Any) -> None:
    board.call("service", action="enable", kind="plain", models=["tiny"])
    pid = until("a supervisor", lambda: supervisor(board))
    until("an answer", lambda: answers(board))
    # Nothing to serve from now on.
    (board.home / "models" / "tiny" / "current").unlink()
    for child in children(pid):
        os.kill(child, signal.SIGKILL)
    until("it to give up", lambda: supervisor(board) is None)
    status = board.call("service", action="status").result
    assert status["serving"]["problem"].startswith("gave up: ")
    assert status["serving"]["restarts"] == 5


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"action": "reboot"}, "EQ512"),
        ({"action": "enable", "kind": "upstart"}, "EQ512"),
        ({"action": "enable", "kind": "plain", "models": "tiny"}, "EQ512"),
        ({"action": "enable", "kind": "plain", "models": ["../x"]}, "EQ512"),
        ({"action": "enable", "kind": "plain", "models": ["other"]}, "EQ510"),
        ({"action": "enable", "kind": "plain", "port": 80}, "EQ512"),
        ({"action": "enable", "kind": "plain", "models": ["tiny"], "port": 0}, "EQ512"),
        ({"action": "enable", "kind": "termux-boot"}, "EQ558"),
    ],
)
def test_a_refused_request_installs_nothing(board: Any, request_: dict[str, Any], code: str) -> None:
    assert board.call("service", **request_).error["code"] == code
    assert not (board.home / "service").exists()


def test_without_an_agent_file_nothing_is_installed(board: Any) -> None:
    (board.home / "agent" / build_agent().name).unlink()
    error = board.call("service", action="enable", kind="plain").error
    assert error["code"] == "EQ558"
    assert "no agent" in error["problem"]


def test_the_starter_runs_the_newest_agent_file(board: Any, tmp_path: Path) -> None:
    board.call("service", action="enable", kind="plain")
    name = board.home / "agent" / "edgeq-agent-000000000000.pyz"
    name.write_text("print('the newer one')\n")
    argv = [sys.executable, "-I", str(board.home / "service" / "start.py"), "boot"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "the newer one"


def test_the_code_folder_of_other_processes_holds_the_package() -> None:
    assert (Path(code_folder.CODE) / "edgeq_agent" / "__main__.py").is_file()


def test_enabling_fails_when_the_server_does_not_start(board: Any) -> None:
    """A release that cannot be read: `serve` fails, and the call says so."""
    model = board.home / "models" / "tiny" / "current"
    target = model.readlink()
    (target if target.is_absolute() else model.parent / target).joinpath("manifest.json").write_text("{")
    error = board.call("service", action="enable", kind="plain", models=["tiny"]).error
    assert error["code"] == "EQ558"
    assert "does not start" in error["problem"]
