"""Check a device's Python by running it, and install the agent file, verified by its digest.

The script below is fixed text; its parameters come as arguments. It may meet any version of Python, so it is
written for all of them and reports the version before it does anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.errors import AgentProtocolError, DeviceOutOfSpace, DeviceUnsupported
from edgeq.fleet.agent.file import AgentFile
from edgeq.fleet.transport import Ended, Limits, Transport
from edgeq.units import format_size
from edgeq.values import Device
from edgeq_agent import wire

OLDEST_PYTHON = (3, 7)

SCRIPT = r"""
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
        return  # writable but not readable: fsync is impossible
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


class PlacementAction(StrEnum):
    """What installing the agent file did."""

    CREATE = "create"
    CHANGE = "change"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the agent file is on a device.

    Attributes:
        path: of the agent file, absolute.
        home: the agent's folder, absolute.
        python: the version of Python that ran.
        sent_bytes: 0 when the file was already installed.
    """

    path: str
    home: str
    python: str
    action: PlacementAction
    sent_bytes: int


def install_agent(transport: Transport, device: Device, agent: AgentFile, *, timeout_s: float) -> Placement:
    """Make sure that the device has exactly this agent file, and return its path.

    The file is sent over the command's standard input and not over sftp: that needs no second subsystem,
    allows an fsync before the rename, and reports a full disk as such.

    Raises:
        DeviceUnsupported: there is no Python 3.7 or later.
        DeviceOutOfSpace: there is no room for the file.
        TransportError: the connection failed.
    """
    response = _run(transport, device, "look", agent, timeout_s=timeout_s)
    before = response.sha256
    action = PlacementAction.SAME
    if before != agent.sha256:
        action = PlacementAction.CREATE if before is None else PlacementAction.CHANGE
        response = _run(transport, device, "place", agent, timeout_s=timeout_s)
        if response.sha256 != agent.sha256:
            raise AgentProtocolError(
                device.name,
                "the agent file was damaged on its way",
                expected=agent.sha256,
                got=str(response.sha256),
            )
    return response.placement(
        agent, action, sent_bytes=0 if action is PlacementAction.SAME else len(agent.data)
    )


class ScriptResponse(BaseModel):
    """The one line of JSON that a bootstrap script prints.

    Attributes:
        edgeq: 1 marks the line; start-up files of the device may print lines of their own.
        python: version numbers of the interpreter.
        home: the agent's folder, absolute.
        sha256: of the agent file; None when there is none.
        error: `space` for a full disk, `os` for another error of the system, `digest` for damaged bytes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    edgeq: Literal[1]
    python: Annotated[tuple[int, ...], Field(min_length=2, strict=False)]
    home: str
    sha256: str | None = None
    error: str | None = None
    reason: str | None = None

    @property
    def version(self) -> str:
        """The version of Python, such as `3.11.2`."""
        return ".".join(map(str, self.python))

    def placement(self, agent: AgentFile, action: PlacementAction, *, sent_bytes: int = 0) -> Placement:
        """Return where the agent file is."""
        return Placement(
            path=f"{self.home}/agent/{agent.name}",
            home=self.home,
            python=self.version,
            action=action,
            sent_bytes=sent_bytes,
        )


def script_response(line: bytes) -> ScriptResponse | None:
    """Return the response in a line of output; None for any other line."""
    if not line.lstrip().startswith(b"{"):
        return None  # a device may print very many lines
    try:
        return ScriptResponse.model_validate(wire.parse_json(line))
    except (ValueError, wire.WireError):  # ValidationError is a ValueError
        return None


def _run(
    transport: Transport, device: Device, verb: str, agent: AgentFile, *, timeout_s: float
) -> ScriptResponse:
    argv = [device.python, "-c", SCRIPT, verb, device.home, agent.name, agent.sha256, str(len(agent.data))]
    running = transport.run(
        argv,
        stdin=_pieces(agent.data) if verb == "place" else (),
        limits=Limits(first_s=2 * timeout_s, silence_s=2 * timeout_s, total_s=4 * timeout_s),
    )
    response: ScriptResponse | None = None
    for line in running.lines():
        response = script_response(line) or response
    ended = running.ended()
    if response is None:
        raise no_python(device, ended)
    if response.python[:2] < OLDEST_PYTHON:
        raise DeviceUnsupported(
            device.name,
            f"{device.python} is too old",
            expected="Python 3.7 or later",
            got=response.version,
            hint="install a newer Python on the device and set its path in devices.toml: "
            "python = '/path/to/python3'",
        )
    if response.error == "space":
        raise DeviceOutOfSpace(
            device.name, f"no space for the agent ({format_size(len(agent.data))}) in {response.home}"
        )
    if response.error == "os":
        raise DeviceUnsupported(device.name, f"the agent file cannot be installed: {response.reason}")
    return response


def no_python(device: Device, ended: Ended) -> DeviceUnsupported:
    """Return the error for a device whose Python does not run."""
    reason = ended.stderr.splitlines()[-1] if ended.stderr else f"exit status {ended.exit_status}"
    return DeviceUnsupported(
        device.name,
        f"{device.python} does not run: {reason}",
        hint="install Python 3.7 or later on the device, or set its path: "
        "`edgeq devices add --python /path/to/python3`, or `python` in devices.toml",
    )


def _pieces(data: bytes) -> Iterator[bytes]:
    yield data
