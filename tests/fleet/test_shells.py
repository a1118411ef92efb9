"""Login shells and their start files: what can work works, and the rest is said within seconds."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.errors import CommandNotRun, DeviceTimeout, DeviceUnsupported, EdgeqError, ShellHangs
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.upload import Content, upload
from edgeq.fleet.connect import open_agent
from edgeq.fleet.operations import status
from edgeq.fleet.ssh.keepalive import Watch
from edgeq.testing.faulty_link import faulty_link
from edgeq.values import Device, TransportKind
from tests.fleet.adapters import ADAPTERS
from tests.fleet.servers import Server
from tests.fleet.sshd import Account, account, sshd

pytestmark = [pytest.mark.sshd]

BOTH = pytest.mark.parametrize("transport", list(TransportKind), ids=lambda kind: kind.value)
BASH, ZSH, FISH = "/bin/bash", "/usr/bin/zsh", "/usr/bin/fish"


@pytest.fixture(scope="module")
def person() -> Iterator[Account]:
    with account(f"edgeq-s{os.getpid()}") as made:
        yield made


@pytest.fixture(scope="module")
def shells(person: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with sshd(tmp_path_factory.mktemp("shells"), person.user, home=person.home) as server:
        yield server


def log_in(person: Account, shell: str, files: dict[str, str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed (apt-get install {Path(shell).name})")
    person.log_in_with(shell, files)


def ask_all(device: Device, payload: bytes) -> None:
    """Each kind of conversation with an agent, over one connection each."""
    assert status(device).models == {}
    with open_agent(device) as client:
        assert upload(client, [Content.from_source(payload)]).stored, "the first command carries a payload"
    with open_agent(device) as client:
        client.install_agent_file()
        assert client.call("telemetry", {"limit": 1})["pending"] == 0


WORKS = {
    "no start file": (BASH, {}),
    "output without a newline": (BASH, {".bashrc": "printf 'Disk 80%% full '"}),
    "output in colours and a bell": (BASH, {".bashrc": r"printf '\033[31mwelcome\033[0m\a\r\n\377\376'"}),
    "output that looks like an answer": (
        BASH,
        {".bashrc": 'echo \'{"edgeq": 1, "python": [3, 9], "home": "/"}\''},
    ),
    "a thousand lines": (BASH, {".bashrc": "seq 1000"}),
    "a process that holds the output": (BASH, {".bashrc": "sleep 45 &"}),
    "a process that prints meanwhile": (
        BASH,
        {".bashrc": "(for n in $(seq 40); do printf 'job '; sleep 0.05; done) &"},
    ),
    "a trap": (BASH, {".bashrc": "trap 'echo bye; sleep 45' EXIT"}),
    "a read": (BASH, {".bashrc": "read -r answer"}),
    "two reads": (BASH, {".bashrc": "read -p 'Continue? ' a; read b"}),
    "errors into the output": (BASH, {".bashrc": "exec 2>&1; echo warning >&2; set -x"}),
    "a trace of commands": (BASH, {".bashrc": "exec 2>&1; set -x; export SHELLOPTS"}),
    "strict settings": (BASH, {".bashrc": "set -euo pipefail"}),
    "another folder": (BASH, {".bashrc": "cd /"}),
    "a function called python3": (BASH, {".bashrc": "python3() { echo other; }"}),
    "settings of another Python": (
        BASH,
        {".bashrc": "export PYTHONHOME=/none PYTHONPATH=/none PYTHONSTARTUP=/x PYTHONVERBOSE=1"},
    ),
    "a file called like a module": (BASH, {"json.py": "raise SystemExit('not the json of Python')"}),
    "zsh": (ZSH, {".zshenv": "printf 'from zsh'; alias python3=false; read -r x"}),
    "ksh": ("/usr/bin/ksh", {}),
    "tcsh": ("/usr/bin/tcsh", {".tcshrc": "printf 'from tcsh'"}),
    "fish": (FISH, {".config/fish/config.fish": "printf 'from fish'; sleep 45 &"}),
}


@pytest.mark.first_is_quick
@BOTH
@pytest.mark.parametrize("name", WORKS)
def test_an_agent_answers_in_spite_of(
    person: Account, shells: Server, name: str, transport: TransportKind
) -> None:
    shell, files = WORKS[name]
    log_in(person, shell, files)
    try:
        started_s = time.monotonic()
        ask_all(dataclasses.replace(shells.device(), transport=transport), f"{name} {transport}".encode())
        assert time.monotonic() - started_s < 40
    finally:
        (person.home / "json.py").unlink(missing_ok=True)


FAILS: dict[str, tuple[str, dict[str, str], type[EdgeqError], str]] = {
    "exit": (
        BASH,
        {".bashrc": "exit 0"},
        CommandNotRun,
        "ended with exit status 0 and did not run the command",
    ),
    "exit with a word": (
        BASH,
        {".bashrc": "echo under repair; exit 3"},
        CommandNotRun,
        "status 3 .* 'under repair'",
    ),
    "an error of the shell": (BASH, {".bashrc": "echo no quota >&2; exit 1"}, CommandNotRun, "'no quota'"),
    "exec fish": (BASH, {".bashrc": "exec fish"}, CommandNotRun, r"another shell \(`exec`\)"),
    "exec zsh": (BASH, {".bashrc": "exec zsh -l"}, CommandNotRun, r"another shell \(`exec`\)"),
    "exec bash": (
        BASH,
        {".bashrc": '[ -n "$AGAIN" ] || AGAIN=1 exec bash'},
        CommandNotRun,
        r"another shell \(`exec`\)",
    ),
    "exec of what needs a terminal": (BASH, {".bashrc": "exec tty"}, CommandNotRun, "'not a tty'"),
    "no output": (BASH, {".bashrc": "exec >/dev/null"}, CommandNotRun, "silently"),
    "no execution": (BASH, {".bashrc": "set -n"}, CommandNotRun, "silently"),
    "nologin": ("/usr/sbin/nologin", {}, CommandNotRun, "'This account is currently not available.'"),
    "false": ("/bin/false", {}, CommandNotRun, "exit status 1"),
    "zsh that exits": (ZSH, {".zshenv": "print closed; exit 1"}, CommandNotRun, "'closed'"),
    "a path without Python": (
        BASH,
        {".bashrc": "PATH=/usr/sbin:$HOME; hash -p /bin/sh sh"},
        DeviceUnsupported,
        "not found",
    ),
    "a shell that waits": (
        BASH,
        {".bashrc": "echo waiting for the server; sleep 300"},
        ShellHangs,
        "'waiting for the server'",
    ),
    "a shell that prints on": (BASH, {".bashrc": "yes out of paper"}, EdgeqError, "without an end"),
}


@pytest.mark.first_is_quick
@BOTH
@pytest.mark.parametrize("name", FAILS)
def test_a_shell_that_runs_no_command_is_an_error_within_seconds(
    person: Account, shells: Server, name: str, transport: TransportKind
) -> None:
    shell, files, kind, text = FAILS[name]
    log_in(person, shell, files)
    device = dataclasses.replace(shells.device(), transport=transport)
    for ask in (lambda client: client.facts(), lambda client: upload(client, [Content.from_source(b"x")])):
        started_s = time.monotonic()
        with pytest.raises(kind, match=text) as caught, open_agent(device, timeout_s=4) as client:
            ask(client)
        assert time.monotonic() - started_s < 20
        assert not caught.value.transient
        assert "\n" not in caught.value.message


@pytest.mark.slow
def test_a_start_file_that_eats_the_input_is_an_error(person: Account, shells: Server) -> None:
    log_in(person, BASH, {".bashrc": "cat >/dev/null"})
    with (
        open_agent(shells.device(), timeout_s=1) as client,
        pytest.raises(DeviceUnsupported, match="reads the input of the command to its end"),
    ):
        client.call("telemetry", {})


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("ForceCommand internal-sftp", "'This service allows sftp connections only.'"),
        ("ForceCommand /usr/lib/openssh/sftp-server", "offers sftp only"),
        ("ForceCommand echo backups only; exit 4", "status 4 .* 'backups only'"),
        ("ForceCommand /bin/true", "silently"),
        ("ForceCommand exec /bin/sh", r"another shell"),
    ],
)
def test_a_forced_command_is_an_error(person: Account, tmp_path: Path, settings: str, text: str) -> None:
    person.log_in_with("/bin/sh", {})
    with (
        sshd(tmp_path / "forced", person.user, settings=settings) as server,
        open_agent(server.device()) as client,
        pytest.raises(CommandNotRun, match=text),
    ):
        client.facts()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ('command="echo backups only"', "'backups only'"),
        ('command="exit 7"', "exit status 7"),
        ("restrict", None),
    ],
)
def test_an_option_of_the_key_that_runs_something_else_is_an_error(
    person: Account, tmp_path: Path, option: str, text: str | None
) -> None:
    person.log_in_with("/bin/sh", {})
    with sshd(tmp_path / "forced", person.user) as server:
        keys = tmp_path / "forced" / "authorized_keys"
        keys.write_text(f"{option} {keys.read_text()}")
        with open_agent(server.device()) as client:
            if text is None:
                assert client.facts().device_id
                return
            with pytest.raises(CommandNotRun, match=text):
                client.facts()


@pytest.mark.slow
@BOTH
def test_a_link_that_freezes_before_the_command_starts_may_pass(
    person: Account, shells: Server, transport: TransportKind
) -> None:
    log_in(person, BASH, {".bashrc": "sleep 2"})
    watch = Watch(every_s=1.0, patience_s=2.0)
    with faulty_link(shells.host, shells.port) as link:
        device = dataclasses.replace(shells.device(), port=link.port, transport=transport)
        with ADAPTERS[transport.value](device, timeout_s=9, watch=watch) as opened:
            client = AgentClient(device, opened, timeout_s=9)
            threading.Timer(1.0, link.freeze_after, [0]).start()
            with pytest.raises(DeviceTimeout) as caught:
                client.facts()
            assert caught.value.transient
            assert not isinstance(caught.value, ShellHangs)


@pytest.mark.slow
def test_no_word_of_the_input_reaches_a_shell(person: Account, shells: Server) -> None:
    log_in(person, BASH, {".bashrc": "exec sh"})
    with open_agent(shells.device(), timeout_s=1) as client, pytest.raises(CommandNotRun):
        upload(client, [Content.from_source(b"\ntouch ~/pwned\n" * 5000)])
    assert not (person.home / "pwned").exists()
