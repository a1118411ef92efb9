"""Check a device's Python by running it, and install the agent file, verified by its digest.

The scripts below are fixed text; their parameters come as arguments. They may meet any version of Python, so
they are written for all of them and report the version before they do anything else. They may also meet any
login shell: `python_argv` leaves nothing in them that fish or csh would change within single quotes.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeq.errors import AgentProtocolError, DeviceOutOfSpace, DeviceUnsupported
from edgeq.fleet.agent.file import AgentFile
from edgeq.fleet.agent.framing import Frame
from edgeq.fleet.transport import Ended, Limits, Transport
from edgeq.units import format_size
from edgeq.values import Device
from edgeq_agent import wire

OLDEST_PYTHON = (3, 7)
# How long output is read after the answer: a process of a start file may hold it open.
END_S = 0.5
_LOOK_S = 4.0
_HOLD_S = 1.0
# SSH_FXP_INIT of version 3, and the start of the answer.
_SFTP_HELLO, _SFTP_VERSION = b"\0\0\0\5\1\0\0\0\3", b"\2\0\0\0\3"
# How Python says that a module is missing when it cannot start the agent.
LACKING = re.compile(
    r"No module named '?([\w.]+)|can't decompress data; (zlib) not|ImportError: .*?\b(_\w+)\.cpython"
)

SCRIPT = r"""
import errno, hashlib, json, os, sys, tempfile
def say(**answer):
    answer["edgeq"] = 1
    answer["python"] = list(sys.version_info[:3])
    sys.stdout.write(globals().get("mark", "") + json.dumps(answer) + chr(10))
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
        if not error.errno == errno.EEXIST:
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
    data = bytes([10])
    while data == bytes([10]):  # empty lines for the start files of the shell
        data = sys.stdin.buffer.read(1)
    data += sys.stdin.buffer.read(int(size) - 1)
    got = hashlib.sha256(data).hexdigest()
    if not got == digest:
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


# Runs before a script. The current folder is not searched: a file of the user may be called `json.py`.
_CHECK = r"""
import sys
sys.path[:] = [folder for folder in sys.path if folder]
mark = sys.argv.pop(1)
lacking = []
for name in sys.argv.pop(1).split(","):
    try:
        if name and sys.version_info >= (3, 7):
            __import__(name)
    except ImportError as error:
        lacking.append(error.name or name)
if lacking:
    answer = "{%cedgeq%c: 1, %cpython%c: [%d, %d], %chome%c: %c%c, %clacking%c: %c%s%c}" % (
        (34, 34, 34, 34) + tuple(sys.version_info[:2]) + (34,) * 7 + (" ".join(lacking), 34)
    )
    sys.stdout.write(mark + answer + chr(10))
    sys.exit(1)
"""
_LOADER = "import sys;exec(sys.argv.pop(1).replace(chr(96),chr(10)))"

# Modules of the standard library that a Python may be built or packaged without. Without the first ones the
# agent does not start. The others are checked when it is installed, because imports take time.
START_MODULES = ("errno", "fcntl", "hashlib", "json", "os", "select", "tempfile", "zlib")
AGENT_MODULES = (
    "argparse",
    "base64",
    "binascii",
    "contextlib",
    "dataclasses",
    "email.utils",
    "enum",
    "glob",
    "grp",
    "hmac",
    "http",
    "logging",
    "math",
    "mmap",
    "pwd",
    "queue",
    "random",
    "resource",
    "selectors",
    "shlex",
    "shutil",
    "signal",
    "socket",
    "socketserver",
    "sqlite3",
    "struct",
    "subprocess",
    "threading",
    "tokenize",
    "typing",
    "urllib.parse",
    "uuid",
    "weakref",
    "zipfile",
)


def python_argv(
    script: str,
    arguments: list[str],
    *,
    mark: str = "",
    modules: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> list[str]:
    """Return the arguments of Python that run a script.

    Args:
        mark: precedes each line of its output, as the variable `mark`.
        modules: the script runs only if these can be imported.
        flags: of the interpreter.
    """
    text = (_CHECK + script).strip()
    if set(text) & set("'!\\`"):
        raise ValueError("a script for devices has a character that a login shell may change")
    return [*flags, "-c", _LOADER, text.replace("\n", "`"), mark, ",".join(modules), *arguments]


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
        lacking: modules of the standard library that its Python lacks, separated by spaces.
        error: `space` for a full disk, `os` for another error of the system, `digest` for damaged bytes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    edgeq: Literal[1]
    python: Annotated[tuple[int, ...], Field(min_length=2, strict=False)]
    home: str
    sha256: str | None = None
    lacking: str | None = None
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
    frame = Frame(device.name, start_s=2 * timeout_s, answer_s=2 * timeout_s)
    arguments = [verb, device.home, agent.name, agent.sha256, str(len(agent.data))]
    modules = (*START_MODULES, *(AGENT_MODULES if verb == "place" else ()))
    running = transport.run(
        frame.argv([device.python, *python_argv(SCRIPT, arguments, mark=frame.mark, modules=modules)]),
        stdin=frame.stdin([agent.data]) if verb == "place" else (),
        limits=Limits(first_s=2 * timeout_s, silence_s=2 * timeout_s, total_s=4 * timeout_s),
    )
    response: ScriptResponse | None = None
    for line in frame.lines(running):
        if response is None and (response := script_response(line)) is not None:
            running.expect_end(END_S)
    ended = running.ended()
    if not frame.started:
        raise frame.not_started(ended, problem=other_service(transport))
    if response is None:
        raise no_python(device, ended)
    if response.lacking:
        raise lacks_modules(device, response.lacking.split())
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


def other_service(transport: Transport) -> str | None:
    """Return what answers instead of the command, if that can be found out; None otherwise."""
    word = secrets.token_hex(8)
    if _answers(transport, f"\necho {word}\n".encode(), word.encode(), hold_s=0.0):
        return "a start file replaces the login shell with another shell (`exec`)"
    if _answers(transport, _SFTP_HELLO, _SFTP_VERSION, hold_s=_HOLD_S):
        return "its SSH server offers sftp only (ForceCommand)"
    return None


def _answers(transport: Transport, question: bytes, answer: bytes, *, hold_s: float) -> bool:
    """Return whether whatever runs answers a question on its input, which is held open for `hold_s`."""
    answered = threading.Event()

    def stdin() -> Iterator[bytes]:
        yield question
        answered.wait(hold_s)

    limits = Limits(first_s=_LOOK_S, silence_s=_LOOK_S, total_s=_LOOK_S)
    running = transport.run(["true"], stdin=stdin(), limits=limits)
    running.expect_end(_LOOK_S / 2)
    if any(answer in line for line in running.lines()):
        answered.set()
    running.ended()
    return answered.is_set()


def no_python(device: Device, ended: Ended) -> DeviceUnsupported:
    """Return the error for a device whose Python does not run, or ends before it answers."""
    if lacking := LACKING.search(ended.stderr):
        return lacks_modules(device, [next(name for name in lacking.groups() if name)])
    reason = ended.stderr.splitlines()[-1] if ended.stderr else f"exit status {ended.exit_status}"
    return DeviceUnsupported(
        device.name,
        f"{device.python} does not run: {reason}",
        hint="install Python 3.7 or later on the device, or pass its path: --python /path/to/python3, "
        "or `python` in devices.toml",
    )


def lacks_modules(device: Device, names: Sequence[str]) -> DeviceUnsupported:
    """Return the error for a Python that lacks modules of the standard library."""
    return DeviceUnsupported(
        device.name,
        f"{device.python} lacks {', '.join(names)} of the standard library",
        expected="a complete Python 3.7 or later",
        hint="install the complete Python of the device's system (apt-get install python3), rebuild it with "
        "the missing libraries, or set the path of another: --python, or `python` in devices.toml",
    )
