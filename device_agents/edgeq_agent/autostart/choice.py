"""Which kind of start fits a device, and whether one that was asked for is possible; pure."""

from __future__ import annotations

from edgeq_agent.autostart.host_env import PLAIN, SYSTEM, TERMUX, USER, Surroundings
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError


def choose(found: Surroundings) -> str:
    """Return the kind that asks for the fewest rights and still starts with the device."""
    if found.prefix is not None:
        return TERMUX
    if not found.systemd:
        return PLAIN
    if found.uid == 0:
        return SYSTEM
    if found.user_manager:
        return USER
    return SYSTEM if found.sudo else PLAIN


def check(kind: str, found: Surroundings) -> None:
    """Refuse a kind that cannot work here.

    Raises:
        AgentError: EQ558.
    """
    if kind in (USER, SYSTEM) and not found.systemd:
        raise _impossible(kind, "a device that runs systemd", "another init system", found)
    if kind == USER and not found.user_manager:
        raise _impossible(kind, f"systemd's manager of {found.user}'s services", "none that runs", found)
    if kind == SYSTEM and found.uid != 0 and not found.sudo:
        raise _impossible(kind, "root, or sudo without a password", found.user, found)
    if kind == TERMUX and found.prefix is None:
        raise _impossible(kind, "Termux", "none here", found)


def _impossible(kind: str, expected: str, got: str, found: Surroundings) -> AgentError:
    return AgentError(
        SERVICE_IMPOSSIBLE,
        kind,
        "is not possible on this device",
        expected,
        got,
        hint=f"use `--kind {choose(found)}`, or leave --kind out",
    )
