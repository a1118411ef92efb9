"""pyinfra with edgeq's task: the same files to as many devices, and the same commands there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.deploy_sshd import Sshd

_INVENTORY = """\
hosts = [
    (name, {{"ssh_hostname": "127.0.0.1", "ssh_port": {port}, "ssh_user": {user!r}, "ssh_key": {key!r},
            "ssh_known_hosts_file": {known!r}, "ssh_strict_host_key_checking": "yes",
            "home": {folder!r} + "/" + name}})
    for name in {names!r}
]
"""
_DEPLOY = """\
from pyinfra import host
from pyinfra.operations import files, server

home = host.data.home
files.directory(path=home + "/agent")
files.directory(path=home + "/blobs/sha256")
files.put(src={agent!r}, dest=home + "/agent/agent.pyz")
for source, digest in {blobs!r}:
    files.put(src=source, dest=home + "/blobs/sha256/" + digest)
server.shell(commands=[
    "cd " + home + "/blobs/sha256 && for f in *; do echo \\"$f  $f\\"; done "
    "| sha256sum -c --quiet && sync -f .",
    "echo '{{}}' | python3 -I -S " + home + "/agent/agent.pyz probe --home " + home,
    "echo '{{}}' | python3 -I -S " + home + "/agent/agent.pyz status --home " + home,
])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The files and commands of one device."""

    agent: Path
    files: list[Path]
    at_once: int


def pyinfra_python(folder: Path) -> tuple[Path | None, str]:
    """Return an interpreter with pyinfra, `EDGEQ_PYINFRA` or that of a new venv; else the reason why not."""
    given = os.environ.get("EDGEQ_PYINFRA")
    if given:
        return Path(given), ""
    place = folder / "pyinfra-venv"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "pyinfra>=3,<4"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        return None, f"pyinfra cannot be installed: {reason[-1] if reason else 'pip failed'}"
    return python, ""


def run_pyinfra(python: Path, server: Sshd, folder: Path, job: Job, names: list[str]) -> float:
    """Return the seconds that pyinfra takes, with the start of its process and its imports.

    Raises:
        SystemExit: it failed on a device; what it said is in the message.
    """
    blobs = [(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in job.files]
    (folder / "inventory.py").write_text(
        _INVENTORY.format(
            port=server.port,
            user=server.user,
            key=str(server.identity),
            known=str(server.known_hosts),
            folder=str(server.folder),
            names=names,
        )
    )
    (folder / "deploy.py").write_text(_DEPLOY.format(agent=str(job.agent), blobs=blobs))
    argv = [str(python), "-m", "pyinfra", "-y", "--parallel", str(job.at_once), "inventory.py", "deploy.py"]
    started_s = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started_s
    if done.returncode:
        raise SystemExit(f"pyinfra failed:\n{done.stderr[-2000:]}")
    sys.stderr.flush()
    return seconds
