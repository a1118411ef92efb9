"""The first call of a connection in one go: the script that finds the agent file whole also runs it.

A start of Python and three round trips less than looking first. Meanwhile it takes in what arrives: the
device's SSH server lets the host send on only when somebody reads, and Python takes its time to start. Like
the bootstrap's, the script is fixed text; what varies comes as arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from edgeq.fleet.agent.bootstrap import Placed, Placement, is_ours
from edgeq.fleet.agent.file import AgentFile
from edgeq.values import Device

# Nobody's PYTHONPATH takes part. The device's own packages do: the agent tells which it has.
FLAGS = ("-I",)
# What start-up files may print before ours.
_NOISE_LINES = 64

_SCRIPT = r"""
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
sys.stdout.write("\n" + json.dumps(answer) + "\n")
sys.stdout.flush()
if got == digest and sys.version_info >= (3, 7):
    switch = getattr(sys, "setswitchinterval", lambda seconds: None)
    switch(0.001)  # else each piece waits while a module is imported
    sys.path.insert(0, path)
    from edgeq_agent.__main__ import main
    os.write(wake[1], b".")
    ended.acquire()
    switch(0.005)
    main([verb, "--home", home], b"".join(early))
"""


class NotPlaced(Exception):
    """The agent file is not there, or not ours: nothing was run."""


def command(device: Device, agent: AgentFile, verb: str) -> list[str]:
    """Return the command that runs a verb where the agent file is whole, and tells where it is."""
    return [device.python, *FLAGS, "-c", _SCRIPT, device.home, agent.name, agent.sha256, verb]


def read_placement(lines: Iterator[bytes], agent: AgentFile) -> Placement | None:
    """Take the script's own line from an answer, and return where the agent is; None: it said nothing.

    Raises:
        NotPlaced: the file must be placed first.
    """
    for _, line in zip(range(_NOISE_LINES), lines, strict=False):
        found = _parsed(line)
        if found is None:
            continue
        version = ".".join(map(str, found["python"]))
        if found.get("sha256") != agent.sha256 or tuple(found["python"][:2]) < (3, 7):
            raise NotPlaced
        home = str(found["home"])
        return Placement(
            path=f"{home}/agent/{agent.name}", home=home, python=version, action=Placed.SAME, sent_bytes=0
        )
    return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return answer if is_ours(answer) else None
