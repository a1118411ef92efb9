"""Resolve the route to a device through its jump hosts, and open a session along it."""

from __future__ import annotations

import contextlib
import getpass
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import paramiko

from edgeq.errors import ConfigError, Unreachable
from edgeq.fleet.ssh.activity import ActivitySocket
from edgeq.fleet.ssh.config import USUAL, SshConfig, load
from edgeq.fleet.ssh.handshake import Address, open_session, shown_key
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.known_hosts import check_jump, check_known, known_keys
from edgeq.fleet.ssh.login import Login, log_in

_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@\s-][^@\s]*)@)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:@\[\]-][^\s:@\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
)
_MOST_HOPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One jump host of a route, or the device at its end.

    Attributes:
        pinned: a jump host's key or fingerprint; None checks `known_hosts`.
    """

    host: str
    port: int
    login: Login
    known_hosts: tuple[Path, ...] = ()
    pinned: HostKey | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """All hops in order; the last one is the device."""

    name: str
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSession:
    """An encrypted session with the device, before the login.

    Attributes:
        jumps: the sessions that it runs through, to be closed after it.
        jump_keys: the accepted host keys of the jump hosts.
    """

    session: paramiko.Transport
    life: ActivitySocket
    jumps: tuple[paramiko.Transport, ...] = field(default=())
    jump_keys: tuple[HostKey, ...] = ()

    def close(self) -> None:
        """Close all sessions, the innermost first."""
        self.session.close()
        for jump in reversed(self.jumps):
            jump.close()


def resolve_route(
    *,
    name: str,
    host: str,
    port: int,
    user: str,
    identity: Path | None = None,
    jump: str | None = None,
    ssh_config: bool | Path = True,
    jump_pins: Sequence[HostKey | str] = (),
) -> Route:
    """Return the route to a device.

    Args:
        host: a name, an address, or an alias of the ssh configuration.
        port: 22 may be overridden by the configuration.
        jump: `[USER@]HOST[:PORT]`, several separated by commas; `none` ignores ProxyJump.
        jump_pins: host keys or fingerprints of all jump hosts, in order; without them `known_hosts` is
            checked.

    Raises:
        ConfigError: a jump is invalid or circular, or the number of pins differs from that of jump hosts.
    """
    config = load(USUAL if ssh_config is True else ssh_config or None)
    settings = config.lookup(host)
    hops = list(_jumps(config, name, jump or settings.jump, seen=(host,)))
    if jump_pins:
        if len(jump_pins) != len(hops):
            names = ", ".join(hop.host for hop in hops) or "none"
            raise ConfigError(
                f"{name}: jump_host_key",
                expected=f"a key for each jump host ({names})",
                got=str(len(jump_pins)),
                hint=f"`edgeq devices rotate-key {name}` with a `--jump-fingerprint SHA256:...` for each",
            )
        hops = [replace(hop, pinned=pin) for hop, pin in zip(hops, jump_pins, strict=True)]
    target = Hop(
        host=settings.host,
        port=settings.port if port == 22 and settings.port else port,
        login=Login(
            user=user,
            identity=identity,
            identities=settings.identities,
            certificates=settings.certificates,
            agent=not settings.identities_only,
            agent_socket=settings.agent_socket,
        ),
    )
    return Route(name=name, hops=(*hops, target))


def open_route(route: Route, *, timeout_s: float, prefer_key_type: str | None = None) -> RouteSession:
    """Open a session with the device through all jump hosts, whose host keys are checked.

    Raises:
        HostKeyUnknown, HostKeyMismatch: of a jump host.
        TransportError: the subclass says what failed; names the host.
    """
    *between, target = route.hops
    with contextlib.ExitStack() as opened:
        jumps: list[paramiko.Transport] = []
        keys: list[HostKey] = []
        line: paramiko.Channel | None = None
        for hop, after in zip(between, route.hops[1:], strict=True):
            label = f"{route.name} (via {hop.host})"
            session = _at_hop(route.name, label, hop, line=line, timeout_s=timeout_s)
            opened.callback(session.close)
            keys.append(shown_key(session))
            log_in(session, hop.login, name=label, timeout_s=timeout_s, jump_host=hop.host)
            line = _through(session, label, after, timeout_s)
            jumps.append(session)
        address = Address(name=route.name, host=target.host, port=target.port)
        session, life = open_session(address, timeout_s=timeout_s, prefer_key_type=prefer_key_type, line=line)
        opened.pop_all()
        return RouteSession(session=session, life=life, jumps=tuple(jumps), jump_keys=tuple(keys))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """The host keys of a route.

    Attributes:
        device: the device's key, not checked yet.
        jumps: the accepted keys of the jump hosts; None if they are not known.
    """

    device: HostKey
    jumps: tuple[HostKey, ...] | None


def host_keys(route: Route, *, timeout_s: float) -> HostKeys:
    """Return the host keys of a route, without logging in at the device."""
    opened = open_route(route, timeout_s=timeout_s)
    try:
        return HostKeys(device=shown_key(opened.session), jumps=opened.jump_keys)
    finally:
        opened.close()


def first_jump_key(route: Route, *, timeout_s: float) -> HostKey:
    """Return the accepted host key of the first jump host, without logging in there."""
    hop = route.hops[0]
    session = _at_hop(route.name, f"{route.name} (via {hop.host})", hop, line=None, timeout_s=timeout_s)
    try:
        return shown_key(session)
    finally:
        session.close()


def _at_hop(
    name: str, label: str, hop: Hop, *, line: paramiko.Channel | None, timeout_s: float
) -> paramiko.Transport:
    """Return a session with a jump host whose host key is accepted, before the login."""
    known = known_keys(hop.host, hop.port, hop.known_hosts)
    expected = [hop.pinned] if isinstance(hop.pinned, HostKey) else known.keys
    session, _ = open_session(
        Address(name=label, host=hop.host, port=hop.port),
        timeout_s=timeout_s,
        prefer_key_type=expected[0].type if expected else None,
        line=line,
    )
    try:
        shown = shown_key(session)
        if hop.pinned is not None:
            check_jump(name, hop.host, hop.port, pinned=hop.pinned, shown=shown)
        else:
            check_known(label, hop.host, hop.port, known=known, shown=shown)
    except BaseException:
        session.close()
        raise
    return session


def _through(session: paramiko.Transport, label: str, after: Hop, timeout_s: float) -> paramiko.Channel:
    try:
        return session.open_channel(
            "direct-tcpip", (after.host, after.port), ("127.0.0.1", 0), timeout=timeout_s
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Unreachable(
            label,
            f"it cannot connect to {after.host}:{after.port}: {error}",
            hint="is the device on, and does the jump host allow forwarding (AllowTcpForwarding)?",
        ) from error


def _jumps(config: SshConfig, name: str, text: str | None, seen: tuple[str, ...]) -> Iterator[Hop]:
    if text is None or text.lower() == "none":
        return
    for word in text.split(","):
        match = _HOP.fullmatch(word.strip())
        if match is None or not 0 < int(match["port"] or 22) < 65536:
            raise ConfigError(
                f"{name}: jump", expected="[USER@]HOST[:PORT], several separated by commas", got=repr(word)
            )
        alias = match["host"].strip("[]")
        key = alias if match["port"] is None else f"{alias}:{match['port']}"
        if key in seen or len(seen) > _MOST_HOPS:
            raise ConfigError(f"{name}: jump", f"is circular: {' -> '.join((*seen, key))}")
        settings = config.lookup(alias)
        # Only the first of a list may need its own jump host; the next ones are reached through it.
        if word == text.split(",")[0]:
            yield from _jumps(config, name, settings.jump, seen=(*seen, key))
        yield Hop(
            host=settings.host,
            port=int(match["port"] or settings.port or 22),
            login=Login(
                user=match["user"] or settings.user or getpass.getuser(),  # as OpenSSH does
                identity=None,
                identities=settings.identities,
                certificates=settings.certificates,
                agent=not settings.identities_only,
                agent_socket=settings.agent_socket,
            ),
            known_hosts=settings.known_hosts,
        )
