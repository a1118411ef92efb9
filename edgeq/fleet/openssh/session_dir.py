"""A private folder for one connection: the control socket, the pinned keys, the settings that come first."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import ConfigError
from edgeq.fleet.ssh.config import USUAL
from edgeq.values import Device

# `sun_path` has 104 bytes on some systems, and ssh first binds to the name with a dot and 16 letters more.
_LONGEST_SOCKET = 104 - 1 - 17
# ssh splits these values at spaces and reads `%` in them; no folder of ours needs either.
_PLAIN = re.compile(r"[\w/.,+-]+")
_OF_THE_SYSTEM = Path("/etc/ssh/ssh_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The folder of one connection, mode 0700; `remove` takes it away."""

    folder: Path

    @property
    def socket(self) -> Path:
        """Where the master listens once it has logged in."""
        return self.folder / "s"

    @property
    def known_hosts(self) -> Path:
        """The pinned key of the device, and nothing else."""
        return self.folder / "known_hosts"

    @property
    def jump_hosts(self) -> Path:
        """The pinned keys of the machines on the way."""
        return self.folder / "jump_hosts"

    @property
    def config(self) -> Path:
        """What ssh reads: our settings first, then the user's."""
        return self.folder / "config"

    def remove(self) -> None:
        """Remove the folder with all in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_place() -> Place:
    """Make a private folder whose name is short enough for a socket.

    Raises:
        ConfigError: no folder for temporary files has a short and plain name.
    """
    for base in _bases():
        # mkdtemp: mode 0700, and a name that nobody can foresee.
        folder = Path(tempfile.mkdtemp(prefix="edgeq-", dir=base))
        place = Place(folder=folder)
        if len(os.fsencode(place.socket)) <= _LONGEST_SOCKET and _PLAIN.fullmatch(str(folder)):
            return place
        place.remove()
    raise ConfigError(
        "TMPDIR",
        "no folder for temporary files whose name is short and plain enough for ssh's control socket",
        hint="set TMPDIR to a folder such as /tmp",
    )


def config_text(
    device: Device, *, timeout_s: float, alive: tuple[int, int], jumps_pinned: Place | None
) -> str:
    """Return the settings file: what holds for every machine on the way, then what the user says.

    The first value of a setting counts. `-o` would not reach the machines on the way: ssh starts one more ssh
    for each, and hands on this file alone.

    Args:
        alive: seconds between two questions for a sign of life, and how many may stay without an answer.
        jumps_pinned: where the keys of the machines on the way are; None leaves them to known_hosts.
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
    path = own.expanduser()
    if device.ssh_config is not True and not path.is_file():
        raise ConfigError(str(path), "cannot be read: no such file")
    if '"' in str(path) or any(ord(letter) < 32 for letter in str(path)):
        raise ConfigError(str(path), "is no name that ssh can include")
    yield path
    if device.ssh_config is True:
        yield _OF_THE_SYSTEM


def _bases() -> Iterator[str]:
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp
        if base and os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK):
            yield base
