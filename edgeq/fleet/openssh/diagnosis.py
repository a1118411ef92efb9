"""Map the messages of `ssh` to exceptions. It has no translations, so they are in English in every locale."""

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
from edgeq.fleet.ssh.handshake import ALGORITHMS_HINT
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.login import jump_host_hint, keys_only_hint
from edgeq.values import Device

_SHOWN = re.compile(r"^debug1: Server host key: (\S+) (SHA256:\S+)")
_CHANGED = re.compile(r"ost key for (\S+) has changed|No \S+ host key is known for (\S+) and")
_REVOKED = re.compile(r"ost key for (\S+) is marked as revoked")
_DENIED = re.compile(r"(?:(\S+)@(\S+): )?Permission denied \(")
_METHODS = re.compile(r"Permission denied \(([^)]*)\)")
_SILENT = re.compile(r"^Timeout, server .* not responding", re.M)
_LOST_HINT = "run the same command again: data that arrived is not sent again"


@dataclass(frozen=True, slots=True, kw_only=True)
class SshLog:
    """The log of an `ssh` process.

    Attributes:
        alias: the name under which the device's key is known.
        talk: the messages, without `debug1:` lines.
        shown: the last host key that any host presented, as `TYPE FINGERPRINT`.
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
        shown_keys = [match for line in self.lines if (match := _SHOWN.match(line))]
        return f"{shown_keys[-1][1]} {shown_keys[-1][2]}" if shown_keys else None

    @property
    def last(self) -> str:
        return self.talk[-1] if self.talk else "it gave no reason"

    def via(self, host: str) -> str:
        return f"{self.device.name} (via {host})"


def login_error(log: SshLog) -> Exception:
    """Return the error for an `ssh` that ended before the login."""
    for rule in _RULES:
        error = rule(log)
        if error is not None:
            return error
    return TransportError(log.device.name, f"ssh ended: {log.last}")


def end_error(log: SshLog) -> LinkLost | DeviceTimeout:
    """Return the error for a connection that ended after the login."""
    name = log.device.name
    if _SILENT.search(log.text):
        return DeviceTimeout(name, "did not respond", hint="check its power and its network, then try again")
    return LinkLost(name, "the connection was lost", hint=_LOST_HINT)


def _host_key(log: SshLog) -> Exception | None:
    name = log.device.name
    revoked = _REVOKED.search(log.text)
    changed = _CHANGED.search(log.text)
    where = next((one for one in (*(changed.groups() if changed else ()),) if one), None)
    if revoked is None and where is None and "Host key verification failed" not in log.text:
        return None
    if where == log.alias:
        pinned, shown = HostKey.parse(log.device.host_key), log.shown or "another key"
        return HostKeyMismatch(
            name,
            "the host key changed: another machine answers, or the device was reinstalled",
            expected=f"{pinned.type} {pinned.fingerprint}",
            got=shown,
            hint="read the fingerprint on the device itself; if it matches: "
            f"`edgeq devices rotate-key {name} --fingerprint {shown.split()[-1]}`",
        )
    host = where or (revoked and next((one for one in revoked.groups() if one), None)) or "a jump host"
    if revoked is not None:
        return HostKeyRevoked(
            log.via(host),
            f"jump host {host} has a host key that known_hosts revokes ({log.shown})",
            hint="find out why it was revoked; do not log in there",
        )
    if changed is not None and changed[1]:
        pinned_there = log.device.jump_host_key is not None
        fingerprint = (log.shown or "SHA256:...").split()[-1]
        return HostKeyMismatch(
            log.via(host),
            f"jump host {host} has another host key than "
            + ("the one pinned in devices.toml" if pinned_there else "the one in known_hosts"),
            got=log.shown,
            hint=f"read it on {host} itself; if it matches: "
            f"`edgeq devices rotate-key {name} --jump-fingerprint {fingerprint}`",
        )
    return HostKeyUnknown(
        log.via(host),
        f"the host key of jump host {host} is not known ({log.shown})",
        hint=f"read it on {host} itself and pass --jump-fingerprint, or log in there once with `ssh {host}`",
    )


def _refused(log: SshLog) -> Exception | None:
    denied = _DENIED.search(log.text)
    if denied is None and "Too many authentication failures" not in log.text:
        return None
    device = log.device
    user, host = (denied[1], denied[2]) if denied and denied[2] else (device.user, device.host)
    # A jump host fails before the device presents its key.
    at_jump_host = denied is not None and not any("Authenticating to" in line for line in log.lines[-12:])
    # Its `ssh` then closes the pipe to the device, whose `ssh` reports no port.
    if at_jump_host and (host != device.host or "UNKNOWN port" in log.text):
        host = denied[2] if denied and denied[2] else device.jump or "a jump host"
        return AuthenticationFailed(
            log.via(host), f"refuses {user!r}: {_line_of(log, denied)}", hint=jump_host_hint(host, user)
        )
    key = f" with {device.identity}" if device.identity is not None else ""
    methods = _METHODS.search(denied_line := _line_of(log, denied))
    if any("partial success" in line for line in log.lines):
        return AuthenticationFailed(
            device.name,
            f"accepts the key of {user!r}, and then requires more: {denied_line}",
            hint=keys_only_hint("the device", user),
        )
    if methods is not None and "publickey" not in methods[1]:
        return AuthenticationFailed(
            device.name,
            f"accepts no key of {user!r}; it allows {methods[1].replace(',', ', ')}",
            hint=keys_only_hint("the device", user),
        )
    if denied is None:
        return AuthenticationFailed(
            device.name,
            f"refuses {user!r}{key}: {denied_line} (MaxAuthTries)",
            hint="name the key with --identity; a public key (KEY.pub) chooses one of the ssh agent",
        )
    return AuthenticationFailed(
        device.name,
        f"refuses {user!r}{key}: {_line_of(log, denied)}",
        hint=f"add the public key to ~/.ssh/authorized_keys of {user} on the device, check --user, "
        "or load the key with `ssh-add` (edgeq does not ask for passphrases)",
    )


def _line_of(log: SshLog, match: re.Match[str] | None) -> str:
    if match is None:
        return log.last
    return next(line for line in log.talk if match[0] in line)


def _settings(log: SshLog) -> Exception | None:
    wrong = r"Bad configuration option|bad configuration options|Can't open user config|Invalid (?:-J|ProxyJ)"
    for line in log.talk:
        if re.search(wrong, line):
            return ConfigError("ssh config", line, hint="correct it, and check it with `ssh -G HOST`")
    return None


def _unreachable(log: SshLog) -> Exception | None:
    name, text = log.device.name, log.text
    hint = f"is it switched on, and does `ssh -p {log.device.port} {log.device.host}` connect?"
    if match := re.search(r"Could not resolve hostname (.*?): (.*)", text):
        return Unreachable(name, f"the host name {match[1]!r} cannot be resolved: {match[2]}", hint=hint)
    if match := re.search(r"connect to (?:host|address) (\S+) port (\d+): (.*)", text):
        return Unreachable(name, f"nothing answers at {match[1]}:{match[2]}: {match[3]}", hint=hint)
    if match := re.search(r"open failed: (.*)|stdio forwarding failed", text):
        return Unreachable(
            name,
            f"a jump host cannot connect to it: {match[1] or 'forwarding failed'}",
            hint="is the device on, and does the jump host allow forwarding (AllowTcpForwarding)?",
        )
    return None


def _silent(log: SshLog) -> Exception | None:
    if re.search(r"timed out|Operation timed out", log.text) or _SILENT.search(log.text):
        where = f"{log.device.host}:{log.device.port}"
        return DeviceTimeout(
            log.device.name,
            f"{where} accepts connections but sends nothing",
            hint="restart its SSH server, or check its load",
        )
    return None


def _no_server(log: SshLog) -> Exception | None:
    where = f"{log.device.host}:{log.device.port}"
    if "Unable to negotiate" in log.text:
        line = next(line for line in log.talk if "Unable to negotiate" in line)
        return TransportError(
            log.device.name, f"no common SSH algorithms with {where}: {line}", hint=ALGORITHMS_HINT
        )
    odd = r"invalid characters|banner line too long|Protocol mismatch|Bad remote protocol"
    if re.search(odd, log.text):
        return TransportError(
            log.device.name, f"{where} is not an SSH server", hint="check the port in devices.toml"
        )
    return None


def _ended(log: SshLog) -> Exception | None:
    if not re.search(
        r"[Cc]onnection (?:closed|reset|to \S+ closed)|[Dd]isconnect|Broken pipe|Corrupted MAC|"
        r"[Bb]ad packet|incorrect|Connection to",
        log.text,
    ):
        return None
    return LinkLost(
        log.device.name,
        f"{log.device.host}:{log.device.port} closed the connection during the handshake",
        hint="too many connections at once (MaxStartups), or a ban after failed logins; wait and try again",
    )


# The first rule that matches decides; causes come before their consequences.
_RULES: Sequence[Callable[[SshLog], Exception | None]] = (
    _settings,
    _host_key,
    _refused,
    _unreachable,
    _silent,
    _no_server,
    _ended,
)
