"""Logins and limits of real SSH servers: they work where OpenSSH would, or one line says what is allowed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeq.errors import AuthenticationFailed, LinkLost, TransportError, UsageError
from edgeq.fleet.agent.upload import Content, upload
from edgeq.fleet.backoff import Backoff, RetryPolicy
from edgeq.fleet.connect import open_agent, open_transport
from edgeq.fleet.enrol import enrol
from edgeq.fleet.operations import status
from edgeq.fleet.ssh.agent_keys import public_blob
from edgeq.values import Device, TransportKind
from tests.fleet.adapters import LIMITS
from tests.fleet.servers import Server
from tests.fleet.sshd import Account, account, quiet, sshd

pytestmark = [pytest.mark.sshd]
BOTH = pytest.mark.parametrize("transport", list(TransportKind), ids=lambda kind: kind.value)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture(scope="module")
def person() -> Iterator[Account]:
    with account(f"edgeq-l{os.getpid()}") as made:
        yield made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder on this machine without keys, and no ssh agent."""
    folder = tmp_path / "me"
    (folder / ".ssh").mkdir(mode=0o700, parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@contextlib.contextmanager
def ssh_agent(folder: Path, keys: list[Path]) -> Iterator[Path]:
    """Run an ssh agent that holds keys, in this order."""
    sock = folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL) as agent:
        try:
            while not sock.exists():
                assert agent.poll() is None
                time.sleep(0.02)
            for key in keys:
                subprocess.run(
                    ["ssh-add", "-q", str(key)], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(sock)}
                )
            yield sock
        finally:
            agent.terminate()


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    quiet("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path))
    return path


def echo(device: Device) -> list[bytes]:
    with open_transport(device) as transport:
        return list(transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines())


def of(server: Server, transport: TransportKind, identity: Path | None = None) -> Device:
    return dataclasses.replace(server.device(), transport=transport, identity=identity)


@pytest.mark.slow
@BOTH
def test_one_session_at_a_time_is_enough(person: Account, tmp_path: Path, transport: TransportKind) -> None:
    person.log_in_with("/bin/bash", {".bashrc": "sleep 45 &"})
    with sshd(tmp_path / "d", person.user, settings="MaxSessions 1") as server:
        device = of(server, transport, server.identity)
        with open_agent(device) as client:
            assert client.facts().device_id
            for number in range(3):
                upload(client, [Content.from_source(f"{transport} {number}".encode())])
        with open_transport(device) as opened:
            for number in range(5):
                lines = opened.run(["echo", str(number)], stdin=(), limits=LIMITS)
                lines.expect_end(0.2)
                assert list(lines.lines()) == [str(number).encode()]
                lines.ended()


@pytest.mark.first_is_quick
@BOTH
def test_no_session_at_all_is_an_error(person: Account, tmp_path: Path, transport: TransportKind) -> None:
    with sshd(tmp_path / "d", person.user, settings="MaxSessions 0") as server:
        device = of(server, transport, server.identity)
        with (
            open_agent(device) as client,
            pytest.raises(TransportError, match="refuses to open a session") as caught,
        ):
            client.facts()
        assert "MaxSessions" in caught.value.hint
        assert not caught.value.transient


def _once_a_place_is_free(connect: Callable[[], Device]) -> Device:
    # sshd counts a connection that has just ended for some moments more.
    for _ in range(50):
        try:
            return connect()
        except LinkLost:
            time.sleep(0.1)
    return connect()


def _hold_the_only_place(server: Server) -> socket.socket:
    for _ in range(100):
        waiting = socket.create_connection((server.host, server.port))
        with contextlib.suppress(ConnectionResetError):
            if waiting.recv(1) == b"S":  # the start of "SSH-2.0", not of a refusal
                return waiting
        waiting.close()
        time.sleep(0.1)
    pytest.fail("sshd has no free place after 10 s")


@pytest.mark.first_is_quick
@BOTH
def test_too_many_connections_may_pass(person: Account, tmp_path: Path, transport: TransportKind) -> None:
    person.log_in_with("/bin/sh", {})
    with sshd(tmp_path / "d", person.user, settings="MaxStartups 1:100:1") as server:
        device = _once_a_place_is_free(lambda: of(server, transport, server.identity))
        with _hold_the_only_place(server) as waiting:
            with pytest.raises(LinkLost) as caught:
                echo(device)
            assert "MaxStartups" in caught.value.hint
            policy = RetryPolicy(backoff=Backoff(tries=5, first_s=0.2), on_retry=lambda *_: waiting.close())
            with open_agent(device, retry_policy=policy) as client:
                assert client.facts().device_id


@pytest.mark.first_is_quick
@BOTH
@pytest.mark.parametrize("most", [6, 3, 2])
def test_an_agent_with_eight_keys_of_which_the_last_is_right(
    person: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: TransportKind, most: int
) -> None:
    person.log_in_with("/bin/sh", {})
    wrong = [new_key(tmp_path / f"wrong{number}") for number in range(7)]
    with (
        sshd(tmp_path / "d", person.user, settings=f"MaxAuthTries {most}") as server,
        ssh_agent(tmp_path, [*wrong, server.identity]) as sock,
    ):
        device = of(server, transport)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        if transport is TransportKind.PARAMIKO and most >= 3:
            assert echo(device) == [b"in"]
        else:
            with pytest.raises(AuthenticationFailed, match="MaxAuthTries") as caught:
                echo(device)
            assert "--identity" in caught.value.hint
            assert "\n" not in caught.value.message
        # A public key chooses one of the agent, whatever the server allows.
        public = server.identity.with_name("identity.pub")
        assert echo(dataclasses.replace(device, identity=public)) == [b"in"]


@pytest.mark.first_is_quick
@BOTH
@pytest.mark.parametrize(
    "file", ["public key", "private key with a passphrase", "only the public key is there"]
)
def test_an_identity_file_chooses_a_key_of_the_agent(
    person: Account,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    transport: TransportKind,
    file: str,
) -> None:
    person.log_in_with("/bin/sh", {})
    wrong = [new_key(tmp_path / f"wrong{number}") for number in range(7)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(sshd(tmp_path / "d", person.user))
        sock = stack.enter_context(ssh_agent(tmp_path, [*wrong, server.identity]))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        path = home / ".ssh" / "work"
        path.with_name("work.pub").write_bytes(server.identity.with_name("identity.pub").read_bytes())
        if file == "private key with a passphrase":
            path.write_bytes(server.identity.read_bytes())
            path.chmod(0o600)
            quiet("ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(path))
        name = f"{path}.pub" if file == "public key" else str(path)
        (home / ".ssh" / "config").write_text(f"Host *\n  IdentityFile {name}\n  IdentitiesOnly yes\n")
        config = home / ".ssh" / "config"
        assert echo(dataclasses.replace(of(server, transport), ssh_config=config)) == [b"in"]
        if path.exists():
            assert echo(of(server, transport, path)) == [b"in"]
        monkeypatch.delenv("SSH_AUTH_SOCK")
        config.write_text(f"Host *\n  IdentityFile {name}\n  IdentitiesOnly yes\n  IdentityAgent {sock}\n")
        assert echo(dataclasses.replace(of(server, transport), ssh_config=config)) == [b"in"]


def test_a_public_key_without_an_agent_is_an_error(person: Account, tmp_path: Path) -> None:
    with (
        sshd(tmp_path / "d", person.user) as server,
        pytest.raises(UsageError, match="is a public key") as caught,
    ):
        echo(of(server, TransportKind.PARAMIKO, server.identity.with_name("identity.pub")))
    assert "ssh-add" in caught.value.hint


@pytest.mark.first_is_quick
@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_the_public_key_of_a_locked_file_is_read(tmp_path: Path, kind: str) -> None:
    key = new_key(tmp_path / "key", kind, passphrase="secret")
    public = key.with_name("key.pub")
    expected = public_blob(public)
    assert expected
    public.unlink()
    assert public_blob(key) == expected
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    assert public_blob(key) is None
    assert public_blob(tmp_path / "nothing") is None


PASSWORDS = "PubkeyAuthentication no\nPasswordAuthentication yes"


@pytest.mark.first_is_quick
@BOTH
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (PASSWORDS, "accepts no key of .*; it allows password"),
        (
            "PubkeyAuthentication no\nPasswordAuthentication no\nKbdInteractiveAuthentication yes",
            "keyboard-interactive",
        ),
        (
            "PasswordAuthentication yes\nAuthenticationMethods publickey,password",
            "accepts the key .* requires.*password",
        ),
        (
            "PasswordAuthentication yes\nAuthenticationMethods password,publickey",
            "accepts no key .* password",
        ),
    ],
)
def test_a_server_that_wants_more_than_a_key_says_what(
    person: Account, tmp_path: Path, settings: str, text: str, transport: TransportKind
) -> None:
    with sshd(tmp_path / "d", person.user, settings=settings) as server:
        for identity in (server.identity, None):
            if identity is None and "publickey,password" in settings:
                continue
            with pytest.raises(AuthenticationFailed, match=text) as caught:
                echo(of(server, transport, identity))
            assert "with a key alone" in caught.value.hint
            assert not caught.value.transient


@pytest.mark.slow
def test_two_keys_one_after_the_other_are_possible(
    person: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.log_in_with("/bin/sh", {})
    with sshd(tmp_path / "d", person.user, settings="AuthenticationMethods publickey,publickey") as server:
        second = new_key(tmp_path / "second")
        with (tmp_path / "d" / "authorized_keys").open("ab") as stream:
            stream.write(second.with_name("second.pub").read_bytes())
        with ssh_agent(tmp_path, [server.identity, new_key(tmp_path / "wrong"), second]) as sock:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
            for transport in TransportKind:
                assert echo(of(server, transport)) == [b"in"]


@pytest.mark.first_is_quick
@BOTH
def test_a_server_that_asks_for_nothing_lets_in(
    person: Account, tmp_path: Path, transport: TransportKind
) -> None:
    person.log_in_with("/bin/sh", {})
    quiet("usermod", "-p", "", person.user)
    try:
        settings = "PermitEmptyPasswords yes\nPasswordAuthentication yes"
        with sshd(tmp_path / "d", person.user, settings=settings) as server:
            assert echo(of(server, transport)) == [b"in"]
    finally:
        quiet("usermod", "-p", "*", person.user)


OLD = {
    "KexAlgorithms diffie-hellman-group1-sha1": ("ed25519", "diffie-hellman-group1-sha1"),
    "Ciphers 3des-cbc": ("ed25519", "3des-cbc"),
    "MACs hmac-md5\nCiphers aes128-ctr": ("ed25519", "hmac-md5"),
    "HostKeyAlgorithms ssh-rsa": ("rsa", "ssh-rsa"),
}

# What paramiko still can.
BOTH_CAN = {("3des-cbc", TransportKind.PARAMIKO), ("hmac-md5", TransportKind.PARAMIKO)}


@pytest.mark.first_is_quick
@BOTH
@pytest.mark.parametrize("settings", OLD)
def test_an_old_server_is_an_error_with_what_it_offers(
    person: Account, tmp_path: Path, workspace: Path, settings: str, transport: TransportKind
) -> None:
    kind, offer = OLD[settings]
    with sshd(tmp_path / "d", person.user, settings=settings, host_key_type=kind) as server:

        def add() -> None:
            enrol(workspace, name="pi", host=server.host, port=server.port, user=server.user,
                  identity=server.identity, transport=transport)  # fmt: skip

        if (offer, transport) in BOTH_CAN:
            return add()
        with pytest.raises(TransportError, match="no common SSH algorithms") as caught:
            add()
        assert offer in caught.value.message
        assert "~/.ssh/config" in caught.value.hint
        assert not caught.value.transient
        return None


@pytest.mark.slow
def test_an_old_server_works_where_openssh_is_configured_to(
    person: Account, tmp_path: Path, home: Path
) -> None:
    person.log_in_with("/bin/sh", {})
    key = new_key(tmp_path / "old", "rsa")
    (home / ".ssh" / "config").write_text(
        "Host *\n  HostKeyAlgorithms +ssh-rsa\n  PubkeyAcceptedAlgorithms ssh-rsa\n"
        "  KexAlgorithms +diffie-hellman-group1-sha1\n"
    )
    settings = "HostKeyAlgorithms ssh-rsa\nPubkeyAcceptedAlgorithms ssh-rsa\nKexAlgorithms "
    settings += "diffie-hellman-group1-sha1"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "authorized_keys").write_bytes(key.with_name("old.pub").read_bytes())
    with sshd(tmp_path / "d", person.user, settings=settings, host_key_type="rsa") as server:
        host_key = " ".join((tmp_path / "d" / "host_key.pub").read_text().split()[:2])
        device = Device(
            name="pi", host=server.host, port=server.port, user=server.user, host_key=host_key, identity=key,
            transport=TransportKind.OPENSSH, ssh_config=home / ".ssh" / "config",
        )  # fmt: skip
        assert echo(device) == [b"in"]


@pytest.mark.slow
def test_a_server_that_signs_rsa_with_sha1_only_is_an_error(person: Account, tmp_path: Path) -> None:
    key = new_key(tmp_path / "old", "rsa")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "authorized_keys").write_bytes(key.with_name("old.pub").read_bytes())
    with (
        sshd(tmp_path / "d", person.user, settings="PubkeyAcceptedAlgorithms ssh-rsa") as server,
        pytest.raises(AuthenticationFailed, match="refuses") as caught,
    ):
        echo(of(server, TransportKind.PARAMIKO, key))
    assert "Ed25519" in caught.value.hint


def test_the_account_answers_at_all(person: Account, tmp_path: Path) -> None:
    person.log_in_with("/bin/sh", {})
    with sshd(tmp_path / "d", person.user) as server:
        assert status(server.device()).models == {}


@pytest.mark.skipif(shutil.which("dropbear") is None, reason="needs dropbear (apt-get install dropbear-bin)")
@pytest.mark.first_is_quick
@BOTH
def test_dropbear_is_an_ssh_server_too(person: Account, tmp_path: Path, transport: TransportKind) -> None:
    person.log_in_with("/bin/sh", {})
    key, host_key = new_key(tmp_path / "key"), tmp_path / "host_key"
    quiet("dropbearkey", "-t", "ed25519", "-f", str(host_key))
    folder = person.home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "authorized_keys").write_bytes(key.with_name("key.pub").read_bytes())
    person.log_in_with("/bin/sh", {})  # the files are the person's now
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    argv = [
        "dropbear",
        "-F",
        "-E",
        "-s",
        "-p",
        f"127.0.0.1:{port}",
        "-r",
        str(host_key),
        "-P",
        str(tmp_path / "pid"),
    ]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            server = Server(
                host="127.0.0.1", port=port, user=person.user, identity=key, fingerprint="", home=folder
            )
            until_s = time.monotonic() + 10
            while True:
                try:
                    device = of(server, transport, key)
                    break
                except TransportError:
                    assert time.monotonic() < until_s
                    time.sleep(0.1)
            with open_agent(device) as client:
                assert client.facts().device_id
                upload(client, [Content.from_source(f"dropbear {transport}".encode())])
            with pytest.raises(AuthenticationFailed, match="refuses"):
                echo(of(server, transport, new_key(tmp_path / "wrong")))
        finally:
            process.terminate()
