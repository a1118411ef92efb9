"""Understand the address of a device as people write it: `pi@host:22`, `[::1]:22`, `ssh://pi@host`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote

from edgeq.errors import UsageError
from edgeq.fleet.names import check_host, check_plain

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HINT = "for example `--host 192.168.1.20 --port 22 --user pi`, or `--host pi@192.168.1.20:22`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address as it was written.

    Attributes:
        host: a name in ASCII, or an address without brackets.
        port: None if none was written.
        user: None if none was written.
    """

    host: str
    port: int | None = None
    user: str | None = None


def parse_address(text: str) -> Address:
    """Return the parts of `[ssh://][USER@]HOST[:PORT]`.

    Raises:
        UsageError: it is not such an address; the message shows it.
    """
    rest = text.strip()
    if scheme := _SCHEME.match(rest):
        if scheme[1].lower() != "ssh":
            raise _bad(text, "is not an address of an SSH server", expected="a host name, or ssh://HOST")
        rest = unquote(rest[scheme.end() :]).removesuffix("/")
    user, at, rest = rest.rpartition("@")
    if at:
        check_plain("--host", user)
        if ":" in user:
            raise _bad(text, "has a password in it; edgeq logs in with keys", expected="[USER@]HOST[:PORT]")
    host, port = _split_port(rest, text)
    return Address(host=_ascii(host, text), port=port, user=user if at else None)


def _split_port(rest: str, text: str) -> tuple[str, int | None]:
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        if not closed or not _is_ipv6(host) or (port and not port.startswith(":")):
            raise _bad(text, expected="[IPV6-ADDRESS] or [IPV6-ADDRESS]:PORT")
        return host, _port(port[1:], text) if port else None
    if _is_ipv6(rest) or ":" not in rest:
        return rest, None
    host, _, port = rest.partition(":")
    return host, _port(port, text)


def _port(text: str, address: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise _bad(address, expected="a port from 1 to 65535 after the colon, or an IPv6 address")
    return int(text)


def _ascii(host: str, text: str) -> str:
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise _bad(text, expected="a host name or an address") from None
    try:
        return check_host(host)
    except UsageError as error:
        raise _bad(text, expected=error.expected) from error


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _bad(text: str, problem: str | None = None, *, expected: str | None = None) -> UsageError:
    return UsageError("--host", problem, expected=expected, got=repr(text[:80]), hint=_HINT)
