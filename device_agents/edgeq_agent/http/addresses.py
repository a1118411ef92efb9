"""Addresses that only this machine can reach: loopback, and unix sockets of one or several users."""

from __future__ import annotations

import os
import socket
import stat
from typing import NamedTuple, Tuple, Union

from edgeq_agent.sdk.errors import AddressRefused
from edgeq_agent.storage import disk

LOOPBACK = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
_SOCKET_PATH_BYTES = 107

Address = Union[Tuple[str, int], str]


class Sharing(NamedTuple):
    """Which users may connect to a unix socket.

    Attributes:
        mode: 0o600 for the owner alone, 0o660 for a group too, 0o666 for everyone.
        group: the name of the group; None keeps the owner's.
    """

    mode: int = 0o600
    group: str | None = None


def shown(address: Address) -> str:
    """Return an address as text."""
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def family_of(address: Address) -> socket.AddressFamily:
    """Return the address family; a place for a unix socket is made free.

    Raises:
        AddressRefused: EQ548, other machines could reach it, or the path is taken.
    """
    if isinstance(address, str):
        _make_room(address)
        return socket.AF_UNIX
    if address[0] not in LOOPBACK:
        raise AddressRefused(
            f"address {address[0]}",
            "other machines could reach it",
            expected="127.0.0.1, ::1 or a unix socket",
            hint="put a reverse proxy with authentication in front of it, or forward a port over SSH",
        )
    return LOOPBACK[address[0]]


def bind_unix(listener: socket.socket, path: str, sharing: Sharing) -> None:
    """Bind a unix socket; from the moment it exists, no more users than stated may connect.

    Raises:
        AddressRefused: EQ548, the group does not exist, or the owner is not in it.
    """
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    try:
        if sharing.group is not None:
            disk.set_group(path, _group_id(sharing.group))
        if sharing.mode != 0o600:
            disk.chmod(path, sharing.mode)
    except OSError as error:
        remove_socket(path)
        raise AddressRefused(
            f"group {sharing.group}", f"the socket cannot be given to it: {error.strerror}",
            hint="add the agent's user to the group: `sudo usermod -aG GROUP USER`, then log in again",
        ) from error  # fmt: skip


def _group_id(name: str) -> int:
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise FileNotFoundError(2, "no such group") from error


def _make_room(path: str) -> None:
    """Remove the socket that a dead server left behind; no other file is removed."""
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise AddressRefused(
            f"socket {path}", expected=f"a path of at most {_SOCKET_PATH_BYTES} bytes",
            got=f"{len(os.fsencode(path))}", hint="choose a shorter path with --unix",
        )  # fmt: skip
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressRefused(
            f"socket {path}", "is a file of another kind and was not removed", hint="choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            remove_socket(path)
            return
        except OSError as error:
            raise AddressRefused(f"socket {path}", f"cannot be checked: {error.strerror}") from error
    raise AddressRefused(
        f"socket {path}", "another server listens there", hint="stop it, or choose another path"
    )


def remove_socket(path: str) -> None:
    """Remove a socket's file, if it is there."""
    try:
        disk.unlink(path)
    except FileNotFoundError:
        return
