"""Whether what is installed runs when the device starts; what cannot be known is said to be so."""

from __future__ import annotations

from edgeq_agent.autostart import cron, record
from edgeq_agent.autostart.host_env import PLAIN, TERMUX, USER, Surroundings
from edgeq_agent.errors import AgentError
from edgeq_agent.wire import Json


def judge(body: Json, found: Surroundings, seen: bool) -> tuple[bool | None, str | None]:
    """Return (whether it starts with the device, why not); None: only the next restart shows it.

    Args:
        body: the record of what is installed.
        seen: whether it was seen to start in a later boot than that of its installation.
    """
    if not record.whole(body):
        return False, "its files are not as they were installed; run `--enable` again"
    kind = body["kind"]
    if kind == USER and not found.linger:
        return False, f"linger is off: systemd starts {found.user}'s services at the first login only"
    if kind == TERMUX and not seen:
        return None, "the app Termux:Boot must be there and have been opened once; a restart shows it"
    return _of_cron(body, found) if kind == PLAIN else (True, None)


def _of_cron(body: Json, found: Surroundings) -> tuple[bool | None, str | None]:
    script = body["files"][-1]
    if not body["crontab"] or not found.crontab:
        return False, f"this device has no crontab; nothing runs {script}"
    try:
        there = cron.has(found.crontab, body["crontab"])
    except AgentError as error:
        return False, error.problem
    if not there:
        return False, "its line is not in the crontab any more; run `--enable` again"
    if not found.cron:
        return False, "no cron daemon is seen to run"
    return True, None


def hint(kind: str, found: Surroundings) -> str:
    """Return what makes it start."""
    if kind == USER:
        return f"on the device: sudo loginctl enable-linger {found.user}; then run this again"
    if kind == PLAIN and found.crontab:
        return "start a cron daemon on the device, then run this again"
    script = record.folder(found.home) + "/start.sh"
    return f"let whatever starts programs on the device run {script} as {found.user}; or install cron"
