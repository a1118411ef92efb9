"""OpenSSH's sshd with the settings, the account, the login shell and the start files that a test chooses."""

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.servers import Server

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_START_FILES = (
    ".bashrc",
    ".profile",
    ".bash_profile",
    ".zshenv",
    ".zprofile",
    ".config",
    ".cshrc",
    ".tcshrc",
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """A throw-away account of this machine."""

    user: str
    home: Path

    def log_in_with(self, shell: str, files: Mapping[str, str]) -> None:
        """Set the login shell, and its start files to these alone."""
        quiet("usermod", "-s", shell, self.user)
        for name in _START_FILES:
            path = self.home / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for name, text in files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        quiet("chown", "-R", f"{self.user}:{self.user}", str(self.home))


@contextlib.contextmanager
def account(name: str, *, or_caller: bool = False) -> Iterator[Account]:
    """Make an account for the duration of a `with` block.

    Args:
        or_caller: gives the account of the caller where root does not run the tests, with another home; else
            such a test is skipped.
    """
    if SSHD is None:
        pytest.skip("OpenSSH's sshd is not installed (apt-get install openssh-server)")
    is_root = os.getuid() == 0
    if (is_root and shutil.which("useradd") is None) or not (is_root or or_caller):
        pytest.skip("making an account needs root and useradd")
    with tempfile.TemporaryDirectory(prefix="edgeq-account-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        if not is_root:
            yield Account(user=pwd.getpwuid(os.getuid()).pw_name, home=home)
            return
        # `*` instead of a password: no password matches it, and sshd does not consider the account locked.
        quiet("useradd", "-M", "-p", "*", "-s", "/bin/sh", "-d", str(home), name)
        try:
            shutil.chown(home, name, name)
            yield Account(user=name, home=home)
        finally:
            _end_processes_of(pwd.getpwnam(name).pw_uid)
            quiet("userdel", "-f", name)


@contextlib.contextmanager
def sshd(
    folder: Path, user: str, *, settings: str = "", home: Path = Path("/"), host_key_type: str = "ed25519"
) -> Iterator[Server]:
    """Run an sshd that accepts one key of one user; `settings` precede its own, and so take precedence."""
    assert SSHD is not None
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    # pytest makes its folders private, and the user must be able to read this one.
    public = Path(tempfile.mkdtemp(prefix="edgeq-sshd-"))
    public.chmod(0o755)
    if folder.exists():
        shutil.copytree(folder, public, dirs_exist_ok=True)
        shutil.rmtree(folder)
        public.chmod(0o755)
    folder.symlink_to(public)
    folder = public
    identity, host_key = folder / "identity", folder / "host_key"
    for path, kind in ((identity, "ed25519"), (host_key, host_key_type)):
        if not path.exists():
            quiet("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path))
    authorized = folder / "authorized_keys"
    if not authorized.exists():
        authorized.write_bytes((folder / "identity.pub").read_bytes())
    authorized.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"{settings}\nListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        fingerprint = quiet("ssh-keygen", "-lf", str(host_key)).split()[1]
        yield Server(
            host="127.0.0.1", port=port, user=user, identity=identity, fingerprint=fingerprint, home=home
        )
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(public, ignore_errors=True)


def quiet(*argv: str) -> str:
    """Run a program of this machine, and return its output."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _end_processes_of(uid: int) -> None:
    # sshd does not end what ran in a session that was cut; the account is ours, and so is all it runs.
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                os.kill(int(entry.name), signal.SIGKILL)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())
