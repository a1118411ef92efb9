"""Fit a hint to the command that was run: remove what names it again, or a device that is not enrolled."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

from edgeq.errors import EdgeqError

_COMMAND = re.compile(r"`edgeq ([^`]+)`")
# A value that the reader fills in.
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|[A-Z]+\.pub|\S*\.\.\.")
# The commands whose next word is a device.
_OF_A_DEVICE = (
    ("doctor",),
    ("status",),
    ("devices", "remove"),
    ("devices", "rotate-key"),
    ("devices", "service"),
    ("devices", "native"),
    ("devices", "stop"),
)
_DEVICE_OPTIONS = ("--on", "--to")
_ENROLS = (("devices", "add"), ("devices", "emulate"), ("devices", "import"))


def fitting(hint: str, *, words: Sequence[str], devices: Collection[str], code: str | None) -> str:
    """Return a hint without the clauses that cannot help after a command.

    Args:
        words: the command line, without `edgeq`.
        devices: the names of the enrolled devices.
        code: of the error; None for a check of `edgeq doctor`.
    """
    clauses = re.split(r"(?<=;) ", hint)
    kept = [
        clause
        for clause in clauses
        if all(_helps(command.split(), words, devices) for command in _COMMAND.findall(clause))
    ]
    if len(kept) == len(clauses):
        return hint
    return " ".join(kept).rstrip("; ") or _instead(code, words)


def fit(error: EdgeqError, words: Sequence[str]) -> None:
    """Fit the hint of an error to the command line; reads the inventory only if the hint names a command."""
    if "`edgeq " in error.hint:
        devices = enrolled(_workspace(words))
        error.hint = fitting(error.hint, words=words, devices=devices, code=error.reported_code)


def _helps(command: Sequence[str], words: Sequence[str], devices: Collection[str]) -> bool:
    literal = [word for word in command if not _PLACEHOLDER.fullmatch(word)]
    if set(literal) <= set(words):
        return False
    if command[0] == "status" and "doctor" in words:
        return False  # it asks the device the same way
    for path in _OF_A_DEVICE:
        if tuple(command[: len(path)]) == path:
            named = [word for word in command[len(path) : len(path) + 1] if not word.startswith("-")]
            if not _is_enrolled(named, words, devices):
                return False
    named = [after for word, after in pairwise(command) if word in _DEVICE_OPTIONS]
    return _is_enrolled(named, words, devices)


def _is_enrolled(named: Sequence[str], words: Sequence[str], devices: Collection[str]) -> bool:
    for name in named:
        if _PLACEHOLDER.fullmatch(name):
            # It stands for the device of the command, which is about to be enrolled.
            if any(_has(words, path) for path in _ENROLS):
                return False
        elif name not in devices and name != "all" and not name.startswith("label"):
            return False
    return True


def _instead(code: str | None, words: Sequence[str]) -> str:
    if code is not None and not code.startswith("EQ4"):
        return f"docs/errors.md explains {code}"
    if any(_has(words, path) for path in _ENROLS):
        return "check that `ssh` with the same user, port and key runs a command there"
    return "check the device's power, its network and its SSH server"


def _has(words: Sequence[str], path: Sequence[str]) -> bool:
    return any(tuple(words[at : at + len(path)]) == tuple(path) for at in range(len(words)))


def enrolled(workspace: Path) -> Collection[str]:
    """Return the names of the devices of a workspace; none if its inventory cannot be read."""
    from edgeq.fleet.inventory import Inventory

    try:
        return Inventory.load(workspace).names
    except EdgeqError:
        return ()


def _workspace(words: Sequence[str]) -> Path:
    for at, word in enumerate(words):
        if word == "--workspace" and at + 1 < len(words):
            return Path(words[at + 1])
        if word.startswith("--workspace="):
            return Path(word.partition("=")[2])
    return Path(os.environ.get("EDGEQ_WORKSPACE") or ".")
