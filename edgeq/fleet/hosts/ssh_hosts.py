"""Hosts of an ssh configuration: its aliases, with what the configuration says about each.

The device refers to the alias and to the file, so that certificates, agents and later changes of the file
hold too. Port, user, key and jump hosts are also in its entry, where `edgeq devices list` shows them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgeq.errors import ConfigError
from edgeq.files import expand_user
from edgeq.fleet.hosts.entry import Entries, HostEntry, HostFile, make_entry
from edgeq.fleet.ssh.config import USUAL, SshConfig, load


def read_ssh_config(path: Path) -> HostFile:
    """Return the hosts of a configuration and of the files that it includes; patterns name no host.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    entries = Entries(path)
    usual = expand_user(path).absolute() == expand_user(USUAL).absolute()
    config = load(USUAL if usual else path)
    for skipped in config.skipped:
        entries.notes.append(f"`{skipped}` is not evaluated")
    for alias in config.aliases:
        where = f"{path.name}: Host {alias}"
        entries.add(where, alias, partial(_entry, config, alias, where, True if usual else path.absolute()))
    return entries.file()


def _entry(config: SshConfig, alias: str, where: str, ssh_config: bool | Path) -> HostEntry:
    settings = config.lookup(alias)
    if settings.command and settings.command.lower() != "none" and settings.jump is None:
        raise ConfigError(
            where,
            "has a ProxyCommand, which edgeq does not run",
            expected="ProxyJump",
            got=repr(settings.command[:80]),
        )
    notes = []
    if settings.identity_names and not settings.identities:
        notes.append(f"its IdentityFile {settings.identity_names[0]} does not exist")
    return make_entry(
        where=where,
        name=alias,
        host=alias,
        port=None if settings.port is None else str(settings.port),
        user=settings.user,
        # Of a key in an agent, only the public half may be here; the configuration still names it.
        identity=next((str(key) for key in settings.identities if key.is_file()), None),
        jump=settings.jump,
        ssh_config=ssh_config,
        notes=tuple(notes),
    )
