"""A connection whose other side is wrong, silent or gone."""

from __future__ import annotations

import dataclasses
import re
import socket
import subprocess
import time
from pathlib import Path

import paramiko
import pytest

from edgeq.errors import AuthenticationFailed, DeviceTimeout, HostKeyMismatch, Unreachable, UsageError
from edgeq.fleet.enrol import enrol, fetch_host_key
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.transport import connect
from edgeq.fleet.transport import Limits
from edgeq.testing.loopback import loopback_device
from edgeq.testing.server import Fault
from tests.fleet.servers import Server

LIMITS = Limits(first_s=10, silence_s=10, total_s=30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.sshd
def test_the_host_key_is_what_openssh_says_it_is(server: Server) -> None:
    key = fetch_host_key(server.host, server.port, 10)
    assert key.fingerprint == server.fingerprint
    scanned = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", "-p", str(server.port), server.host], capture_output=True, text=True
    ).stdout
    assert str(key) in scanned


def test_nothing_that_listens_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"nothing answers at 127\.0\.0\.1"):
        fetch_host_key("127.0.0.1", free_port(), 2)


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"no-such-host\.invalid"):
        fetch_host_key("no-such-host.invalid", 22, 2)


def test_a_server_that_says_nothing_is_a_timeout_within_its_bound(tmp_path: Path) -> None:
    with loopback_device(tmp_path / "device", fault=Fault.HANG) as device:
        started_s = time.monotonic()
        with pytest.raises(DeviceTimeout, match="sends nothing"):
            fetch_host_key(device.host, device.port, 1)
        assert 0.9 < time.monotonic() - started_s < 4


def test_an_unexpected_fingerprint_stops_the_enrolment(server: Server, workspace: Path) -> None:
    with pytest.raises(HostKeyMismatch, match=re.escape(server.fingerprint)):
        enrol(
            workspace,
            name="pi",
            host=server.host,
            port=server.port,
            user=server.user,
            identity=server.identity,
            expected_fingerprint="SHA256:" + "A" * 43,
        )
    assert not (workspace / "devices.toml").exists()


def test_a_wrong_key_is_refused_once_and_leaves_the_inventory_alone(server: Server, workspace: Path) -> None:
    wrong = workspace / "wrong"
    paramiko.RSAKey.generate(2048).write_private_key_file(str(wrong))
    with pytest.raises(AuthenticationFailed, match="refuses") as caught:
        enrol(workspace, name="pi", host=server.host, port=server.port, user=server.user, identity=wrong)
    assert not caught.value.transient
    assert Inventory.load(workspace).devices == ()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "identity file not found"),
        (b"hello", "is not a usable private key"),
        (b"", "is not a usable private key"),
    ],
)
def test_an_identity_that_is_none_is_a_usage_error(
    loopback_server: Server, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    identity = tmp_path / "identity"
    if content is not None:
        identity.write_bytes(content)
    with pytest.raises(UsageError, match=problem):
        connect(loopback_server.device(identity=identity), timeout_s=10)


@pytest.mark.sshd
def test_an_identity_with_a_passphrase_names_the_way_out(loopback_server: Server, tmp_path: Path) -> None:
    identity = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(identity)], check=True)
    with pytest.raises(UsageError, match="passphrase") as caught:
        connect(loopback_server.device(identity=identity), timeout_s=10)
    assert "ssh-add" in str(caught.value.hint)


def test_without_any_key_the_message_says_so(
    loopback_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    device = dataclasses.replace(loopback_server.device(), identity=None)
    with pytest.raises(AuthenticationFailed, match="no key to log in with"):
        connect(device, timeout_s=10)


def test_a_default_key_is_used_when_none_is_named(
    loopback_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(loopback_server.identity.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    with connect(dataclasses.replace(loopback_server.device(), identity=None), timeout_s=10) as transport:
        assert list(transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines()) == [b"in"]


@pytest.mark.sshd
def test_the_keys_of_an_ssh_agent_are_used(
    loopback_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL) as agent:
        try:
            while not sock.exists():
                assert agent.poll() is None
                time.sleep(0.02)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
            monkeypatch.setenv("HOME", str(tmp_path))
            device = dataclasses.replace(loopback_server.device(), identity=None)
            with pytest.raises(AuthenticationFailed, match="no key"):
                connect(device, timeout_s=10)
            subprocess.run(["ssh-add", "-q", str(loopback_server.identity)], check=True)
            with connect(device, timeout_s=10) as transport:
                assert list(transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines()) == [b"in"]
        finally:
            agent.terminate()


def test_a_host_key_must_be_one() -> None:
    from edgeq.errors import ConfigError

    for text in ("", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA=="):
        with pytest.raises(ConfigError, match="host_key"):
            HostKey.parse(text)
