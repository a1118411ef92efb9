"""Facts about the device's ways to start programs: its init system, its cron, and this user's rights."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from typing import NamedTuple

from edgeq_agent.autostart import command
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.platforms.sysfs import read_text
from edgeq_agent.storage import process_token

_CRON_DAEMONS = {"cron", "crond", "cronie", "fcron", "anacron"}


class HostEnv(NamedTuple):
    """Facts that decide how the agent can be started; all paths are absolute.

    Attributes:
        home: the agent's folder.
        python: the interpreter.
        login: the user's home directory.
        kinds: the kinds of autostart that the platform knows, best first.
        prefix: the folder of Termux's programs; None elsewhere.
        systemd: whether systemd is the init system.
        user_manager: whether systemd's user manager runs now for this user.
        linger: whether systemd starts the user's services without a login.
        sudo: whether sudo works without a password.
        crontab: the crontab program, or None.
        cron: whether a cron daemon runs.
    """

    home: str
    python: str
    uid: int
    user: str
    login: str
    kinds: tuple[str, ...]
    prefix: str | None
    systemd: bool
    user_manager: bool
    linger: bool
    sudo: bool
    crontab: str | None
    cron: bool


def detect(home: str, root: str = "/") -> HostEnv:
    """Read the facts; the system's files are read below `root`."""
    platform = platforms.platform_of(root)
    uid = os.getuid()
    user = _user_name(uid)
    systemd = os.path.isdir(os.path.join(root, "run/systemd/system"))
    return HostEnv(
        home=home,
        python=sys.executable,
        uid=uid,
        user=user,
        login=os.path.expanduser("~"),
        kinds=platform.autostart_kinds(),
        prefix=platform.app_prefix(),
        systemd=systemd,
        user_manager=os.path.exists(os.path.join(root, f"run/user/{uid}/systemd/private")),
        linger=has_linger(user, root),
        sudo=systemd and uid != 0 and command.run(["sudo", "-n", "true"]).status == 0,
        crontab=_crontab(),
        cron=_cron_runs(root),
    )


def has_linger(user: str, root: str = "/") -> bool:
    """Return whether systemd starts a user's services without a login; logind keeps that as a file."""
    return os.path.exists(os.path.join(root, "var/lib/systemd/linger", user))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _crontab() -> str | None:
    program = shutil.which("crontab")
    # Busybox's cron does not support @reboot.
    return None if program is None or "busybox" in os.path.realpath(program) else program


def _cron_runs(root: str) -> bool:
    return any(read_text(path) in _CRON_DAEMONS for path in process_token.name_files(root))
