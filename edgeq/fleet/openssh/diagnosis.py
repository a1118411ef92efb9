"""What `ssh` said, as our errors. Its messages are in English in every locale: it has no translations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeq.errors import (
    AuthenticationFailed,
    ConfigError,
    DeviceTimeout,
    HostKeyMismatch,
    HostKeyRevoked,
    HostKeyUnknown,
    LinkLost,
    TransportError,
    Unreachable,
)
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.login import hint_on_the_way
from edgeq.values import Device

_SHOWN = re.compile(r"^debug1: Server host key: (\S+) (SHA256:\S+)")
_CHANGED = re.compile(r"ost key for (\S+) has changed|No \S+ host key is known for (\S+) and")
_REVOKED = re.compile(r"ost key for (\S+) is marked as revoked")
_DENIED = re.compile(r"(?:(\S+)@(\S+): )?Permission denied \(")
_SILENT = re.compile(r"^Timeout, server .* not responding", re.M)
_LOST_HINT = "run the same command again: what arrived whole is kept and not sent twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What `ssh` wrote, and what is needed to read it.

    Attributes:
        alias: under which the device's key is known.
        talk: without its `debug1:` lines.
        shown: the last host key that any machine showed, as `TYPE FINGERPRINT`.
    """

    device: Device
    alias: str
    lines: tuple[str, ...]

    @property
    def talk(self) -> tuple[str, ...]:
        return tuple(line for line in self.lines if line and not line.startswith(("debug", "@", "OpenSSH_")))

    @property
    def text(self) -> str:
        return "\n".join(self.talk)

    @property
    def shown(self) -> str | None:
        found = [match for line in self.lines if (match := _SHOWN.match(line))]
        return f"{found[-1][1]} {found[-1][2]}" if found else None

    @property
    def last(self) -> str:
        return self.talk[-1] if self.talk else "it gave no reason"

    def by(self, host: str) -> str:
        return f"{self.device.name} (by {host})"


def of_login(said: Said) -> Exception:
    """Return the error for an `ssh` that ended before it was logged in."""
    for rule in _RULES:
        found = rule(said)
        if found is not None:
            return found
    return TransportError(said.device.name, f"ssh ended: {said.last}")


def of_end(said: Said) -> LinkLost | DeviceTimeout:
    """Return the error for a connection that ended after the login."""
    name = said.device.name
    if _SILENT.search(said.text):
        return DeviceTimeout(
            name, "gave no sign of life", hint="check its power and its network, then try again"
        )
    return LinkLost(name, "the connection ended in the middle", hint=_LOST_HINT)


def _host_key(said: Said) -> Exception | None:
    name = said.device.name
    revoked = _REVOKED.search(said.text)
    found = _CHANGED.search(said.text)
    where = next((one for one in (*(found.groups() if found else ()),) if one), None)
    if revoked is None and where is None and "Host key verification failed" not in said.text:
        return None
    if where == said.alias:
        pinned, shown = HostKey.parse(said.device.host_key), said.shown or "another key"
        return HostKeyMismatch(
            name,
            "the host key changed: another machine answers, or the device was set up anew",
            expected=f"{pinned.type} {pinned.fingerprint}",
            got=shown,
            hint="read the fingerprint on the device itself; if it is the new one: "
            f"`edgeq devices rotate-key {name} --fingerprint {shown.split()[-1]}`",
        )
    host = where or (revoked and next((one for one in revoked.groups() if one), None)) or "a machine"
    if revoked is not None:
        return HostKeyRevoked(
            said.by(host),
            f"{host} on the way shows a host key that known_hosts revokes ({said.shown})",
            hint="whoever revoked it had a reason: ask, and do not log in there",
        )
    if found is not None and found[1]:
        pinned_there = said.device.jump_host_key is not None
        fingerprint = (said.shown or "SHA256:...").split()[-1]
        return HostKeyMismatch(
            said.by(host),
            f"{host} on the way shows another host key than "
            + ("the one pinned in devices.toml" if pinned_there else "known_hosts has"),
            got=said.shown,
            hint=f"read it on {host} itself; if it is the new one: "
            f"`edgeq devices rotate-key {name} --jump-fingerprint {fingerprint}`",
        )
    return HostKeyUnknown(
        said.by(host),
        f"the host key of {host} on the way is not known ({said.shown})",
        hint=f"read it on {host} itself and give --jump-fingerprint, or log in there once with `ssh {host}`",
    )


def _refused(said: Said) -> Exception | None:
    denied = _DENIED.search(said.text)
    if denied is None and "Too many authentication failures" not in said.text:
        return None
    device = said.device
    user, host = (denied[1], denied[2]) if denied and denied[2] else (device.user, device.host)
    # A machine on the way fails before the device shows its key.
    on_the_way = denied is not None and not any("Authenticating to" in line for line in said.lines[-12:])
    # Its `ssh` then closes the pipe that the device's was to come through: that one knows no port.
    if on_the_way and (host != device.host or "UNKNOWN port" in said.text):
        host = denied[2] if denied and denied[2] else device.jump or "a machine"
        return AuthenticationFailed(
            said.by(host), f"refuses {user!r}: {_line_of(said, denied)}", hint=hint_on_the_way(host, user)
        )
    key = f" with {device.identity}" if device.identity is not None else ""
    return AuthenticationFailed(
        device.name,
        f"refuses {user!r}{key}: {_line_of(said, denied)}",
        hint=f"put the public key into the device's ~/.ssh/authorized_keys of {user}, check --user, "
        "or load the key with `ssh-add`: nobody is asked for a passphrase",
    )


def _line_of(said: Said, match: re.Match[str] | None) -> str:
    if match is None:
        return said.last
    return next(line for line in said.talk if match[0] in line)


def _settings(said: Said) -> Exception | None:
    wrong = r"Bad configuration option|bad configuration options|Can't open user config|Invalid (?:-J|ProxyJ)"
    for line in said.talk:
        if re.search(wrong, line):
            return ConfigError("ssh config", line, hint="correct it; `ssh -G HOST` reads it as well")
    return None


def _unreachable(said: Said) -> Exception | None:
    name, text = said.device.name, said.text
    hint = f"is it switched on, and does `ssh -p {said.device.port} {said.device.host}` reach it?"
    if found := re.search(r"Could not resolve hostname (.*?): (.*)", text):
        return Unreachable(name, f"the name {found[1]!r} is not known: {found[2]}", hint=hint)
    if found := re.search(r"connect to (?:host|address) (\S+) port (\d+): (.*)", text):
        return Unreachable(name, f"nothing answers at {found[1]}:{found[2]}: {found[3]}", hint=hint)
    if found := re.search(r"open failed: (.*)|stdio forwarding failed", text):
        return Unreachable(
            name,
            f"a machine on the way does not reach it: {found[1] or 'forwarding failed'}",
            hint="is the device on, and does the machine on the way allow forwarding (AllowTcpForwarding)?",
        )
    return None


def _silent(said: Said) -> Exception | None:
    if re.search(r"timed out|Operation timed out", said.text) or _SILENT.search(said.text):
        where = f"{said.device.host}:{said.device.port}"
        return DeviceTimeout(
            said.device.name,
            f"{where} accepts connections and then says nothing",
            hint="restart its SSH server, or look at its load",
        )
    return None


def _no_server(said: Said) -> Exception | None:
    where = f"{said.device.host}:{said.device.port}"
    if "Unable to negotiate" in said.text:
        return TransportError(said.device.name, f"no common SSH algorithms with {where}: {said.last}")
    odd = r"invalid characters|banner line too long|Protocol mismatch|Bad remote protocol"
    if re.search(odd, said.text):
        return TransportError(
            said.device.name, f"{where} is no SSH server", hint="check the port in devices.toml"
        )
    return None


def _ended(said: Said) -> Exception | None:
    if not re.search(
        r"[Cc]onnection (?:closed|reset|to \S+ closed)|[Dd]isconnect|Broken pipe|Corrupted MAC|"
        r"[Bb]ad packet|incorrect|Connection to",
        said.text,
    ):
        return None
    return LinkLost(
        said.device.name,
        f"{said.device.host}:{said.device.port} ended the connection during the handshake",
        hint="too many connections at once (MaxStartups), or a ban after failed logins? wait and try again",
    )


# The first that knows what happened; what a machine on the way said stands before what came of it.
_RULES: Sequence[Callable[[Said], Exception | None]] = (
    _settings,
    _host_key,
    _refused,
    _unreachable,
    _silent,
    _no_server,
    _ended,
)
