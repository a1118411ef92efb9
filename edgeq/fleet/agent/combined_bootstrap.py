"""Check the agent file and run it in one command, for the first call of a connection.

This saves a start of Python and three round trips over checking first. While Python imports the agent, a
thread reads standard input: the device's SSH server grants more window only when data is read. Like the
bootstrap's, the script is fixed text; its parameters come as arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.fleet.agent.bootstrap import (
    OLDEST_PYTHON,
    START_MODULES,
    Placement,
    PlacementAction,
    python_argv,
    script_response,
)
from edgeq.fleet.agent.file import AgentFile
from edgeq.values import Device

# Isolated mode ignores PYTHONPATH. Installed packages stay importable: the agent reports which there are.
FLAGS = ("-I",)
# Lines that shell start-up files may print before the script's own.
_NOISE_LINES = 64

SCRIPT = r"""
import _thread, fcntl, hashlib, json, os, select, sys
try:
    fcntl.fcntl(0, 1031, 1 << 20)  # F_SETPIPE_SZ of Linux: the pipe alone takes that much
except OSError:
    pass
early, wake, ended = [], os.pipe(), _thread.allocate_lock()
def take_in():
    left = 8 << 20
    try:
        while left > 0 and wake[0] not in select.select([0, wake[0]], [], [])[0]:
            piece = os.read(0, 1 << 20)
            if not piece:
                break
            early.append(piece)
            left -= len(piece)
    finally:
        ended.release()
ended.acquire()
_thread.start_new_thread(take_in, ())
home, name, digest, verb = sys.argv[1:5]
home = os.path.join(os.path.expanduser("~"), home)
path = os.path.join(home, "agent", name)
try:
    with open(path, "rb") as stream:
        got = hashlib.sha256(stream.read()).hexdigest()
except (IOError, OSError):
    got = None
answer = {"edgeq": 1, "python": list(sys.version_info[:3]), "home": home, "sha256": got}
sys.stdout.write(mark + json.dumps(answer) + chr(10))
sys.stdout.flush()
if got == digest and sys.version_info >= (3, 7):
    switch = getattr(sys, "setswitchinterval", lambda seconds: None)
    switch(0.001)  # else each piece waits while a module is imported
    sys.path.insert(0, path)
    from edgeq_agent.__main__ import main
    os.write(wake[1], bytes([46]))
    ended.acquire()
    switch(0.005)
    main([verb, "--home", home, "--mark", mark], bytes().join(early))
"""


class AgentFileMissing(Exception):
    """The agent file is missing or has other content; nothing was run."""


def command(device: Device, agent: AgentFile, verb: str, mark: str) -> list[str]:
    """Return the command that runs a verb if the agent file is intact, and reports where it is.

    Args:
        mark: precedes each line of its output.
    """
    arguments = [device.home, agent.name, agent.sha256, verb]
    return [device.python, *python_argv(SCRIPT, arguments, mark=mark, modules=START_MODULES, flags=FLAGS)]


def read_placement(lines: Iterator[bytes], agent: AgentFile) -> Placement | None:
    """Return where the agent file is, from the script's line of output; None when there is no such line.

    Raises:
        AgentFileMissing: the file must be installed first, or its Python cannot run it.
    """
    for _, line in zip(range(_NOISE_LINES), lines, strict=False):
        response = script_response(line)
        if response is None:
            continue
        if response.sha256 != agent.sha256 or response.python[:2] < OLDEST_PYTHON:
            raise AgentFileMissing
        return response.placement(agent, PlacementAction.SAME)
    return None
