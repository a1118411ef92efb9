"""What a connection does when the other side is wrong, silent or gone."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import (
    AuthenticationFailed,
    DeviceTimeout,
    HostKeyMismatch,
    LinkLost,
    TransportError,
    Unreachable,
    UsageError,
)
from edgeq.fleet.enrol import enrol, fetch_host_key
from edgeq.fleet.hostkeys import HostKey
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.ssh import connect
from edgeq.fleet.transport import Limits
from edgeq.fleet.watch import Watch
from edgeq.testing.link import faulty_link
from edgeq.testing.loopback import loopback_device
from edgeq.testing.server import Trouble

LIMITS = Limits(first_s=10, silence_s=10, total_s=30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.sshd
def test_the_host_key_is_what_openssh_says_it_is(server) -> None:  # type: ignore[no-untyped-def]
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
    with loopback_device(tmp_path / "device", trouble=Trouble.HANG) as device:
        started_s = time.monotonic()
        with pytest.raises(DeviceTimeout, match="says nothing"):
            fetch_host_key(device.host, device.port, 1)
        assert 0.9 < time.monotonic() - started_s < 4


def test_a_port_with_another_protocol_is_no_ssh_server() -> None:
    def answer(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):  # it may hang up in the middle of this
            sock.sendall(b"HTTP/1.0 400 Bad Request\r\n" * 200)
            sock.settimeout(5)
            while sock.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(TransportError):
            fetch_host_key("127.0.0.1", listener.getsockname()[1], 3)
        thread.join(10)


def test_a_changed_host_key_is_refused_before_the_login(server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with loopback_device(tmp_path / "other") as other:
        pinned = fetch_host_key(other.host, other.port, 10)
    device = dataclasses.replace(server.device(), host_key=str(pinned), identity=tmp_path / "never-read")
    with pytest.raises(HostKeyMismatch) as caught:
        connect(device, timeout_s=10)
    assert pinned.fingerprint in str(caught.value.expected)
    assert server.fingerprint in str(caught.value.got)
    assert "edgeq devices rotate-key pi --fingerprint SHA256:" in str(caught.value.hint)


def test_an_unexpected_fingerprint_stops_the_enrolment(server, workspace: Path) -> None:  # type: ignore[no-untyped-def]
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


def test_a_wrong_key_is_refused_once_and_leaves_the_inventory_alone(  # type: ignore[no-untyped-def]
    server, workspace: Path
) -> None:
    wrong = workspace / "wrong"
    paramiko.RSAKey.generate(2048).write_private_key_file(str(wrong))
    with pytest.raises(AuthenticationFailed, match="refuses") as caught:
        enrol(workspace, name="pi", host=server.host, port=server.port, user=server.user, identity=wrong)
    assert not caught.value.transient
    assert Inventory.load(workspace).devices == ()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no such identity file"), (b"hello", "no private key"), (b"", "no private key")],
)
def test_an_identity_that_is_none_is_a_usage_error(  # type: ignore[no-untyped-def]
    loopback_server, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    identity = tmp_path / "identity"
    if content is not None:
        identity.write_bytes(content)
    with pytest.raises(UsageError, match=problem):
        connect(loopback_server.device(identity=identity), timeout_s=10)


@pytest.mark.sshd
def test_an_identity_with_a_passphrase_names_the_way_out(loopback_server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    identity = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(identity)], check=True)
    with pytest.raises(UsageError, match="passphrase") as caught:
        connect(loopback_server.device(identity=identity), timeout_s=10)
    assert "ssh-add" in str(caught.value.hint)


def test_without_any_key_the_message_says_so(  # type: ignore[no-untyped-def]
    loopback_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    device = dataclasses.replace(loopback_server.device(), identity=None)
    with pytest.raises(AuthenticationFailed, match="no key to log in with"):
        connect(device, timeout_s=10)


def test_a_default_key_is_used_when_none_is_named(  # type: ignore[no-untyped-def]
    loopback_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(loopback_server.identity.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    with connect(dataclasses.replace(loopback_server.device(), identity=None), timeout_s=10) as transport:
        assert list(transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines()) == [b"in"]


@pytest.mark.sshd
def test_the_keys_of_an_ssh_agent_are_used(  # type: ignore[no-untyped-def]
    loopback_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_streams_and_the_exit_status_arrive(server) -> None:  # type: ignore[no-untyped-def]
    with connect(server.device(), timeout_s=10) as transport:
        running = transport.run(
            ["sh", "-c", "cat; echo bad >&2; exit 7"], stdin=[b"one\ntwo\n", b"three"], limits=LIMITS
        )
        assert list(running.lines()) == [b"one", b"two", b"three"]
        ended = running.ended()
        assert (ended.exit_status, ended.stderr, ended.sent_bytes) == (7, "bad", 13)


def test_a_command_that_does_not_read_all_its_input_still_answers(server) -> None:  # type: ignore[no-untyped-def]
    with connect(server.device(), timeout_s=10) as transport:
        running = transport.run(["sh", "-c", "echo enough; exit 1"], stdin=_endless(), limits=LIMITS)
        assert list(running.lines()) == [b"enough"]
        assert running.ended().exit_status == 1


def _endless():  # type: ignore[no-untyped-def]
    while True:
        yield bytes(65536)


@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n")), min_size=1, max_size=4)
)
def test_no_word_is_read_by_the_devices_shell(loopback_server, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    with connect(loopback_server.device(), timeout_s=10) as transport:
        running = transport.run(["printf", "%s\\n", *words], stdin=(), limits=LIMITS)
        assert [line.decode() for line in running.lines()] == words


def test_an_input_that_fails_is_the_callers_own_error(loopback_server) -> None:  # type: ignore[no-untyped-def]
    def broken():  # type: ignore[no-untyped-def]
        yield b"some"
        raise PermissionError(13, "the file is gone")

    with connect(loopback_server.device(), timeout_s=10) as transport:
        running = transport.run(["cat"], stdin=broken(), limits=LIMITS)
        with pytest.raises(PermissionError):
            list(running.lines())


def test_silence_is_a_timeout(server) -> None:  # type: ignore[no-untyped-def]
    limits = Limits(first_s=0.5, silence_s=0.5, total_s=30)
    with connect(server.device(), timeout_s=10) as transport:
        running = transport.run(["sleep", "60"], stdin=(), limits=limits)
        with pytest.raises(DeviceTimeout, match="pi: no answer"):
            list(running.lines())


def test_endless_talk_is_a_timeout_too(loopback_server) -> None:  # type: ignore[no-untyped-def]
    limits = Limits(first_s=5, silence_s=5, total_s=1)
    with connect(loopback_server.device(), timeout_s=10) as transport:
        running = transport.run(["sh", "-c", "while :; do echo x; sleep 0.05; done"], stdin=(), limits=limits)
        with pytest.raises(DeviceTimeout, match="not done after"):
            list(running.lines())


def test_a_frozen_link_is_noticed_by_our_own_watch(server) -> None:  # type: ignore[no-untyped-def]
    with faulty_link(server.host, server.port) as link:
        device = server.device(port=link.port)
        with connect(device, timeout_s=10, watch=Watch(every_s=0.2, patience_s=1.0)) as transport:
            running = transport.run(["cat"], stdin=_endless(), limits=LIMITS)
            link.freeze_after(0)
            started_s = time.monotonic()
            with pytest.raises(DeviceTimeout, match="no sign of life"):
                for _ in running.lines():
                    pass
            assert time.monotonic() - started_s < 8


def test_the_watch_lets_a_long_silent_command_be(server) -> None:  # type: ignore[no-untyped-def]
    with connect(server.device(), timeout_s=10, watch=Watch(every_s=0.2, patience_s=0.8)) as transport:
        running = transport.run(["sh", "-c", "sleep 2; echo done"], stdin=(), limits=LIMITS)
        assert list(running.lines()) == [b"done"]


def test_a_cut_link_is_told_from_an_end(server) -> None:  # type: ignore[no-untyped-def]
    with (
        faulty_link(server.host, server.port) as link,
        connect(server.device(port=link.port), timeout_s=10) as transport,
    ):
        link.cut_after(500_000)
        running = transport.run(["sha256sum"], stdin=_endless(), limits=LIMITS)
        with pytest.raises(LinkLost, match="pi: the connection ended in the middle"):
            list(running.lines())
        with pytest.raises(LinkLost):
            transport.run(["true"], stdin=(), limits=LIMITS)


def test_no_thread_of_ours_is_left_behind(loopback_server) -> None:  # type: ignore[no-untyped-def]
    for _ in range(3):
        with connect(loopback_server.device(), timeout_s=10) as transport:
            list(transport.run(["true"], stdin=(), limits=LIMITS).lines())
    deadline_s = time.monotonic() + 5
    while any(thread.name.startswith("edgeq-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s, [thread.name for thread in threading.enumerate()]
        time.sleep(0.05)


def test_a_host_key_must_be_one() -> None:
    from edgeq.errors import ConfigError

    for text in ("", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA=="):
        with pytest.raises(ConfigError, match="host_key"):
            HostKey.parse(text)
