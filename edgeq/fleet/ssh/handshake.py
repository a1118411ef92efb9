"""Open an SSH session: connect, negotiate, verify the host key; each step has a time limit."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import paramiko

from edgeq.errors import DeviceTimeout, LinkLost, TransportError, Unreachable
from edgeq.fleet.ssh.activity import ActivitySocket
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.session import Session

# GCM first: it needs half the CPU of paramiko's default (CTR and a separate MAC).
_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_LOOK_S = 0.1
# What paramiko says is missing, and what the server offered instead.
_OFFERS = (
    ("kex", "kex_algo_list"),
    ("host key", "server_key_algo_list"),
    ("cipher", "server_encrypt_algo_list"),
    ("mac", "server_mac_algo_list"),
)
ALGORITHMS_HINT = (
    "update the device's SSH server; or set `transport = 'openssh'`, and allow what it offers in "
    "~/.ssh/config (KexAlgorithms, HostKeyAlgorithms, PubkeyAcceptedAlgorithms, Ciphers, MACs)"
)
# Without a handler, logging prints paramiko's tracebacks on stderr; edgeq's errors say the same.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address of a device, with its name for messages."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def open_session(
    address: Address,
    *,
    timeout_s: float,
    prefer_key_type: str | None = None,
    line: paramiko.Channel | None = None,
) -> tuple[paramiko.Transport, ActivitySocket]:
    """Return an encrypted session before the login, and the socket that it runs on.

    Args:
        timeout_s: time limit of connecting, of the banner and of the key exchange, each.
        prefer_key_type: the pinned key's type, so that a server with several keys presents that one.
        line: a channel through a jump host to the address; None connects directly.

    Raises:
        Unreachable: nothing answers at the address.
        DeviceTimeout: the server accepts the connection and then stays silent.
        LinkLost: the server closes the connection during the handshake.
        TransportError: it is not an SSH server, or there is no common algorithm.
    """
    sock = _reach(address, timeout_s) if line is None else line
    life = ActivitySocket(sock)
    try:
        # paramiko uses only the methods that an `ActivitySocket` has.
        session = Session(cast(socket.socket, life))
    except BaseException:
        sock.close()
        raise
    session.banner_timeout = session.handshake_timeout = (
        3 * timeout_s
    )  # `_negotiate` ends earlier, with a better error
    session.auth_timeout = timeout_s
    session.channel_timeout = timeout_s
    options = session.get_security_options()
    options.ciphers = [*_GCM, *(cipher for cipher in options.ciphers if cipher not in _GCM)]
    if prefer_key_type is not None:
        options.key_types = _preferring(prefer_key_type, list(options.key_types))
    try:
        _negotiate(session, life, address, timeout_s)
    except (paramiko.SSHException, EOFError, OSError) as error:
        session.close()
        raise _handshake_error(address, error, session.offer) from error
    except BaseException:
        session.close()
        raise
    return session, life


def _negotiate(session: paramiko.Transport, life: ActivitySocket, address: Address, timeout_s: float) -> None:
    # paramiko's own timeout counts from the start, and is not applied within a message.
    done, until_s = threading.Event(), time.monotonic() + 2 * timeout_s
    session.start_client(event=done)
    while not done.wait(_LOOK_S):
        silent_s = life.silent_s()
        if not session.is_active():
            break
        if silent_s > timeout_s or time.monotonic() > until_s:
            raise _silent(address, f"waited {silent_s:.0f} s")
    if not session.is_active() or session.host_key is None:
        raise session.get_exception() or paramiko.SSHException("no key exchange")


def shown_key(session: paramiko.Transport) -> HostKey:
    """Return the host key that the server has proved to hold."""
    key = session.get_remote_server_key()
    return HostKey(type=key.get_name(), base64=key.get_base64())


def _reach(address: Address, timeout_s: float) -> socket.socket:
    try:
        sock = socket.create_connection((address.host, address.port), timeout=timeout_s)
    except socket.gaierror as error:
        raise Unreachable(
            address.name,
            f"the host name {address.host!r} cannot be resolved: {error.strerror}",
            hint=_hint(address),
        ) from error
    except UnicodeError as error:  # a part of it is empty, or too long for any name
        raise Unreachable(
            address.name, f"{address.host[:80]!r} cannot be a host name: {error}", hint=_hint(address)
        ) from error
    except TimeoutError as error:
        raise Unreachable(
            address.name, f"nothing answers at {address} within {timeout_s:.0f} s", hint=_hint(address)
        ) from error
    except OSError as error:
        raise Unreachable(
            address.name, f"nothing answers at {address}: {error.strerror or error}", hint=_hint(address)
        ) from error
    # paramiko leaves Nagle's algorithm on, which makes small writes 20 times slower.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _hint(address: Address) -> str:
    return f"is it switched on, and does `ssh -p {address.port} {address.host}` connect?"


def _preferring(key_type: str, known: list[str]) -> list[str]:
    # RSA keys are pinned as `ssh-rsa`; the negotiated signature algorithm is rsa-sha2-*.
    preferred = ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)
    return [*(k for k in preferred if k in known), *(k for k in known if k not in preferred)]


def _silent(address: Address, how: str) -> DeviceTimeout:
    return DeviceTimeout(
        address.name,
        f"{address} accepts connections but sends nothing ({how})",
        hint="restart its SSH server, or check its load",
    )


def _offered(text: str, offer: Mapping[str, Any] | None) -> str:
    for word, key in _OFFERS:
        if offer is not None and word in text.lower():
            return f"; it offers {', '.join(offer[key]) or 'none'}"
    return ""


def _handshake_error(address: Address, error: Exception, offer: Mapping[str, Any] | None) -> TransportError:
    text = str(error)
    if isinstance(error, TimeoutError) or "timed out" in text or isinstance(error.__cause__, TimeoutError):
        return _silent(address, text or "timed out")
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return TransportError(
            address.name,
            f"no common SSH algorithms with {address}: {text}{_offered(text, offer)}",
            hint=ALGORITHMS_HINT,
        )
    if "Indecipherable" in text or "Invalid SSH" in text:
        return TransportError(
            address.name, f"{address} is not an SSH server", hint="check the port in devices.toml"
        )
    return LinkLost(
        address.name,
        f"{address} closed the connection during the handshake",
        hint="too many connections at once (MaxStartups), or a ban after failed logins; wait and try again",
    )
