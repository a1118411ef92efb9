"""Check names that users type, and suggest the closest known name."""

from __future__ import annotations

import difflib
import ipaddress
import re
import unicodedata
from collections.abc import Iterable

from edgeq.errors import UnknownName, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})
_HOST = re.compile(r"[A-Za-z0-9_:%][A-Za-z0-9._:%-]{0,252}")


def check_name(name: str, *, what: str = "device name") -> str:
    """Return `name` if it is a valid name of a device, model or label.

    Raises:
        UsageError: it is empty, too long, or has invalid characters.
    """
    if not _NAME.fullmatch(name):
        ascii_name = _ascii_name(name)
        raise UsageError(
            what,
            expected="letters a to z, digits, '.', '_' and '-', 1 to 63 of them, a letter or digit first",
            got=repr(name[:80]),
            hint=f"for example {ascii_name!r}" if _NAME.fullmatch(ascii_name) else None,
        )
    return name


def check_device_name(name: str) -> str:
    """Return `name` if a new device may have it.

    Raises:
        UsageError: it is not a name, or commands read it as a selection of several devices.
    """
    if name.startswith(("label:", "label=")):
        raise _reserved(name, "selects devices by a label")
    check_name(name)
    if name.lower() == "all":
        raise _reserved(name, "selects all devices")
    return name


def check_plain(what: str, text: str) -> str:
    """Return a text that becomes a quoted word of a command on the device.

    Raises:
        UsageError: it is empty, or has a leading dash or a control character. These would be safe, but can
            only be a mistake.
    """
    if not text or text.startswith("-") or any(ord(letter) < 32 for letter in text):
        raise UsageError(
            what, expected="a text without control characters or a leading dash", got=repr(text[:80])
        )
    return text


def _reserved(name: str, why: str) -> UsageError:
    return UsageError(
        "device name", f"{name!r} {why}, so that no device can have it", hint="choose another name"
    )


def _ascii_name(name: str) -> str:
    text = name.translate(_UMLAUTS)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:63]


def check_host(host: str) -> str:
    """Return `host` if it can be a host name or an address.

    Raises:
        UsageError: it cannot.
    """
    if not _HOST.fullmatch(host) or (":" in host and not _is_address(host)):
        raise UsageError(
            "host",
            expected="a host name or an address without a user and a port, which have settings of their own",
            got=repr(host[:80]),
        )
    return host


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
