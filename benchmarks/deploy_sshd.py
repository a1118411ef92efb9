"""OpenSSH's sshd for benchmarks, and a slow connection to it, each in its own process."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.fleet.enrol import fetch_host_key
from edgeq.testing.faulty_link import FaultyLink
from edgeq.values import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Sshd:
    """A running server; `folder` holds the devices' files."""

    port: int
    user: str
    identity: Path
    known_hosts: Path
    folder: Path

    def device(self, name: str, *, port: int | None = None) -> Device:
        """Return a device with its own folder."""
        key = fetch_host_key("127.0.0.1", self.port, 9)
        return Device(
            name=name,
            host="127.0.0.1",
            port=port or self.port,
            user=self.user,
            host_key=str(key),
            identity=self.identity,
            home=str(self.folder / name),
        )

    def options(self, port: int) -> list[str]:
        """Return the options for OpenSSH's clients; they read no configuration file."""
        options = ["-F", "none", "-i", str(self.identity), "-o", f"UserKnownHostsFile={self.known_hosts}"]
        return [*options, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-P", str(port)]


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    """Run an sshd as this user for the length of a `with` block."""
    program = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("OpenSSH's sshd is not installed (apt-get install openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("identity", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "identity.pub", folder / "authorized_keys")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
        f"StrictModes no\nAuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nMaxStartups 200\nSubsystem sftp internal-sftp\n"
        # An account like a device's: bash reads no `.bashrc` of the user who runs this, which may take longer
        # than the measured command. sftp starts no shell.
        "SetEnv SHLVL=1\n"
    )
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        home = folder / "devices"
        home.mkdir()
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {key}\n* {key}\n")
        yield Sshd(
            port=port,
            user=getpass.getuser(),
            identity=folder / "identity",
            known_hosts=known,
            folder=home,
        )
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def slow_way(port: int, one_way_s: float) -> Iterator[int]:
    """Run a proxy that delays all data, in its own process, and yield its port."""
    argv = [sys.executable, "-m", "benchmarks.deploy_sshd", str(port), str(one_way_s)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - stdout=PIPE
        assert process.stdin is not None  # noqa: S101
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


def _proxy() -> None:
    link = FaultyLink("127.0.0.1", int(sys.argv[1]))
    link.delay(float(sys.argv[2]))
    print(link.port, flush=True)
    sys.stdin.read()
    link.close()


if __name__ == "__main__":
    _proxy()
