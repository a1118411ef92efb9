"""The user's crontab: one line of ours in it, all others as they are."""

from __future__ import annotations

from edgeq_agent.autostart import command
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError


def with_line(before: str, line: str, name: str) -> str:
    """Return a crontab with our line (none where `line` is empty) in the place of the one with our name."""
    kept = [other for other in before.splitlines() if not other.endswith("# " + name)]
    return "".join(other + "\n" for other in [*kept, *([line] if line else [])])


def read(program: str) -> str:
    """Return the user's crontab, empty where there is none.

    Raises:
        AgentError: EQ558, it cannot be read.
    """
    said = command.run([program, "-l"])
    if said.status == 0:
        return said.text
    if "no crontab" in said.text.lower():
        return ""
    raise _refused(program, said.line)


def change(program: str, line: str, name: str) -> None:
    """Let the crontab have our line, or none.

    Raises:
        AgentError: EQ558, the device does not let this user have a crontab.
    """
    before = read(program)
    after = with_line(before, line, name)
    if after != before:
        said = command.run([program, "-"], after.encode("utf-8"))
        if said.status != 0:
            raise _refused(program, said.line)


def has(program: str, line: str) -> bool:
    """Tell whether our line is there."""
    return line in read(program).splitlines()


def _refused(program: str, said: str) -> AgentError:
    return AgentError(
        SERVICE_IMPOSSIBLE,
        program,
        f"this user's crontab cannot be used: {said}",
        hint="allow it (/etc/cron.allow), or start the script by hand: `edgeq devices service` names it",
    )
