"""Choose the kind of autostart for a device, and check whether an installed one runs at boot."""

from __future__ import annotations

from edgeq_agent.autostart import cron
from edgeq_agent.autostart.host_env import HostEnv
from edgeq_agent.autostart.record import Record, folder
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError
from edgeq_agent.platforms.base import PLAIN, SYSTEMD_SYSTEM, SYSTEMD_USER, TERMUX_BOOT

KINDS = (SYSTEMD_USER, SYSTEMD_SYSTEM, TERMUX_BOOT, PLAIN)
SYSTEMD = (SYSTEMD_USER, SYSTEMD_SYSTEM)


def choose(env: HostEnv) -> str:
    """Return the kind that needs the fewest rights and still starts with the device."""
    # Root's own services belong to the system: root's user manager runs only while root is logged in.
    kinds = [kind for kind in env.kinds if kind != SYSTEMD_USER or env.uid != 0]
    return next((kind for kind in kinds if _obstacle(kind, env) is None), PLAIN)


def check(kind: str, env: HostEnv) -> None:
    """Refuse a kind that cannot work on the device.

    Raises:
        AgentError: EQ558.
    """
    obstacle = _obstacle(kind, env)
    if obstacle is not None:
        expected, got = obstacle
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            kind,
            "is not possible on this device",
            expected,
            got,
            hint=f"use `--kind {choose(env)}`, or leave out --kind",
        )


def _obstacle(kind: str, env: HostEnv) -> tuple[str, str] | None:
    """Return what the kind needs and what the device has instead; None when the kind is possible."""
    if kind in SYSTEMD and not env.systemd:
        return "a device that runs systemd", "another init system"
    if kind == SYSTEMD_USER and not env.user_manager:
        return f"a running systemd user manager of {env.user}", "none"
    if kind == SYSTEMD_SYSTEM and env.uid != 0 and not env.sudo:
        return "root, or sudo without a password", env.user
    if kind == TERMUX_BOOT and env.prefix is None:
        return "Termux", "no Termux"
    return None


def runs_at_boot(record: Record, env: HostEnv, seen: bool) -> tuple[bool | None, str | None]:
    """Return (whether the autostart runs at boot, why not); None when only the next restart can show it.

    Args:
        seen: whether it ran in a later boot than the one it was installed in.
    """
    if not record.is_intact():
        return False, "its files were changed after the installation; run `--enable` again"
    if record.kind == SYSTEMD_USER and not env.linger:
        return False, f"lingering is off: systemd starts the services of {env.user} at the first login only"
    if record.kind == TERMUX_BOOT and not seen:
        return (
            None,
            "the app Termux:Boot must be installed and opened once; a restart shows whether it is",
        )
    return _cron_at_boot(record, env) if record.kind == PLAIN else (True, None)


def _cron_at_boot(record: Record, env: HostEnv) -> tuple[bool | None, str | None]:
    if not record.crontab or not env.crontab:
        return False, f"this device has no crontab; nothing runs {record.files[-1]}"
    try:
        has_line = cron.has_line(env.crontab, record.crontab)
    except AgentError as error:
        return False, error.problem
    if not has_line:
        return False, "its line was removed from the crontab; run `--enable` again"
    if not env.cron:
        return False, "no cron daemon runs"
    return True, None


def hint(kind: str, env: HostEnv) -> str:
    """Return what the user can do so that the autostart runs at boot."""
    if kind == SYSTEMD_USER:
        return f"on the device: sudo loginctl enable-linger {env.user}; then run this command again"
    if kind == PLAIN and env.crontab:
        return "start a cron daemon on the device, then run this command again"
    script = folder(env.home) + "/start.sh"
    return f"make the device's init system run {script} as {env.user}, or install cron"
