"""One host of a file, checked where it is read: what fails is an entry of its own, and the others go on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.errors import ConfigError, EdgeqError
from edgeq.files import expand_user
from edgeq.fleet.address import parse_address
from edgeq.fleet.names import check_device_name, check_name, check_plain
from edgeq.values import DeviceKind, TransportKind

# Of one file; a pattern such as `pi[1:99999]` may name more than anyone has.
MOST_HOSTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """A host as its file describes it; None is what the file leaves open.

    Attributes:
        where: the file and the line, for messages.
        host: as `edgeq devices add --host` takes it; a user and a port may be in it.
        ssh_config: as in `Device.ssh_config`.
        notes: what the file has and the device does not get.
    """

    name: str
    where: str
    host: str
    port: int | None = None
    user: str | None = None
    kind: DeviceKind | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    identity: Path | None = None
    fingerprint: str | None = None
    python: str | None = None
    home: str | None = None
    jump: str | None = None
    transport: TransportKind | None = None
    ssh_config: bool | Path = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEntry:
    """A part of a file that names no usable host.

    Attributes:
        name: of the host, or "" where it has none.
    """

    where: str
    name: str = ""
    error: EdgeqError


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFile:
    """What a file says, in its order.

    Attributes:
        notes: what concerns the whole file.
    """

    path: Path
    entries: tuple[HostEntry, ...]
    bad: tuple[BadEntry, ...]
    notes: tuple[str, ...] = ()


class Entries:
    """Collects the hosts of a file; an error of one of them is kept beside the others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._entries: list[HostEntry] = []
        self._bad: list[BadEntry] = []

    def where(self, line: int) -> str:
        """Return a place of the file, for messages."""
        return f"{self.path.name}:{line}"

    def add(self, where: str, name: str, make: Callable[[], HostEntry]) -> None:
        """Add the host that a function returns, or the error that it raises."""
        if len(self._entries) >= MOST_HOSTS:
            raise ConfigError(str(self.path), "names too many hosts", expected=f"at most {MOST_HOSTS}")
        try:
            self._entries.append(make())
        except EdgeqError as error:
            self.refuse(where, error, name=name)

    def refuse(self, where: str, error: EdgeqError, *, name: str = "") -> None:
        """Keep an error of one place of the file."""
        self._bad.append(BadEntry(where=where, name=name, error=error))

    def file(self) -> HostFile:
        """Return what was collected."""
        return HostFile(
            path=self.path, entries=tuple(self._entries), bad=tuple(self._bad), notes=tuple(self.notes)
        )


def make_entry(
    *,
    where: str,
    name: str | None,
    host: str | None,
    port: str | None = None,
    user: str | None = None,
    kind: str | None = None,
    labels: Mapping[str, str] | None = None,
    identity: str | None = None,
    fingerprint: str | None = None,
    python: str | None = None,
    home: str | None = None,
    jump: str | None = None,
    transport: str | None = None,
    ssh_config: bool | Path = True,
    folder: Path = Path(),
    notes: tuple[str, ...] = (),
) -> HostEntry:
    """Check the texts of a host and return it. Without a name, it is called as its host is.

    Args:
        folder: where a relative `identity` starts.

    Raises:
        ConfigError: a value is invalid; names the place in the file.
    """
    for what, text in (("name", name), ("host", host), ("user", user)):
        if text is not None and any("\udc80" <= letter <= "\udcff" for letter in text):
            raise ConfigError(f"{where}: {what}", expected="UTF-8 text", got=repr(text[:80]))
    if not name and not host:
        raise ConfigError(where, "names no host", expected="a host name or an address")
    try:
        address = parse_address(host or name or "")
        # `pi@lab-1:2222` as a name is the host lab-1.
        called = check_device_name(name if name and host else _plain(name) if name else address.host)
        for key in labels or {}:
            check_name(key, what="label")
        for what, text in (("user", user), ("python", python), ("home", home), ("jump", jump)):
            if text is not None:
                check_plain(what, text)
    except EdgeqError as error:
        # The hint of the option `--host` does not fit a file.
        raise ConfigError(
            f"{where}: {error.subject.removeprefix('--')}",
            error.problem,
            expected=error.expected,
            got=error.got,
        ) from error
    return HostEntry(
        name=called,
        where=where,
        host=host or name or "",
        port=_port(where, port),
        user=user,
        kind=None
        if kind is None
        else DeviceKind(_one_of(where, "kind", kind, [k.value for k in DeviceKind])),
        labels=dict(labels or {}),
        identity=None if identity is None else folder / expand_user(identity),
        fingerprint=fingerprint,
        python=python,
        home=home,
        jump=jump,
        transport=None
        if transport is None
        else TransportKind(_one_of(where, "transport", transport, [k.value for k in TransportKind])),
        ssh_config=ssh_config,
        notes=notes,
    )


def _plain(name: str) -> str:
    """Return the host in a name such as `pi@lab-1:2222`, or the name."""
    return parse_address(name).host if any(letter in name for letter in "@:[") else name


def _port(where: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise ConfigError(f"{where}: port", expected="1 to 65535", got=repr(text[:80]))
    return int(text)


def _one_of(where: str, what: str, text: str, known: Iterable[str]) -> str:
    known = list(known)
    word = text.strip().lower().replace("_", "-")
    if word in known:
        return word
    near = difflib.get_close_matches(word, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else None
    raise ConfigError(f"{where}: {what}", meant, expected=f"one of {', '.join(known)}", got=repr(text[:80]))
