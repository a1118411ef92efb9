"""The first command on a device: prove its Python by running it, and place the agent file, verified.

The script below is fixed text; what varies comes as arguments. It is the only code of ours that may meet any
Python at all, so it is written for all of them, and says its version before it does anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.errors import AgentProtocolError, DeviceOutOfSpace, DeviceUnsupported
from edgeq.fleet.agent.file import AgentFile
from edgeq.fleet.transport import Ended, Limits, Transport
from edgeq.units import format_size
from edgeq.values import Device

OLDEST_PYTHON = (3, 7)

_SCRIPT = r"""
import errno, hashlib, json, os, sys, tempfile
def say(**answer):
    answer["edgeq"] = 1
    answer["python"] = list(sys.version_info[:3])
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
def content(path):
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except (IOError, OSError):
        return None
def keep(folder):
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # one that may be written and not read: its names are as durable as the system makes them
    os.fsync(handle)
    os.close(handle)
def make(folder):
    if os.path.isdir(folder):
        return
    make(os.path.dirname(folder))
    try:
        os.mkdir(folder, 0o700)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    keep(os.path.dirname(folder))
verb, home, name, digest, size = sys.argv[1:6]
home = os.path.join(os.path.expanduser("~"), home)
path = os.path.join(home, "agent", name)
if verb == "look" or sys.version_info < (3, 7):
    say(home=home, sha256=content(path))
    sys.exit(0)
temporary = None
try:
    make(os.path.dirname(path))
    handle, temporary = tempfile.mkstemp(prefix=".agent-", dir=os.path.dirname(path))
    data = sys.stdin.buffer.read(int(size))
    got = hashlib.sha256(data).hexdigest()
    if got != digest:
        say(home=home, sha256=got, error="digest")
        sys.exit(1)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o600)
    os.replace(temporary, path)
    temporary = None
    keep(os.path.dirname(path))
except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    say(home=home, sha256=None, error="space" if full else "os", reason=str(error))
    sys.exit(1)
finally:
    if temporary is not None:
        os.unlink(temporary)
say(home=home, sha256=content(path))
"""


class Placed(StrEnum):
    """What placing the agent did."""

    CREATE = "create"
    CHANGE = "change"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the agent is on a device.

    Attributes:
        path: the agent file, absolute.
        home: the agent's folder, absolute.
        python: the version that ran.
        sent_bytes: 0 when the file was there already.
    """

    path: str
    home: str
    python: str
    action: Placed
    sent_bytes: int


def place_agent(transport: Transport, device: Device, agent: AgentFile, *, timeout_s: float) -> Placement:
    """Make sure that the device has exactly this agent file, and return where.

    The file goes over the command's standard input, not over sftp: that needs no second subsystem, syncs the
    file before its rename, and tells a full disk by its name.

    Raises:
        DeviceUnsupported: there is no Python 3.7 or later.
        DeviceOutOfSpace: no room for the file.
        TransportError: the way to the device failed.
    """
    found = _run(transport, device, "look", agent, timeout_s=timeout_s)
    before = found.get("sha256")
    action = Placed.SAME
    if before != agent.sha256:
        action = Placed.CREATE if before is None else Placed.CHANGE
        found = _run(transport, device, "place", agent, timeout_s=timeout_s)
        if found.get("sha256") != agent.sha256:
            raise AgentProtocolError(
                device.name,
                "the agent file did not arrive whole",
                expected=agent.sha256,
                got=str(found.get("sha256")),
            )
    home = str(found["home"])
    return Placement(
        path=f"{home}/agent/{agent.name}",
        home=home,
        python=".".join(map(str, found["python"])),
        action=action,
        sent_bytes=0 if action is Placed.SAME else len(agent.data),
    )


def _run(
    transport: Transport, device: Device, verb: str, agent: AgentFile, *, timeout_s: float
) -> dict[str, Any]:
    argv = [device.python, "-c", _SCRIPT, verb, device.home, agent.name, agent.sha256, str(len(agent.data))]
    running = transport.run(
        argv,
        stdin=_pieces(agent.data) if verb == "place" else (),
        limits=Limits(first_s=2 * timeout_s, silence_s=2 * timeout_s, total_s=4 * timeout_s),
    )
    answer: dict[str, Any] | None = None
    for line in running.lines():
        answer = _answer(line) or answer
    ended = running.ended()
    if answer is None:
        raise no_python(device, ended)
    if tuple(answer["python"][:2]) < OLDEST_PYTHON:
        raise DeviceUnsupported(
            device.name,
            f"{device.python} is too old",
            expected="Python 3.7 or later",
            got=".".join(map(str, answer["python"])),
            hint="install a newer Python there, and name it in devices.toml: python = '/path/to/python3'",
        )
    if answer.get("error") == "space":
        raise DeviceOutOfSpace(
            device.name, f"no space for the agent ({format_size(len(agent.data))}) in {answer['home']}"
        )
    if answer.get("error") == "os":
        raise DeviceUnsupported(device.name, f"the agent cannot be placed: {answer.get('reason')}")
    return answer


def _answer(line: bytes) -> dict[str, Any] | None:
    # Start-up files may print lines of their own; ours says so.
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return answer if is_ours(answer) else None


def is_ours(answer: object) -> bool:
    """Tell whether a line is one of the scripts' own: with a version of Python, and a home."""
    if not isinstance(answer, dict) or answer.get("edgeq") != 1:
        return False
    python, home = answer.get("python"), answer.get("home")
    numbers = isinstance(python, list) and len(python) > 1 and all(type(part) is int for part in python)
    return numbers and isinstance(home, str)


def no_python(device: Device, ended: Ended) -> DeviceUnsupported:
    """Return the error for a device whose Python did not run."""
    reason = ended.stderr.splitlines()[-1] if ended.stderr else f"exit status {ended.exit_status}"
    return DeviceUnsupported(
        device.name,
        f"{device.python} does not run: {reason}",
        hint="install Python 3.7 or later there, or name one: `edgeq devices add --python /path/to/python3`; "
        "`python` in devices.toml",
    )


def _pieces(data: bytes) -> Iterator[bytes]:
    yield data
