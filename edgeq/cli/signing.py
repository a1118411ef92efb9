"""Signing keys for commands: asks for their passphrases on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.ui import App

if TYPE_CHECKING:
    from edgeq.bundle.keys import Passphrase, SigningKey


def passphrase_of(app: App) -> Passphrase:
    """Return what knows passphrases: the file that the environment names, else the person at the terminal."""
    from edgeq.bundle.keys import passphrase_of_environment

    def ask(path: Path) -> bytes | None:
        secret = passphrase_of_environment(path)
        if secret is not None or not app.ui.interactive:
            return secret
        return str(click.prompt(f"passphrase of {path}", hide_input=True, err=True)).encode()

    return ask


def private_keys(app: App, keys: Sequence[str]) -> list[SigningKey]:
    """Return the signing keys for names, paths or `agent:NAME`."""
    from edgeq.bundle.keys import find_private

    ask = passphrase_of(app)
    return [find_private(app.workspace, key, ask) for key in keys]


def new_passphrase(app: App, name: str) -> bytes:
    """Return the passphrase for a new key, asked for twice on a terminal.

    Raises:
        UsageError: it is empty, or there is no terminal.
    """
    from edgeq.bundle.keys import PASSPHRASE_FILE, passphrase_of_environment
    from edgeq.errors import UsageError

    secret = passphrase_of_environment(Path(name))
    if secret is None and app.ui.interactive:
        prompt = f"passphrase of the new key {name}"
        secret = str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)).encode()
    if not secret:
        hint = f"run it on a terminal, or set {PASSPHRASE_FILE} to the path of a file with it (mode 0600)"
        raise UsageError("--passphrase", expected="a passphrase", got="none", hint=hint)
    return secret
