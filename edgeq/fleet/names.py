"""Names that people type: what a device may be called, and which known name was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from edgeq.errors import UnknownName, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9_:%][A-Za-z0-9._:%-]{0,252}")


def check_name(name: str, *, what: str = "device name") -> str:
    """Return `name` when it may name a device, model or label.

    Raises:
        UsageError: it is empty, too long, or has other characters.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            what, expected="letters, digits, '.', '_' and '-', 1 to 63 of them", got=repr(name[:80])
        )
    return name


def check_host(host: str) -> str:
    """Return `host` when it can be a host name or an address.

    Raises:
        UsageError: it cannot.
    """
    if not _HOST.fullmatch(host):
        raise UsageError("host", expected="a host name or an address", got=repr(host[:80]))
    return host


def one_release(begins: str, known: Iterable[str], subject: str) -> str:
    """Return the one known release whose id begins so.

    Raises:
        UnknownName: none does, or more than one.
    """
    known = sorted(known)
    found = [release for release in known if release.startswith(begins)]
    if len(found) == 1:
        return found[0]
    raise UnknownName(
        f"{subject} release {begins!r}",
        "more than one begins so" if found else "not on the device",
        expected="one of " + ", ".join(release[:12] for release in found or known),
        hint="run `edgeq status --json` to see the releases that are there",
    )


def unknown(what: str, name: str, known: Iterable[str], *, hint: str) -> UnknownName:
    """Return the error for a name that is not known; it names the nearest known one."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return UnknownName(f"{what} {name!r}", f"not known{meant}", hint=hint)
