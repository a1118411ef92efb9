"""Name the user at the other end of a connection, which is how clients on one machine differ."""

from __future__ import annotations

import socket
import struct
from typing import Any, Iterable

_CREDENTIALS = struct.Struct("3i")  # process, user, group
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def peer_of(connection: socket.socket, address: Any) -> str:
    """Return the client's user on a unix socket, else its address; `users_of` names the users of ports."""
    if connection.family == getattr(socket, "AF_UNIX", None):
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:  # not Linux
            return "unix"
        raw = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
        return f"user {_CREDENTIALS.unpack(raw)[1]}"
    return f"address {address[0]}"


def users_of(ports: Iterable[int], server_port: int) -> dict[int, str]:
    """Return the users that own the client ends of loopback connections, by the client's port.

    Empty where the system does not show it (Android).
    """
    by_ends = {(port, server_port): port for port in ports}
    users = {}
    for table in _TABLES:
        for line in _lines(table):
            words = line.split()
            if len(words) < 8 or not words[7].isdigit():
                continue
            ends = (_port(words[1]), _port(words[2]))
            if ends in by_ends:
                users[by_ends[ends]] = "user " + words[7]
    return users


def _lines(table: str) -> list[str]:
    try:
        with open(table, "rb") as stream:
            return stream.read().decode("ascii", "replace").splitlines()[1:]
    except OSError:  # no /proc, or not readable
        return []


def _port(end: str) -> int:
    try:
        return int(end.rpartition(":")[2], 16)
    except ValueError:
        return -1
