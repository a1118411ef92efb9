"""The way to a device: what the inventory says, what `~/.ssh/config` adds, and the machines in between."""

from __future__ import annotations

import contextlib
import getpass
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from edgeq.errors import ConfigError, Unreachable
from edgeq.fleet.handshake import Address, open_session, shown_key
from edgeq.fleet.hostkeys import HostKey
from edgeq.fleet.known_hosts import check_known, known_keys
from edgeq.fleet.lifeline import Lifeline
from edgeq.fleet.login import Login, log_in
from edgeq.fleet.ssh_config import USUAL, SshConfig, load

_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@\s-][^@\s]*)@)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:@\[\]-][^\s:@\[\]]*)(?::(?P<port>\d+))?"
)
_MOST_HOPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One machine on the way, or the device at its end."""

    host: str
    port: int
    login: Login
    known_hosts: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """All hops in order; the last one is the device."""

    name: str
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An encrypted session with the device, in which nobody has logged in yet.

    Attributes:
        jumps: the sessions that it runs through; close them after it.
    """

    session: paramiko.Transport
    life: Lifeline
    jumps: tuple[paramiko.Transport, ...] = field(default=())

    def close(self) -> None:
        """Close all, the inner one first."""
        self.session.close()
        for jump in reversed(self.jumps):
            jump.close()


def find_route(
    *,
    name: str,
    host: str,
    port: int,
    user: str,
    identity: Path | None = None,
    jump: str | None = None,
    ssh_config: bool | Path = True,
) -> Route:
    """Return the way to a device.

    Args:
        host: a name, an address, or an alias of the ssh configuration.
        port: 22 lets the configuration say another one.
        jump: `[USER@]HOST[:PORT]`, several with commas; `none` for no jump whatever the configuration says.

    Raises:
        ConfigError: a jump is none, or goes in a circle.
    """
    config = load(USUAL if ssh_config is True else ssh_config or None)
    settings = config.of(host)
    hops = _jumps(config, name, jump or settings.jump, seen=(host,))
    target = Hop(
        host=settings.host,
        port=settings.port if port == 22 and settings.port else port,
        login=Login(
            user=user,
            identity=identity,
            identities=settings.identities,
            certificates=settings.certificates,
            agent=not settings.identities_only,
        ),
    )
    return Route(name=name, hops=(*hops, target))


def open_route(route: Route, *, timeout_s: float, prefer_key_type: str | None = None) -> Opened:
    """Go through all jumps, each with a known host key, and open a session with the device.

    Raises:
        HostKeyUnknown, HostKeyMismatch: of a machine on the way.
        TransportError: by its subclass what else failed; names the machine.
    """
    *between, target = route.hops
    with contextlib.ExitStack() as opened:
        jumps: list[paramiko.Transport] = []
        line: paramiko.Channel | None = None
        for hop, after in zip(between, route.hops[1:], strict=True):
            label = f"{route.name} (by {hop.host})"
            known = known_keys(hop.host, hop.port, hop.known_hosts)
            session, _ = open_session(
                Address(name=label, host=hop.host, port=hop.port),
                timeout_s=timeout_s,
                prefer_key_type=known[0].type if known else None,
                line=line,
            )
            opened.callback(session.close)
            check_known(label, hop.host, hop.port, known=known, shown=shown_key(session))
            log_in(session, hop.login, name=label, timeout_s=timeout_s)
            line = _through(session, label, after, timeout_s)
            jumps.append(session)
        address = Address(name=route.name, host=target.host, port=target.port)
        session, life = open_session(address, timeout_s=timeout_s, prefer_key_type=prefer_key_type, line=line)
        opened.pop_all()
        return Opened(session=session, life=life, jumps=tuple(jumps))


def host_key(route: Route, *, timeout_s: float) -> HostKey:
    """Return the host key that the device at the end shows, without logging in there."""
    opened = open_route(route, timeout_s=timeout_s)
    try:
        return shown_key(opened.session)
    finally:
        opened.close()


def _through(session: paramiko.Transport, label: str, after: Hop, timeout_s: float) -> paramiko.Channel:
    try:
        return session.open_channel(
            "direct-tcpip", (after.host, after.port), ("127.0.0.1", 0), timeout=timeout_s
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Unreachable(
            label,
            f"it does not reach {after.host}:{after.port}: {error}",
            hint="is the device on, and does the machine on the way allow forwarding (AllowTcpForwarding)?",
        ) from error


def _jumps(config: SshConfig, name: str, text: str | None, seen: tuple[str, ...]) -> Iterator[Hop]:
    if text is None or text.lower() == "none":
        return
    for word in text.split(","):
        match = _HOP.fullmatch(word.strip())
        if match is None:
            raise ConfigError(
                f"{name}: jump", expected="[USER@]HOST[:PORT], several with commas", got=repr(word)
            )
        alias = match["host"].strip("[]")
        asked = alias if match["port"] is None else f"{alias}:{match['port']}"
        if asked in seen or len(seen) > _MOST_HOPS:
            raise ConfigError(f"{name}: jump", f"goes in a circle: {' -> '.join((*seen, asked))}")
        settings = config.of(alias)
        # Only the first of a list may need a jump of its own; the next ones are reached from it.
        if word == text.split(",")[0]:
            yield from _jumps(config, name, settings.jump, seen=(*seen, asked))
        yield Hop(
            host=settings.host,
            port=int(match["port"] or settings.port or 22),
            login=Login(
                user=match["user"] or settings.user or getpass.getuser(),  # as OpenSSH does
                identity=None,
                identities=settings.identities,
                certificates=settings.certificates,
                agent=not settings.identities_only,
            ),
            known_hosts=settings.known_hosts,
        )
