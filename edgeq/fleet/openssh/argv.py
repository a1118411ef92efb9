"""Build ssh's command line; edgeq's security options precede the user's configuration."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from edgeq.errors import ToolMissing, UsageError
from edgeq.fleet.openssh.session_dir import SessionDir
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.keepalive import Watch
from edgeq.values import Device

_VERSION = re.compile(r"OpenSSH_(\d+)\.(\d+)")
_VERSION_S = 10.0


def find_ssh(name: str) -> str:
    """Return the path of the `ssh` program.

    Raises:
        ToolMissing: it is not on PATH.
    """
    program = shutil.which("ssh")
    if program is None:
        raise ToolMissing(
            name,
            "`transport = 'openssh'` needs the ssh program, which is not on PATH",
            hint="install OpenSSH's client (apt-get install openssh-client), "
            "or remove `transport` from devices.toml",
        )
    return program


def alias(device: Device) -> str:
    """Return the name under which the device's pinned key is stored; no jump host has this name."""
    return f"edgeq-device-{device.name}"


def known_hosts_line(device: Device) -> str:
    """Return the only line of the device's known_hosts file."""
    return f"{alias(device)} {HostKey.parse(device.host_key)}\n"


def alive(watch: Watch) -> tuple[int, int]:
    """Return ServerAliveInterval and ServerAliveCountMax; ssh accepts whole seconds only."""
    every_s = max(1, round(watch.every_s))
    # ssh closes the connection one keepalive after the last that may go unanswered.
    return every_s, max(1, round(watch.patience_s / every_s) - 1)


def master_argv(ssh: str, device: Device, session_dir: SessionDir) -> list[str]:
    """Return the command that logs in and waits for commands on a control socket.

    Raises:
        UsageError: the identity file is missing.
    """
    options = {
        "ControlMaster": "yes",
        "ControlPath": str(session_dir.socket),
        "ControlPersist": "no",
        **_trust(ssh, device, session_dir.known_hosts),
        "ClearAllForwardings": "yes",
        "RequestTTY": "no",
        "Tunnel": "no",
    }
    return [ssh, "-v", "-N", "-T", *_words(options, device, session_dir), "--", device.host]


def look_argv(ssh: str, device: Device, session_dir: SessionDir) -> list[str]:
    """Return the command that writes the device's host key into known_hosts, without a login."""
    options = {
        **_trust(ssh, device, session_dir.known_hosts),
        "StrictHostKeyChecking": "accept-new",
        "HashKnownHosts": "no",
        "PreferredAuthentications": "none",
        "ControlMaster": "no",
        "ControlPath": "none",
    }
    return [ssh, "-v", "-N", "-T", *_words(options, device, session_dir), "--", device.host]


def _trust(ssh: str, device: Device, known_hosts: Path) -> dict[str, str]:
    options = {
        "HostKeyAlias": alias(device),
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "CheckHostIP": "no",
    }
    if version(ssh) >= (8, 5):
        options["KnownHostsCommand"] = "none"
    return options


def _words(options: dict[str, str], device: Device, session_dir: SessionDir) -> list[str]:
    words = ["-F", str(session_dir.config), "-l", device.user]
    if device.port != 22:  # the configuration may override 22
        words += ["-p", str(device.port)]
    if device.jump is not None:
        options = {**options, "ProxyJump": device.jump}
    if device.identity is not None:
        _check_identity(device.identity)
        options = {**options, "IdentitiesOnly": "yes"}
        words += ["-i", str(device.identity).replace("%", "%%")]
    for key, value in options.items():
        words += ["-o", f"{key}={value}"]
    return words


def _check_identity(path: Path) -> None:
    # ssh itself only warns, and offers other keys.
    try:
        with path.open("rb"):
            return
    except FileNotFoundError as error:
        raise UsageError(
            str(path),
            "identity file not found",
            hint="restore the private key, or name another: --identity, or `identity` in devices.toml",
        ) from error
    except OSError as error:
        raise UsageError(str(path), f"cannot be read: {error.strerror}") from error


@cache
def version(ssh: str) -> tuple[int, int]:
    """Return the version of the program; (99, 0) if it is unknown."""
    done = subprocess.run(
        [ssh, "-V"], capture_output=True, text=True, errors="replace", timeout=_VERSION_S, check=False
    )
    match = _VERSION.search(done.stderr + done.stdout)
    return (int(match[1]), int(match[2])) if match else (99, 0)
