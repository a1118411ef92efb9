"""Devices to test against: the loopback device and OpenSSH's own sshd, each with a home of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.bundle.archive import Bundle, read_bundle
from edgeq.bundle.keys import workspace_key
from edgeq.testing.loopback import loopback_device
from edgeq.testing.tiny_bundle import write_tiny_bundle as make
from tests.fleet.servers import Read, Server
from tests.once import Once

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
# Its own for each run: two at once must not take it from each other.
USER = f"edgeq-t{os.getpid()}"


@pytest.fixture(scope="session")
def loopback_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One loopback device for tests that do not disturb it."""
    with loopback_device(tmp_path_factory.mktemp("loopback")) as running:
        yield Server(
            host=running.host,
            port=running.port,
            user=running.user,
            identity=running.identity,
            fingerprint=running.fingerprint,
            home=running.home,
        )


@pytest.fixture(scope="session")
def sshd_server() -> Iterator[Server]:
    """OpenSSH's sshd with an ordinary user: a throw-away one where root runs the tests, else the caller."""
    if SSHD is None:
        pytest.skip("OpenSSH's sshd is not installed (apt-get install openssh-server)")
    folder = Path(tempfile.mkdtemp(prefix="edgeq-sshd-"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        user = stack.enter_context(_ordinary_user(folder / "home"))
        yield stack.enter_context(_sshd(folder, user))


@pytest.fixture(scope="session", params=["loopback", pytest.param("sshd", marks=pytest.mark.sshd)])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn."""
    chosen: Server = request.getfixturevalue(f"{request.param}_server")
    return chosen


@pytest.fixture(scope="session")
def wheels_folder(once: Once) -> Path:
    """One cache of wheels for all tests: 38 MB that are fetched once."""
    return once.folder("wheels", lambda empty: None)


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace whose key signs the bundles."""
    folder = tmp_path_factory.mktemp("publisher")
    workspace_key(folder)
    return folder


@pytest.fixture
def site(workspace: Path, wheels_folder: Path, publisher: Path) -> Path:
    """A workspace that has the wheels and the publisher's key already, and no devices."""
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    shutil.copytree(publisher / ".edgeq" / "keys", workspace / ".edgeq" / "keys")
    return workspace


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, publisher: Path) -> dict[str, Path]:
    """Paths of bundles: two good releases of a model, one with wrong golden outputs, one for another kind."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {name: folder / f"{name}.eqb" for name in ("first", "second", "wrong", "coral", "huge", "padded")}
    make(made["first"], seed=0, workspace=publisher)
    make(made["second"], seed=1, workspace=publisher)
    make(made["wrong"], seed=2, factor=3.0, workspace=publisher)
    make(made["coral"], seed=3, kinds=("coral",), workspace=publisher)
    make(made["huge"], seed=4, free_bytes=2**48, workspace=publisher)
    make(made["padded"], seed=5, padding_bytes=6_000_000, workspace=publisher)
    return made


@pytest.fixture
def read(bundles: dict[str, Path]) -> Read:
    """A function that reads one of the bundles."""

    def read_one(name: str) -> Bundle:
        return read_bundle(bundles[name])

    return read_one


@contextlib.contextmanager
def _ordinary_user(home: Path) -> Iterator[str]:
    home.mkdir(mode=0o700)
    if os.getuid() != 0:
        yield pwd.getpwuid(os.getuid()).pw_name
        return
    if shutil.which("useradd") is None:
        pytest.skip("root runs the tests, and there is no useradd to make an ordinary user")
    # `*` instead of a password: no password matches it, and sshd does not consider the account locked.
    _quiet("useradd", "-M", "-p", "*", "-s", "/bin/sh", "-d", str(home), USER)
    try:
        shutil.chown(home, USER, USER)
        yield USER
    finally:
        _end_processes_of(pwd.getpwnam(USER).pw_uid)
        _quiet("userdel", "-f", USER)


def _end_processes_of(uid: int) -> None:
    # sshd does not end what ran in a session that was cut; the account is ours, and so is all it runs.
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                os.kill(int(entry.name), signal.SIGKILL)


@contextlib.contextmanager
def _sshd(folder: Path, user: str) -> Iterator[Server]:
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    home, identity, host_key = folder / "home", folder / "identity", folder / "host_key"
    for path in (identity, host_key):
        _quiet("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    authorized = folder / "authorized_keys"
    authorized.write_bytes((folder / "identity.pub").read_bytes())
    authorized.chmod(0o644)
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\nPidFile none\n"
        "UsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"MaxStartups 50\nSetEnv HOME={home}\n"
        f'ForceCommand cd {home} && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    assert SSHD is not None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        fingerprint = _quiet("ssh-keygen", "-lf", str(host_key)).split()[1]
        yield Server(
            host="127.0.0.1", port=port, user=user, identity=identity, fingerprint=fingerprint, home=home
        )
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _quiet(*argv: str, check: bool = True) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=check).stdout
