"""The user's crontab: add, replace or remove the one line of this agent."""

from __future__ import annotations

from edgeq_agent.autostart import command
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError


def with_line(crontab: str, line: str, name: str) -> str:
    """Return the crontab with `line` in place of the line that has our name; an empty one removes it."""
    others = [other for other in crontab.splitlines() if not other.endswith("# " + name)]
    return "".join(other + "\n" for other in [*others, *([line] if line else [])])


def read(program: str) -> str:
    """Return the user's crontab; empty when there is none.

    Raises:
        AgentError: EQ558, it cannot be read.
    """
    output = command.run([program, "-l"])
    if output.status == 0:
        return output.text
    if "no crontab" in output.text.lower():
        return ""
    raise _refused(program, output.last_line)


def set_line(program: str, line: str, name: str) -> None:
    """Put our line into the crontab, or remove it when `line` is empty.

    Raises:
        AgentError: EQ558, the device does not allow this user a crontab.
    """
    before = read(program)
    after = with_line(before, line, name)
    if after != before:
        output = command.run([program, "-"], after.encode("utf-8"))
        if output.status != 0:
            raise _refused(program, output.last_line)


def has_line(program: str, line: str) -> bool:
    """Return whether our line is in the crontab.

    Raises:
        AgentError: EQ558, the crontab cannot be read.
    """
    return line in read(program).splitlines()


def _refused(program: str, message: str) -> AgentError:
    return AgentError(
        SERVICE_IMPOSSIBLE,
        program,
        f"this user's crontab cannot be used: {message}",
        hint="allow it in /etc/cron.allow, or start the script that `edgeq devices service DEVICE` names",
    )
