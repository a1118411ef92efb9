"""The loopback device is a device: its own environment, its own keys, nothing of it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from edgeq.errors import EdgeqError, TransportError
from edgeq.testing.loopback import LoopbackDevice, loopback_device, start


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackDevice]:
    with loopback_device(tmp_path_factory.mktemp("loopback")) as running:
        yield running


@pytest.fixture
def session(device: LoopbackDevice) -> Iterator[paramiko.Transport]:
    with log_in(device) as transport:
        yield transport


@contextlib.contextmanager
def log_in(device: LoopbackDevice) -> Iterator[paramiko.Transport]:
    transport = paramiko.Transport(socket.create_connection((device.host, device.port), timeout=10))
    try:
        transport.start_client(timeout=10)
        transport.auth_publickey(device.user, paramiko.Ed25519Key.from_private_key_file(str(device.identity)))
        yield transport
    finally:
        transport.close()


def run(transport: paramiko.Transport, command: str) -> tuple[int, bytes]:
    channel = transport.open_session(timeout=10)
    channel.settimeout(10)
    channel.exec_command(command)
    data = b""
    while piece := channel.recv(65536):
        data += piece
    status = channel.recv_exit_status()
    channel.close()
    return status, data


def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends while this reads
        return False


def test_commands_see_only_the_devices_environment(
    session: paramiko.Transport, device: LoopbackDevice
) -> None:
    os.environ["EDGEQ_SECRET"] = "x"
    status, data = run(session, "env -u PWD -u _ -u SHLVL -u OLDPWD")
    names = {line.partition("=")[0] for line in data.decode().splitlines()}
    assert (status, names) == (0, {"HOME", "PATH", "LANG"})
    assert run(session, "pwd; echo $HOME")[1].decode().split() == [str(device.home), str(device.home)]


def test_its_python_does_not_see_our_packages(session: paramiko.Transport) -> None:
    status, data = run(session, "python3 -c 'import sys; print(sys.version_info[0]); import paramiko'")
    assert (status, data) == (1, b"3\n")


def test_the_exit_status_and_a_signal_arrive(session: paramiko.Transport) -> None:
    assert run(session, "exit 42") == (42, b"")
    assert run(session, "kill -9 $$") == (137, b"")


def test_only_the_key_lets_in(device: LoopbackDevice) -> None:
    transport = paramiko.Transport(socket.create_connection((device.host, device.port), timeout=10))
    try:
        transport.start_client(timeout=10)
        with pytest.raises(paramiko.BadAuthenticationType, match="publickey"):
            transport.auth_password(device.user, "")
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey(device.user, paramiko.RSAKey.generate(2048))
        key = paramiko.Ed25519Key.from_private_key_file(str(device.identity))
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey("somebody-else", key)
    finally:
        transport.close()


def test_it_listens_on_this_machine_alone(device: LoopbackDevice) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f"{device.port:04X}"
    assert {line[1] for line in listening if line[1].endswith(f":{port}") and line[3] == "0A"} == {
        f"0100007F:{port}"
    }


def test_what_runs_on_it_ends_with_its_connection(device: LoopbackDevice) -> None:
    with log_in(device) as transport:
        channel = transport.open_session(timeout=10)
        channel.settimeout(10)
        channel.exec_command("echo $$; sleep 300 & wait")
        pid = int(channel.recv(100))
        assert alive(pid)
    until(lambda: not alive(pid))


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, os\nfrom edgeq.testing.loopback import start\n"
        "device = start(pathlib.Path(sys.argv[1]))\nprint(device.pid, flush=True)\nos._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 9
    until(lambda: not alive(int(done.stdout)))


def test_a_folder_used_before_keeps_its_keys_and_files(tmp_path: Path) -> None:
    with loopback_device(tmp_path / "d") as first:
        (first.home / "kept").write_text("x")
    with loopback_device(tmp_path / "d", port=first.port) as second:
        assert (second.fingerprint, second.port) == (first.fingerprint, first.port)
        assert (second.home / "kept").exists()
        assert oct((tmp_path / "d" / "identity").stat().st_mode)[-3:] == "600"


def test_a_taken_port_is_an_error_with_its_reason(device: LoopbackDevice, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="in use"):
        start(tmp_path / "d", port=device.port)


def test_the_ready_line_is_what_people_get_too(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "edgeq.testing.loopback", str(tmp_path / "d"), "--until-eof"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["ready"]
        assert ready["fingerprint"].startswith("SHA256:")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def test_sftp_shows_the_home_and_nothing_else(session: paramiko.Transport, device: LoopbackDevice) -> None:
    with paramiko.SFTPClient.from_transport(session) as sftp:  # type: ignore[union-attr]
        with sftp.open("a", "wb") as stream:
            stream.write(b"x" * 100_000)
        sftp.posix_rename("a", "b")
        assert (device.home / "b").read_bytes() == b"x" * 100_000
        assert sftp.stat("b").st_size == 100_000
        assert "b" in sftp.listdir(".")
        (device.home / "way-out").symlink_to("/etc")
        for path in ("../host_key", "/../../etc/passwd", "way-out/passwd"):
            with pytest.raises(OSError, match=r".+"):
                sftp.stat(path)
        sftp.remove("b")
        assert not (device.home / "b").exists()


def test_a_small_home_fills_up(tmp_path: Path) -> None:
    try:
        with loopback_device(tmp_path / "d", home_size_bytes=1_000_000) as small, log_in(small) as transport:
            status, data = run(transport, "head -c 2000000 /dev/zero > file 2>&1; df -P . | tail -1")
            assert status == 0
            assert b"100%" in data
    except EdgeqError as error:
        if "does not allow" not in error.message:
            raise
        pytest.skip(error.message)


def test_an_ordinary_user_may_have_one_too(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    # Imported first: the user may not read this Python. And a process that changed its user has to say that
    # its own /proc entries are its own again (PR_SET_DUMPABLE).
    code = (
        "import ctypes, os, sys, pathlib\nfrom edgeq.testing.small_home import mount_small\n"
        "os.setgid(65534); os.setuid(65534); ctypes.CDLL(None).prctl(4, 1)\n"
        "folder = pathlib.Path(sys.argv[1])\nmount_small(folder, 524288)\n"
        "print(os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize)\n(folder / 'a').write_text('b')\n"
    )
    folder = Path(tempfile.mkdtemp(prefix="edgeq-small-"))
    os.chown(folder, 65534, 65534)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    finally:
        folder.rmdir()
    if done.returncode != 0:
        pytest.skip(f"this machine: {done.stderr.strip().splitlines()[-1]}")
    assert int(done.stdout) == 524_288
