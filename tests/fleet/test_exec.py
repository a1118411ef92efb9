"""`edgeq exec` on real SSH servers, by both transports: isolation, timeout, bounded output, exit statuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeq.errors import CommandFailed, DeviceTimeout, UsageError
from edgeq.fleet.run_command import MOST_OUTPUT_BYTES, bounded, run_command, words_of
from edgeq.values import TransportKind
from tests.fleet.cli import Cli
from tests.fleet.servers import Server


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(params=list(TransportKind))
def transport(request: pytest.FixtureRequest) -> TransportKind:
    chosen: TransportKind = request.param
    return chosen


def ours(text: str) -> list[str]:
    """Return the processes of this machine whose command line has a text."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if text in line and "ps -eo" not in line]


def test_one_device_fails_and_the_others_are_shown(loopback_server: Server, site: Path, cli: Cli) -> None:
    loopback_server.enrol(site, "one")
    text = (site / "devices.toml").read_text()
    (site / "devices.toml").write_text(
        text + text.replace("devices.one", "devices.gone").replace(f"= {loopback_server.port}", "= 1")
    )
    assert cli.text("exec", "one", "--", "echo", "a  b", "$HOME; exit 3") == "a  b $HOME; exit 3\n"
    command = "echo out; echo err >&2; cat; exit 7"
    body = json.loads(cli.text("exec", "all", "--retries", "0", "--json", "--", command, status=4))
    one, gone = body["devices"]
    assert (one["ok"], one["exit_status"], one["stdout"]) == (False, 7, "out")
    assert one["stderr"].endswith("err")
    assert one["error"]["code"] == "EQ570"
    assert gone["error"]["code"] == "EQ401"
    assert "EQ801" in body["error"]["code"]
    assert "exit status 3" in cli.refused("exec", "one", "--", "exit 3", status=1, code="EQ570")


@pytest.mark.slow
@pytest.mark.sshd
def test_statuses_by_both_transports(server: Server, site: Path, transport: TransportKind) -> None:
    device = server.enrol(site, transport=transport)
    for command, status in (["true"], 0), (["exit 9"], 9), (["no-such-command"], 127), (["/etc"], 126):
        assert run_command(device, command).exit_status == status
    killed = run_command(device, ["kill -9 $$"])
    assert killed.exit_status in (None, 137)
    assert isinstance(killed.error, CommandFailed)
    # Its input is at its end at once, whatever reads it.
    assert run_command(device, ["cat; read x; echo status $?"]).stdout == "status 1"
    assert run_command(device, ["printf", "%s|", "a b", "$x", "`id`", "'", "\n", "ü"]).stdout == (
        "a b|$x|`id`|'|\n|ü|"
    )


@pytest.mark.slow
@pytest.mark.sshd
def test_a_command_that_does_not_end_is_ended_there_too(
    server: Server, site: Path, transport: TransportKind
) -> None:
    device = server.enrol(site, transport=transport)
    begun_s = time.monotonic()
    with pytest.raises(DeviceTimeout, match="did not end within 2 s"):
        run_command(device, ["sleep 4321.25"], timeout_s=2)
    assert time.monotonic() - begun_s < 30
    until_s = time.monotonic() + 10
    while ours("sleep 4321.25") and time.monotonic() < until_s:
        time.sleep(0.2)
    assert ours("sleep 4321.25") == []


@pytest.mark.slow
@pytest.mark.sshd
@pytest.mark.parametrize(
    "command", ["yes", "yes | tr -d '\\n'", "head -c 3000000 /dev/zero", "yes | head -1000000; exit 5"]
)
def test_output_is_bounded(server: Server, site: Path, transport: TransportKind, command: str) -> None:
    device = server.enrol(site, transport=transport)
    begun_s = time.monotonic()
    result = run_command(device, [command], timeout_s=20)
    assert time.monotonic() - begun_s < 60
    assert result.truncated
    assert len(result.stdout.encode()) <= MOST_OUTPUT_BYTES
    assert result.exit_status in (None, 0, 5)


def test_text_of_a_command_cannot_control_the_terminal(loopback_server: Server, site: Path, cli: Cli) -> None:
    loopback_server.enrol(site)
    out = cli.text("exec", "pi", "--", r"printf '\033[2J\007\n'; printf '\033]0;x\007' >&2")
    assert "\x1b" not in out + cli.err
    assert "\x07" not in out + cli.err
    assert "\\x1b" in out
    assert "\\x1b" in cli.err


# What a device has of a program `timeout`: none; one of an old busybox, which wants -t; one that crashes.
TIMEOUTS = {"none": None, "old": '[ "$1" = -t ] || exit 127; shift 2; exec "$@"', "broken": "kill -9 $$"}


@pytest.fixture(params=[(kind, python) for kind in TIMEOUTS for python in (True, False)], ids=str)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Return a Python, which may be missing, and the environment of a device without a usable `timeout`."""
    kind, has_python = request.param
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sleep", "cat", "echo", "true"):
        (programs / name).symlink_to(str(shutil.which(name)))
    text = TIMEOUTS[kind]
    if text is not None:
        (programs / "timeout").write_text(f"#!/bin/sh\n{text}\n")
        (programs / "timeout").chmod(0o755)
    return (sys.executable if has_python else "python-that-is-missing"), {"PATH": str(programs)}


def run_bare(bare: tuple[str, dict[str, str]], timeout_s: float, *words: str) -> tuple[int, str]:
    argv = bounded(bare[0], timeout_s, list(words))
    done = subprocess.run(
        argv, env=bare[1], capture_output=True, text=True, timeout=60, check=False, input="x"
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_without_a_timeout_program_the_time_holds_too(bare: tuple[str, dict[str, str]]) -> None:
    mark = f"{time.time_ns() % 10**6 + 4000}.5"
    begun_s = time.monotonic()
    status, _ = run_bare(bare, 1, "sleep", mark)
    assert time.monotonic() - begun_s < 20
    assert status in (124, 137, 143)
    assert ours(f"sleep {mark}") == []
    if bare[0] == sys.executable:  # the shell alone cannot end what a command has started
        assert run_bare(bare, 1, "sh", "-c", f"sleep {mark} & wait")[0] == 124
        stubborn = f"trap '' TERM; sleep {mark}; sleep {mark}"
        assert run_bare(bare, 1, "sh", "-c", stubborn)[0] == 124
        assert ours(f"sleep {mark}") == []


@pytest.mark.slow
def test_without_a_timeout_program_statuses_and_input_are_the_same(bare: tuple[str, dict[str, str]]) -> None:
    assert run_bare(bare, 20, "echo", "a  b", "$x", "'") == (0, "a  b $x '\n")
    assert run_bare(bare, 20, "sh", "-c", "cat; exit 9") == (9, "")
    assert run_bare(bare, 20, "no-such-program")[0] == 127
    assert run_bare(bare, 20, "/etc")[0] == 126


def test_the_words_of_a_command() -> None:
    assert words_of(["a | b"]) == ["sh", "-c", "a | b"]
    assert words_of(["a", "|", "b"]) == ["a", "|", "b"]
    for bad in ([], [""], [" "], ["a\0b"], ["x" * 100_000]):
        with pytest.raises(UsageError):
            words_of(bad)
