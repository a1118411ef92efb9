"""The loopback device's SSH server: keys only, exec and sftp in a home folder of its own."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import paramiko
from paramiko import common

from edgeq.testing.processes import ExecProcess
from edgeq.testing.sftp import HomeSftp

_LATE_S = 0.5
_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


class Fault(StrEnum):
    """Faults of a loopback device."""

    NONE = "none"
    HANG = "hang"  # accepts the TCP connection and sends nothing
    HANG_EXEC = "hang-exec"  # accepts the login and a command, and never responds
    NO_EXEC = "no-exec"  # accepts the login, and runs no command
    LATE_ACCEPT = "late-accept"  # accepts a command only when it has been running for a moment
    NO_SFTP = "no-sftp"  # has no sftp subsystem, like dropbear without its server
    NOISE = "noise"  # prints a line before each command's output, as a .bashrc may


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of the server.

    Attributes:
        home: the folder of commands and of sftp.
        environment: the whole environment of a command.
        authorized_keys: who may log in: `TYPE BASE64` a line, read at each login.
    """

    home: Path
    user: str
    host_key: paramiko.PKey
    authorized_keys: Path
    environment: Mapping[str, str]
    fault: Fault = Fault.NONE


class SshServer:
    """Serves SSH on a listening socket until it is closed."""

    def __init__(self, settings: ServerSettings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._held: list[socket.socket] = []

    def serve(self) -> None:
        """Accept connections, each with a thread of its own, until the listener is closed."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # the listener was closed: this is how serving ends
            if self._settings.fault is Fault.HANG:
                self._held.append(sock)
                continue
            threading.Thread(target=self._session, args=(sock,), daemon=True).start()

    def _session(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock)
        options = transport.get_security_options()
        options.ciphers = [*_GCM, *(cipher for cipher in options.ciphers if cipher not in _GCM)]
        transport.add_server_key(self._settings.host_key)
        transport.set_subsystem_handler("sftp", paramiko.SFTPServer, HomeSftp, home=self._settings.home)
        try:
            transport.start_server(server=_Login(self._settings))
        except (paramiko.SSHException, EOFError, OSError):
            transport.close()  # the client left during the handshake; the server goes on


class _Login(paramiko.ServerInterface):
    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        offered = f"{key.get_name()} {base64.b64encode(key.asbytes()).decode()}"
        known = [
            " ".join(line.split()[:2]) for line in self._settings.authorized_keys.read_text().splitlines()
        ]
        accepted = username == self._settings.user and offered in known
        return common.AUTH_SUCCESSFUL if accepted else common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind == "session":
            return common.OPEN_SUCCEEDED
        return common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        if self._settings.fault is Fault.NO_SFTP:
            return False
        return super().check_channel_subsystem_request(channel, name)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._settings.fault is Fault.HANG_EXEC:
            return True
        if self._settings.fault is Fault.NO_EXEC:
            return False
        text = os.fsdecode(command)
        if self._settings.fault is Fault.NOISE:
            text = f"echo 'Welcome to the device'; {text}"
        ExecProcess(
            channel, command=text, folder=self._settings.home, environment=self._settings.environment
        ).start()
        if self._settings.fault is Fault.LATE_ACCEPT:
            time.sleep(_LATE_S)
        return True
