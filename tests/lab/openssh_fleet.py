"""A fleet of OpenSSH servers on loopback addresses: no root, no namespaces, a home for each."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.lab.access import Access, free_port, make_key, wait_for_ssh
from tests.lab.needs import tool

_BOOT_S = 20.0
# Runs a command in the device's own home. `cd` first: sshd starts it in the account's.
_COMMAND = 'cd "$HOME" && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'


@contextlib.contextmanager
def openssh_fleet(folder: Path, count: int) -> Iterator[list[Access]]:
    """Have `count` servers on 127.0.2.1, ... for the length of a `with` block.

    They run as whoever runs the tests. Root makes an ordinary user for that, since a server of root's would
    be another thing. All share that user, the host's name, /tmp and the processes; each has its own home,
    keys and address.
    """
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        user = stack.enter_context(_ordinary_user())
        identity = folder / "identity"
        make_key(identity, "lab")
        made = []
        for number in range(1, count + 1):
            own = folder / f"pi-{number}"
            made.append(stack.enter_context(_server(own, f"127.0.2.{number}", user, identity)))
        for access, process, log in made:
            wait_for_ssh(access.host, access.port, _BOOT_S, alive=partial(_reason, process, log))
        yield [access for access, _, _ in made]


def home_of(folder: Path, access: Access) -> Path:
    """Return a server's home below the fleet's folder."""
    return folder / access.name / "home"


@contextlib.contextmanager
def _server(
    own: Path, host: str, user: str, identity: Path
) -> Iterator[tuple[Access, subprocess.Popen[bytes], Path]]:
    home, key, log = own / "home", own / "host_key", own / "log"
    home.mkdir(parents=True)
    fingerprint = make_key(key, own.name)
    shutil.copyfile(identity.with_suffix(".pub"), own / "authorized_keys")
    port = free_port(host)
    (own / "sshd_config").write_text(
        f"ListenAddress {host}:{port}\nHostKey {key}\nPidFile none\n"
        f"AuthorizedKeysFile {own}/authorized_keys\n"
        "UsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"MaxStartups 50\nSetEnv HOME={home}\nForceCommand {_COMMAND}\n"
    )
    argv = [tool("sshd"), "-D", "-e", "-f", str(own / "sshd_config")]
    if os.getuid() == 0:
        for path in (own, home, key):
            shutil.chown(path, user, user)
        argv = [
            tool("setpriv"),
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
            "--pdeathsig",
            "KILL",
            *argv,
        ]
    with log.open("wb") as stderr:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        yield (
            Access(
                name=own.name, host=host, port=port, user=user, identity=identity, fingerprint=fingerprint
            ),
            process,
            log,
        )
    finally:
        process.terminate()
        process.wait(10)
        _end_sessions(home)


def _reason(process: subprocess.Popen[bytes], log: Path) -> str | None:
    return None if process.poll() is None else log.read_text(errors="replace")[-500:]


def _end_sessions(home: Path) -> None:
    """End what still runs in a server's sessions: they outlive it, and know its home by their environment."""
    variable = b"HOME=" + os.fsencode(home)
    deadline_s = time.monotonic() + 5
    while sessions := [pid for pid in _pids() if variable in _environment(pid)]:
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline_s, f"{sessions} do not end"
        time.sleep(0.02)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@contextlib.contextmanager
def _ordinary_user() -> Iterator[str]:
    if os.getuid() != 0:
        yield pwd.getpwuid(os.getuid()).pw_name
        return
    # Its own for each run: two at once must not take it from each other.
    name = f"edgeq-l{os.getpid()}"
    # `*` instead of a password: no password matches it, and sshd does not treat the account as locked.
    subprocess.run(
        [tool("useradd"), "-M", "-p", "*", "-s", "/bin/sh", "-d", "/nonexistent", name], check=True
    )
    try:
        yield name
    finally:
        subprocess.run([tool("userdel"), "-f", name], capture_output=True, check=True)
