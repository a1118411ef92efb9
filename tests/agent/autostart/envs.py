"""A Raspberry Pi with systemd and a phone with Termux, as autostart sees them."""

from __future__ import annotations

from edgeq_agent.autostart.host_env import HostEnv
from edgeq_agent.platforms.base import PLAIN, SYSTEMD_SYSTEM, SYSTEMD_USER, TERMUX_BOOT

PI = HostEnv(
    home="/srv/pi/.edgeq",
    python="/usr/bin/python3",
    uid=1000,
    user="pi",
    login="/srv/pi",
    kinds=(SYSTEMD_USER, SYSTEMD_SYSTEM, PLAIN),
    prefix=None,
    systemd=True,
    user_manager=True,
    linger=True,
    sudo=False,
    crontab=None,
    cron=False,
)
PHONE = PI._replace(
    home="/data/data/com.termux/files/home/.edgeq",
    login="/data/data/com.termux/files/home",
    python="/data/data/com.termux/files/usr/bin/python3",
    kinds=(TERMUX_BOOT, PLAIN),
    prefix="/data/data/com.termux/files/usr",
    systemd=False,
    user_manager=False,
)
