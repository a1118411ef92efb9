"""Read `~/.ssh/config` with its includes; nothing in it is ever executed."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko

from edgeq.errors import ConfigError
from edgeq.files import expand_user

USUAL = Path("~/.ssh/config")
_DEEPEST = 16
# `Match exec` would run a command; the other criteria depend on what only ssh itself knows.
_MATCHES = frozenset({"host", "originalhost", "user", "localuser", "all"})
_WITHOUT_VALUE = frozenset({"all", "canonical", "final"})
# What paramiko reads as a setting is one here too, whatever separates the words: no line escapes the checks.
_SETTING = paramiko.SSHConfig.SETTINGS_REGEX
# paramiko keeps only the first CertificateFile, ssh uses all; numbered names keep them apart.
_CERTIFICATE = re.compile(r"certificatefile\d{6}")
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """The settings of one host.

    Attributes:
        host: its address (HostName), or the name that was looked up.
        identities: existing key files; empty when none is configured. Of a pair, the public key is enough.
        agent_socket: IdentityAgent; None for that of the environment.
        jump: ProxyJump, or None.
        identity_names: the configured key files as they are written; some may not exist.
        command: ProxyCommand, or None; only ssh itself runs it.
    """

    host: str
    port: int | None
    user: str | None
    identities: tuple[Path, ...]
    certificates: tuple[Path, ...]
    identities_only: bool
    agent_socket: str | None
    known_hosts: tuple[Path, ...]
    jump: str | None
    identity_names: tuple[str, ...] = ()
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SshConfig:
    """A parsed configuration.

    Attributes:
        skipped: `Match` lines that edgeq does not evaluate; their blocks never match.
        aliases: the names of `Host` lines that are not patterns, each once, in their order.
    """

    parsed: paramiko.SSHConfig = field(repr=False)
    skipped: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def lookup(self, name: str) -> HostSettings:
        """Return the settings of a host; `name` may be an alias.

        Raises:
            ConfigError: a value is invalid.
        """
        options = _options(self.parsed, name)
        port = options.get("port")
        if port is not None and not (re.fullmatch("[0-9]{1,5}", str(port)) and 0 < int(port) < 65536):
            raise ConfigError(f"ssh config: Host {name}: Port", expected="1 to 65535", got=str(port))
        jump = options.get("proxyjump")
        return HostSettings(
            host=str(options.get("hostname", name)),
            port=None if port is None else int(port),
            user=options.get("user"),
            identities=_keys(options.get("identityfile", [])),
            certificates=_existing([options[key] for key in sorted(filter(_CERTIFICATE.fullmatch, options))]),
            identities_only=str(options.get("identitiesonly", "no")).lower() == "yes",
            agent_socket=_agent(options.get("identityagent")),
            known_hosts=_existing(
                _words("UserKnownHostsFile", str(options.get("userknownhostsfile", ""))) or _KNOWN_HOSTS,
            ),
            jump=None if jump is None or str(jump).lower() == "none" else str(jump),
            identity_names=tuple(map(str, options.get("identityfile", []))),
            command=options.get("proxycommand"),
        )


def load(path: Path | None) -> SshConfig:
    """Read a configuration.

    Args:
        path: None reads no file; only the default file may be absent.

    Raises:
        ConfigError: it cannot be read or parsed, or includes itself.
    """
    lines: list[str] = []
    skipped: list[str] = []
    if path is not None and (path != USUAL or expand_user(path).exists()):
        lines = list(_followed(_lines(expand_user(path), depth=0), skipped))
    try:
        parsed = paramiko.SSHConfig.from_text("\n".join(lines))
    except Exception as error:  # its parser raises plain Exception, ConfigParseError and ValueError
        raise ConfigError(str(path), f"not a valid ssh configuration: {error}") from error
    return SshConfig(parsed=parsed, skipped=tuple(skipped), aliases=tuple(dict.fromkeys(_aliases(lines))))


def _options(parsed: paramiko.SSHConfig, name: str) -> Mapping[str, Any]:
    try:
        options: Mapping[str, Any] = parsed.lookup(name)
    except Exception as error:  # as in `load`, and KeyError for settings that need others
        raise ConfigError(f"ssh config: Host {name}", f"cannot be evaluated: {error!r}") from error
    return options


def _words(setting: str, value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ConfigError(f"ssh config: {setting} {value[:80]}", str(error)) from error


def _aliases(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        key, value = _split(line)
        if key == "host":
            # Quotes that do not match are an error of the parser above.
            yield from (name for name in shlex.split(value) if not set(name) & set("*?!"))


def _lines(path: Path, *, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ConfigError(str(path), f"includes more than {_DEEPEST} deep: does it include itself?")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from error
    block: str | None = None
    # Not `splitlines`: to ssh, a form feed in a comment ends no line.
    for line in text.split("\n"):
        key, value = _split(line)
        if key in ("host", "match"):
            block = line
        if key != "include":
            yield line
            continue
        for included in _included(path, value):
            inner = list(_lines(included, depth=depth + 1))
            nested = any(_split(one)[0] in ("host", "match") for one in inner)
            if nested and block is not None and _split(block)[1] not in ("*", "all"):
                raise ConfigError(
                    str(path),
                    f"`{line.strip()}` inside `{block.strip()}`: the included file has Host or Match blocks",
                    hint="move the Include to the top of the file",
                )
            yield from inner
            if nested:
                # The lines that follow belong to the block of the Include, not to the last included block.
                yield block if block is not None else "Host *"


def _included(path: Path, value: str) -> Iterator[Path]:
    for pattern in _words("Include", value):
        # Relative paths are relative to ~/.ssh, also in files that are elsewhere.
        base = expand_user(pattern)
        where = base if base.is_absolute() else expand_user("~/.ssh") / base
        if not base.is_absolute() and not glob.has_magic(pattern) and not where.exists():
            where = path.parent / base
        yield from sorted(Path(name) for name in glob.glob(str(where)) if Path(name).is_file())


def _followed(lines: Iterator[str], skipped: list[str]) -> Iterator[str]:
    """Leave out blocks whose `Match` depends on more than host and user; number the certificates."""
    inside, number = False, 0
    for line in lines:
        key, value = _split(line)
        if key in ("host", "match"):
            criteria = _criteria(value) if key == "match" else []
            inside = not {name.removeprefix("!") for name, _ in criteria} <= _MATCHES
            if inside:
                skipped.append(" ".join(line.split()))
            elif key == "match":
                # ssh ignores the case of criteria; paramiko takes one in capitals for one that is met.
                line = "Match " + " ".join(
                    f"{name} {shlex.quote(rest)}" if rest else name for name, rest in criteria
                )
        if inside:
            continue
        number += key == "certificatefile"
        yield line if key != "certificatefile" else f"CertificateFile{number:06} {value}"


def _criteria(value: str) -> list[tuple[str, str]]:
    """Return the criteria of a `Match` line in lower case, with their values, as paramiko reads them."""
    try:
        words = shlex.split(value)
    except ValueError:
        return [("unreadable", value)]
    criteria = []
    while words:
        name = words.pop(0).lower()
        with_value = words and name.removeprefix("!") not in _WITHOUT_VALUE
        criteria.append((name, words.pop(0) if with_value else ""))
    return criteria


def _split(line: str) -> tuple[str, str]:
    """Return a line's keyword in lower case, and the rest; two empty texts for a comment."""
    text = line.strip()
    match = None if text.startswith("#") else _SETTING.match(text)
    return (match[1].lower(), match[2].strip()) if match else ("", "")


def _agent(value: str | None) -> str | None:
    if value is None or value == "SSH_AUTH_SOCK":
        return None
    if value.lower() == "none":
        return "none"
    if value.startswith("$"):
        return os.environ.get(value[1:].strip("{}"), "none")
    return str(expand_user(value.strip('"')))


def _keys(names: Any) -> tuple[Path, ...]:
    paths = (expand_user(str(name)) for name in ([names] if isinstance(names, str) else names))
    return tuple(path for path in paths if _is_file(path) or _is_file(f"{path}.pub"))


def _existing(names: Any) -> tuple[Path, ...]:
    # paramiko returns a list for settings that may be repeated, and a string for the others.
    paths = (expand_user(str(name)) for name in ([names] if isinstance(names, str) else names))
    return tuple(path for path in paths if _is_file(path))


def _is_file(path: Path | str) -> bool:
    """Return whether there is a file that this user can see; Path.is_file raises in another user's folder."""
    return os.path.isfile(path)
