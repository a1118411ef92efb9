"""Check names that users type, and suggest the closest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from edgeq.errors import UnknownName, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9_:%][A-Za-z0-9._:%-]{0,252}")


def check_name(name: str, *, what: str = "device name") -> str:
    """Return `name` if it is a valid name of a device, model or label.

    Raises:
        UsageError: it is empty, too long, or has invalid characters.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            what, expected="letters, digits, '.', '_' and '-', 1 to 63 of them", got=repr(name[:80])
        )
    return name


def check_host(host: str) -> str:
    """Return `host` if it can be a host name or an address.

    Raises:
        UsageError: it cannot.
    """
    if not _HOST.fullmatch(host):
        raise UsageError("host", expected="a host name or an address", got=repr(host[:80]))
    return host


def one_release(prefix: str, known: Iterable[str], subject: str) -> str:
    """Return the only known release whose id starts with `prefix`.

    Raises:
        UnknownName: there is none, or more than one.
    """
    known = sorted(known)
    matching = [release for release in known if release.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    raise UnknownName(
        f"{subject} release {prefix!r}",
        "more than one id starts with it" if matching else "not on the device",
        expected="one of " + ", ".join(release[:12] for release in matching or known),
        hint="run `edgeq status --json` to see the releases on the device",
    )


def unknown(what: str, name: str, known: Iterable[str], *, hint: str) -> UnknownName:
    """Return the error for an unknown name; it suggests the closest known one."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return UnknownName(f"{what} {name!r}", f"not known{meant}", hint=hint)
