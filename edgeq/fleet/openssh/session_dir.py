"""The private folder of one connection: control socket, pinned keys, ssh settings."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import ConfigError
from edgeq.files import expand_user
from edgeq.fleet.ssh.config import USUAL
from edgeq.values import Device

# `sun_path` has 104 bytes on some systems; ssh first binds to the name with a dot and 16 more characters.
_LONGEST_SOCKET = 104 - 1 - 17
# ssh splits these values at spaces and expands `%`; a folder must contain neither.
_PLAIN = re.compile(r"[\w/.,+-]+")
_OF_THE_SYSTEM = Path("/etc/ssh/ssh_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDir:
    """The folder of one connection, mode 0700."""

    folder: Path

    @property
    def socket(self) -> Path:
        """Where the master listens once it has logged in."""
        return self.folder / "s"

    @property
    def known_hosts(self) -> Path:
        """The pinned key of the device only."""
        return self.folder / "known_hosts"

    @property
    def jump_hosts(self) -> Path:
        """The pinned keys of the jump hosts."""
        return self.folder / "jump_hosts"

    @property
    def config(self) -> Path:
        """The settings that ssh reads: edgeq's first, then the user's."""
        return self.folder / "config"

    def remove(self) -> None:
        """Remove the folder and its content."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_session_dir() -> SessionDir:
    """Create a private folder whose name is short enough for a socket.

    Raises:
        ConfigError: no folder for temporary files has a short enough, plain name.
    """
    for base in _bases():
        # mkdtemp: mode 0700, and an unpredictable name.
        folder = Path(tempfile.mkdtemp(prefix="edgeq-", dir=base))
        session_dir = SessionDir(folder=folder)
        if len(os.fsencode(session_dir.socket)) <= _LONGEST_SOCKET and _PLAIN.fullmatch(str(folder)):
            return session_dir
        session_dir.remove()
    raise ConfigError(
        "TMPDIR",
        "no folder for temporary files has a name short and plain enough for ssh's control socket",
        hint="set TMPDIR to a folder such as /tmp",
    )


def config_text(
    device: Device, *, timeout_s: float, alive: tuple[int, int], jumps_pinned: SessionDir | None
) -> str:
    """Return the settings file: edgeq's settings for all hosts of the route, then the user's.

    The first value of a setting counts. `-o` would not reach the jump hosts: ssh starts another ssh for each,
    and passes on only this file.

    Args:
        alive: interval of keepalives in seconds, and how many may go unanswered.
        jumps_pinned: holds the keys of the jump hosts; None checks known_hosts.
    """
    every_s, most = alive
    lines = [
        "Host *",
        "  BatchMode yes",
        "  StrictHostKeyChecking yes",
        "  NoHostAuthenticationForLocalhost no",
        "  UpdateHostKeys no",
        "  VerifyHostKeyDNS no",
        f"  ConnectTimeout {max(1, int(timeout_s))}",
        "  ConnectionAttempts 1",
        f"  ServerAliveInterval {every_s}",
        f"  ServerAliveCountMax {most}",
        "  PermitLocalCommand no",
        "  ForwardAgent no",
        "  ForwardX11 no",
        "  ControlMaster no",
        "  ControlPath none",
    ]
    if jumps_pinned is not None:
        lines += [f"  UserKnownHostsFile {jumps_pinned.jump_hosts}", "  GlobalKnownHostsFile /dev/null"]
    return "\n".join([*lines, *(f'Include "{path}"' for path in _included(device))]) + "\n"


def _included(device: Device) -> Iterator[Path]:
    if device.ssh_config is False:
        return
    own = USUAL if device.ssh_config is True else device.ssh_config
    path = expand_user(own)
    if device.ssh_config is not True and not path.is_file():
        raise ConfigError(str(path), "cannot be read: no such file")
    if '"' in str(path) or any(ord(letter) < 32 for letter in str(path)):
        raise ConfigError(str(path), "has a name that ssh cannot include")
    yield path
    if device.ssh_config is True:
        yield _OF_THE_SYSTEM


def _bases() -> Iterator[str]:
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp
        if base and os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK):
            yield base
