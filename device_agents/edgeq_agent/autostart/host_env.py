"""What can start something on this device: its init system, its cron, and what this user may do there."""

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

USER = "systemd-user"
SYSTEM = "systemd-system"
TERMUX = "termux-boot"
PLAIN = "plain"
KINDS = (USER, SYSTEM, TERMUX, PLAIN)

_CRONS = ("cron", "crond", "cronie", "fcron", "anacron")


class Surroundings(NamedTuple):
    """Facts that decide how the agent is started; all paths are absolute.

    Attributes:
        home: the agent's folder.
        login: the user's own folder.
        prefix: Termux's, or None elsewhere.
        user_manager: whether systemd runs this user's own services just now.
        linger: whether it runs them also when the user is not logged in.
        sudo: whether sudo asks for no password.
        crontab: the program, or None.
        cron: whether a daemon that reads crontabs can be seen.
    """

    home: str
    python: str
    uid: int
    user: str
    login: str
    prefix: str | None
    systemd: bool
    user_manager: bool
    linger: bool
    sudo: bool
    crontab: str | None
    cron: bool


def look(home: str, root: str = "/") -> Surroundings:
    """Return what is there; `root` is where the system's files are looked up."""
    uid = os.getuid()
    systemd = os.path.isdir(os.path.join(root, "run/systemd/system"))
    user = _user(uid)
    return Surroundings(
        home=home,
        python=sys.executable,
        uid=uid,
        user=user,
        login=os.path.expanduser("~"),
        prefix=platforms.platform_of(root).app_prefix(),
        systemd=systemd,
        user_manager=os.path.exists(os.path.join(root, f"run/user/{uid}/systemd/private")),
        linger=lingers(user, root),
        sudo=systemd and uid != 0 and command.run(["sudo", "-n", "true"]).status == 0,
        crontab=_crontab(),
        cron=_cron_runs(root),
    )


def lingers(user: str, root: str = "/") -> bool:
    """Tell whether systemd runs a user's services without a login; logind notes it as a file."""
    return os.path.exists(os.path.join(root, "var/lib/systemd/linger", user))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _crontab() -> str | None:
    found = shutil.which("crontab")
    # Busybox's knows no @reboot.
    return None if found is None or "busybox" in os.path.realpath(found) else found


def _cron_runs(root: str) -> bool:
    names = {read_text(path) for path in process_token.name_files(root)}
    return bool(names & set(_CRONS))
