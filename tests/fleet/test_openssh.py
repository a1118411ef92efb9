"""The ssh program's own behaviour: the user's settings, its processes, its messages."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import (
    AuthenticationFailed,
    ConfigError,
    DeviceTimeout,
    EdgeqError,
    HostKeyMismatch,
    HostKeyRevoked,
    HostKeyUnknown,
    LinkLost,
    ToolMissing,
    TransportError,
    Unreachable,
)
from edgeq.fleet.agent.payloads import load_samples
from edgeq.fleet.connect import open_transport
from edgeq.fleet.deploy import deploy_one
from edgeq.fleet.enrol import fetch_host_key, rotate_key
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.openssh.argv import alias
from edgeq.fleet.openssh.diagnosis import SshLog, end_error, login_error
from edgeq.fleet.openssh.master import Master
from edgeq.fleet.openssh.transport import connect, shown_host_key
from edgeq.fleet.operations import infer, rollback, status
from edgeq.fleet.ssh.keepalive import Watch
from edgeq.fleet.transport import Limits
from edgeq.testing.faulty_link import faulty_link
from edgeq.testing.loopback import loopback_device
from edgeq.values import Device, TransportKind
from tests.fleet.servers import enrol_at

pytestmark = pytest.mark.sshd
LIMITS = Limits(first_s=30, silence_s=30, total_s=60)


def echo(device: Device, **more: Any) -> list[bytes]:
    with connect(device, **more) as transport:
        return list(transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with an empty `.ssh`."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_the_program_one_line_says_what_to_do(
    loopback_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = loopback_server.device()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="needs the ssh program") as caught:
        connect(device)
    assert "apt-get install openssh-client" in caught.value.hint
    assert caught.value.exit_status == 2


def test_the_entry_of_a_device_chooses_the_transport(
    loopback_server: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = loopback_server.enrol(site, transport=TransportKind.OPENSSH)
    assert 'transport = "openssh"' in (site / "devices.toml").read_text()
    assert Inventory.load(site).get("pi") == device
    with open_transport(device) as transport:
        assert type(transport).__module__ == "edgeq.fleet.openssh.transport"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissing):
        status(device)


@pytest.mark.slow
def test_the_whole_life_of_a_model_over_openssh(server: Any, site: Path, read: Any, tmp_path: Path) -> None:
    import numpy as np

    # A folder of its own: what other tests deployed has counters that these releases would be behind.
    device = server.enrol(site, transport=TransportKind.OPENSSH, home=".edgeq-openssh")
    first, second = read("first"), read("second")
    done = deploy_one(device, first, workspace=site)
    assert done.changed
    again = deploy_one(device, first, workspace=site)
    assert (again.changed, again.sent_bytes) == (False, 0)
    replaced = deploy_one(device, second, workspace=site)
    assert replaced.previous == first.release
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "data.npz", x=x)
    answer = infer(device, "double", load_samples(tmp_path / "data.npz").payload)
    assert (answer.samples, answer.release) == (3, second.release)
    assert rollback(device, "double").release == first.release
    assert status(device).models["double"].current == first.release


def test_the_users_settings_are_followed_by_ssh_itself(home: Path, loopback_server: Any) -> None:
    device = loopback_server.device()
    (home / ".ssh" / "more").write_text(f"Host far\n  Port {device.port}\n")
    (home / ".ssh" / "config").write_text(
        # `Match exec` is nothing that edgeq itself would follow.
        f"Include {home}/.ssh/more\nMatch originalhost far exec true\n  HostName 127.0.0.1\n"
    )
    assert echo(dataclasses.replace(device, host="far", port=22)) == [b"in"]
    with pytest.raises(Unreachable, match="'far'"):
        echo(dataclasses.replace(device, host="far", port=22, ssh_config=False))


def test_no_setting_of_the_user_weakens_what_edgeq_promises(
    home: Path, loopback_server: Any, tmp_path: Path
) -> None:
    device = loopback_server.device()
    shown = shown_host_key(device)
    everyone, forward = home / ".ssh" / "everyone", free_port()
    everyone.write_text(f"* {shown}\nedgeq-device-pi {shown}\n")
    (home / ".ssh" / "config").write_text(
        f"Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile {everyone}\n"
        f"  GlobalKnownHostsFile {everyone}\n  KnownHostsCommand /bin/echo edgeq-device-pi {shown}\n"
        "  NoHostAuthenticationForLocalhost yes\n  HostKeyAlias other\n  VerifyHostKeyDNS yes\n"
        f"  PermitLocalCommand yes\n  LocalCommand touch {home}/ran\n  RemoteCommand touch {home}/ran\n"
        f"  ControlMaster auto\n  ControlPath {home}/.ssh/master\n  ControlPersist 10m\n"
        "  RequestTTY force\n  LogLevel QUIET\n  ServerAliveInterval 0\n"
        f"  LocalForward {forward} 127.0.0.1:1\n  ProxyUseFdpass no\n"
    )
    with connect(device) as transport, socket.socket() as probe:
        lines = transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines()
        assert list(lines) == [b"in"], "with the right key it works"
        assert probe.connect_ex(("127.0.0.1", forward)) != 0, "nothing is forwarded"
    assert not (home / "ran").exists()
    assert not (home / ".ssh" / "master").exists()
    with loopback_device(tmp_path / "other") as other:
        wrong = fetch_host_key(other.host, other.port, 9)
    with pytest.raises(HostKeyMismatch):
        echo(dataclasses.replace(device, host_key=str(wrong)))
    assert everyone.read_text() == f"* {shown}\nedgeq-device-pi {shown}\n"


def test_the_words_of_another_language_change_nothing(
    loopback_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANG", "LC_ALL", "LANGUAGE"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    with pytest.raises(Unreachable, match="nothing answers"):
        echo(dataclasses.replace(loopback_server.device(), port=free_port()))


def test_a_key_with_a_passphrase_does_not_prompt(loopback_server: Any, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    with pytest.raises(AuthenticationFailed) as caught:
        echo(loopback_server.device(identity=locked))
    assert "ssh-add" in caught.value.hint


def test_settings_that_ssh_refuses_are_named(home: Path, loopback_server: Any) -> None:
    (home / ".ssh" / "config").write_text("Host *\n  NoSuchSetting yes\n")
    with pytest.raises(ConfigError, match="nosuchsetting"):
        echo(loopback_server.device())


def test_a_file_of_settings_that_was_named_must_be_there(loopback_server: Any, tmp_path: Path) -> None:
    device = dataclasses.replace(loopback_server.device(), ssh_config=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no such file"):
        echo(device)


def test_a_long_name_of_the_temporary_folder_is_gone_around(
    loopback_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert echo(loopback_server.device()) == [b"in"]
    assert list(long.iterdir()) == []


def test_the_folder_of_a_connection_is_private(loopback_server: Any) -> None:
    with connect(loopback_server.device()) as transport:
        folder = transport.folder
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "known_hosts").read_text().count("\n") == 1
    assert not folder.exists()


def test_a_process_that_is_killed_leaves_no_ssh_behind(loopback_server: Any, tmp_path: Path) -> None:
    device = loopback_server.device()
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom edgeq.fleet.openssh.transport import connect\n"
        "from edgeq.values import Device\n"
        "host, port, user, key, identity = sys.argv[1:]\n"
        "device = Device(name='pi', host=host, port=int(port), user=user, host_key=key,"
        " identity=Path(identity))\n"
        "transport = connect(device)\n"
        "print(transport.ssh_pid, transport.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    argv = [device.host, str(device.port), device.user, device.host_key, str(device.identity)]
    with subprocess.Popen([sys.executable, "-c", script, *argv], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().decode().split()
        group = int(pid)
        assert group_members(group)
        process.kill()
        process.wait()
    until_s = time.monotonic() + 10
    while group_members(group) or Path(folder).exists():
        assert time.monotonic() < until_s, group_members(group)
        time.sleep(0.05)


def test_an_ssh_that_hangs_is_noticed_and_ended(loopback_server: Any) -> None:
    watch = Watch(every_s=0.2, patience_s=1.0)
    with connect(loopback_server.device(), watch=watch) as transport:
        running = transport.run(["sleep", "600"], stdin=(), limits=LIMITS)
        for pid in group_members(transport.ssh_pid):
            os.kill(pid, signal.SIGSTOP)
        started_s = time.monotonic()
        with pytest.raises(DeviceTimeout, match="the ssh program did not respond"):
            list(running.lines())
        assert time.monotonic() - started_s < 8


@pytest.mark.slow
def test_a_session_too_many_is_an_error_and_the_others_go_on(sshd_server: Any) -> None:
    with connect(sshd_server.device()) as transport:
        running = []

        def start() -> None:
            running.append(transport.run(["sh", "-c", "sleep 3; echo done"], stdin=(), limits=LIMITS))

        for _ in range(10):  # MaxSessions
            start()
        with pytest.raises(TransportError, match="refuses to open a session") as caught:
            start()
        assert type(caught.value) is TransportError
        assert [list(one.lines()) for one in running] == [[b"done"]] * 10
        start()
        assert list(running[-1].lines()) == [b"done"]


def test_what_ssh_says_is_kept_up_to_a_limit(tmp_path: Path) -> None:
    master = Master(
        ["/bin/sh", "-c", "yes 'debug1: talk' | head -c 3000000 >&2"], folder=tmp_path / "f", name="pi"
    )
    assert master.wait(30)
    assert sum(map(len, master.lines())) < 70_000
    master.end()


def test_a_signal_is_counted_once_even_in_two_pieces(tmp_path: Path) -> None:
    line = "debug1: client_input_channel_req: channel 0 rtype exit-signal reply 0"
    script = f"printf '{line[:50]}' >&2; sleep 0.3; printf '{line[50:]}\\n{line}\\n' >&2"
    master = Master(["/bin/sh", "-c", script], folder=tmp_path / "f", name="pi")
    assert master.wait(30)
    assert master.signals == 2
    master.end()


def test_a_link_that_is_cut_during_the_login_may_pass(server: Any) -> None:
    with faulty_link(server.host, server.port) as link:
        device = server.device(port=link.port)
        link.cut_after(700)
        with pytest.raises(TransportError) as caught:
            connect(device)
        assert caught.value.transient


def test_the_key_is_seen_without_a_login(server: Any) -> None:
    device = dataclasses.replace(server.device(), identity=None, user="nobody-there")
    assert shown_host_key(device).fingerprint == server.fingerprint


@pytest.mark.slow
def test_a_host_key_is_rotated_over_openssh(workspace: Path, tmp_path: Path) -> None:
    with loopback_device(tmp_path / "device") as device:
        enrol_at(device, workspace, transport=TransportKind.OPENSSH)
        port = device.port
    (tmp_path / "device" / "host_key").unlink()
    with loopback_device(tmp_path / "device", port=port) as anew:
        with pytest.raises(HostKeyMismatch):
            status(Inventory.load(workspace).get("pi"))
        assert rotate_key(workspace, "pi", fingerprint=anew.fingerprint).transport is TransportKind.OPENSSH
        assert status(Inventory.load(workspace).get("pi")).models == {}


DEVICE = Device(
    name="pi",
    host="10.0.0.7",
    user="ann",
    host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    jump="gate",
)


@pytest.mark.parametrize(
    ("lines", "kind", "text"),
    [
        (["gate: Permission denied (publickey)."], AuthenticationFailed, "refuses"),
        (["ann@10.0.0.7: Permission denied (publickey)."], AuthenticationFailed, "pi: refuses 'ann'"),
        (["ben@gate: Permission denied (publickey).", "Connection closed by UNKNOWN port 65535"],
         AuthenticationFailed, "pi (via gate): refuses 'ben': ben@gate: Permission denied (publickey)."),
        (["ann@10.0.0.7: Permission denied (publickey).", "Connection closed by UNKNOWN port 65535"],
         AuthenticationFailed, "pi (via 10.0.0.7): refuses 'ann': ann@10.0.0.7: Permission denied"),
        (["Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures"],
         AuthenticationFailed, "pi: refuses"),
        (["No ED25519 host key is known for gate and you have requested strict checking.",
          "Host key verification failed."], HostKeyUnknown, "pi (via gate): the host key of jump host gate"),
        (["Host key for gate has changed and you have requested strict checking.",
          "Host key verification failed."], HostKeyMismatch, "pi (via gate): jump host gate"),
        (["The ED25519 host key for gate is marked as revoked."],
         HostKeyRevoked, "revokes"),
        (["ssh: Could not resolve hostname gate: Name or service not known"], Unreachable,
         "'gate' cannot be resolved"),
        (["channel 0: open failed: connect failed: Connection refused", "stdio forwarding failed",
          "kex_exchange_identification: Connection closed by remote host"],
         Unreachable, "cannot connect to it"),
        (["Connection timed out during banner exchange"], DeviceTimeout, "sends nothing"),
        (["Unable to negotiate with 10.0.0.7 port 22: no matching cipher found. Their offer: 3des-cbc"],
         TransportError, "no common SSH algorithms"),
        (["banner exchange: Connection to 10.0.0.7 port 22: invalid format",
          "kex_exchange_identification: banner line contains invalid characters"], TransportError,
         "not an SSH server"),
        (["kex_exchange_identification: Connection closed by remote host"], LinkLost, "during the handshake"),
        (["ssh: something new"], TransportError, "ssh ended: ssh: something new"),
        ([], TransportError, "it gave no reason"),
    ],
)  # fmt: skip
def test_what_ssh_said_becomes_our_error(lines: list[str], kind: type[EdgeqError], text: str) -> None:
    error = login_error(SshLog(device=DEVICE, alias=alias(DEVICE), lines=tuple(lines)))
    assert type(error) is kind
    assert text in str(error)


def test_the_end_of_a_connection_is_silence_or_a_loss() -> None:
    def end(*lines: str) -> EdgeqError:
        return end_error(SshLog(device=DEVICE, alias=alias(DEVICE), lines=lines))

    assert type(end("Timeout, server 10.0.0.7 not responding.")) is DeviceTimeout
    assert type(end("client_loop: send disconnect: Broken pipe")) is LinkLost


def group_members(group: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[2]) == group and stat[0] != "Z":
                members.append(int(entry.name))
    return members


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
