"""Build a virtual environment from wheels that are on the device, without pip and without a network."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from typing import NamedTuple

from edgeq_agent.blobs import blob_store
from edgeq_agent.errors import BLOB_MISSING, DEADLINE, UNSUPPORTED, AgentError
from edgeq_agent.runtimes import wheels
from edgeq_agent.storage import disk, scratch
from edgeq_agent.storage.home import Home

# The files that `python -m venv --without-pip` makes.
_VENV_FILES = 32


class WheelBlob(NamedTuple):
    """A wheel by its file name and the SHA-256 of its blob."""

    name: str
    sha256: str


def check_wheels(home: Home, packages: list[WheelBlob]) -> None:
    """Refuse wheels that are missing, damaged, or do not fit on the device when unpacked.

    Raises:
        AgentError: EQ501 space, EQ503 a wheel is not valid, EQ509 a wheel is not on the device.
    """
    size_bytes, count = 0, _VENV_FILES
    for name, sha256 in packages:
        if not blob_store.is_intact(home, sha256):
            scratch.remove(home.blob(sha256))
            raise AgentError(BLOB_MISSING, name, "not on the device", expected=sha256, hint="send it first")
        unpacked_bytes, members = wheels.unpacked_size(home.blob(sha256), name)
        size_bytes, count = size_bytes + unpacked_bytes, count + members
    blob_store.check_space(home, f"runtime of {len(packages)} wheels", size_bytes, count)


def make(folder: str, packages: list[WheelBlob], timeout_s: float) -> None:
    """Make an empty virtual environment for these wheels.

    Raises:
        AgentError: EQ503, Python cannot make one; EQ511, it did not end in time.
    """
    # Where there is no numpy wheel for the device (32-bit ARM), the runtime uses that of the system's Python.
    share_packages = not any(wheel.name.startswith("numpy-") for wheel in packages)
    make_venv(folder, share_packages, timeout_s)


def make_venv(folder: str, share_packages: bool, timeout_s: float) -> None:
    """Run `python -m venv`; with `share_packages` it sees the packages of the system's Python."""
    # Without pip: the agent unpacks the wheels itself, and installing pip takes 20 s on a slow board.
    command = [sys.executable, "-m", "venv", "--without-pip"]
    try:
        process = subprocess.run(
            [*command, *(["--system-site-packages"] if share_packages else []), folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AgentError(DEADLINE, "venv", f"not made within {timeout_s:g} s") from error
    if process.returncode != 0:
        last = process.stdout.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise AgentError(
            UNSUPPORTED,
            "venv",
            "python -m venv failed: " + "".join(last),
            hint="install python3-venv on the device",
        )
    # The module copies its activation scripts with the modes that they have in Python's own folder.
    for path in glob.glob(os.path.join(glob.escape(folder), "bin", "*")):
        if not os.path.islink(path):
            disk.chmod(path, os.stat(path).st_mode & 0o700)


def unpack(home: Home, packages: list[WheelBlob], folder: str) -> None:
    """Unpack wheels into a virtual environment.

    Raises:
        AgentError: EQ503, a wheel is damaged, or the environment has no site-packages.
    """
    sites = glob.glob(os.path.join(glob.escape(folder), "lib", "python*", "site-packages"))
    if len(sites) != 1:
        raise AgentError(UNSUPPORTED, "venv", expected="one site-packages folder", got=str(len(sites)))
    for name, sha256 in packages:
        wheels.unpack(home.blob(sha256), name, sites[0])
