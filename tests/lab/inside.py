"""The first process of a device: mounts its file systems in namespaces of its own, then becomes its sshd.

Run as `unshare --mount --uts --pid --ipc --fork --kill-child python3 inside.py PLAN.json`. All that it mounts
is seen by the device alone and goes when its last process goes: nothing is left to be unmounted on the host.
Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_NODES = ("null", "zero", "full", "random", "urandom", "tty")


def main() -> None:
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    root = Path(plan["root"])
    socket.sethostname(plan["hostname"])
    options = f"lowerdir={':'.join(plan['lower'])},upperdir={plan['upper']},workdir={plan['work']}"
    mount("overlay", "overlay", root, options)
    mount("proc", "proc", root / "proc", plan["proc_options"])
    mount("tmpfs", "dev", root / "dev", "mode=755,size=64m")
    mount("tmpfs", "sys", root / "sys", "mode=755,size=1m")
    for folder, settings in plan["tmpfs"].items():
        mount("tmpfs", "tmpfs", root / folder.lstrip("/"), settings)
    devices(root, shared_memory=plan["shared_memory"])
    for path, text in plan["files"].items():
        write(root / path.lstrip("/"), text)
    # procfs takes no new files: those of the board cover the kernel's.
    for name, text in plan["proc"].items():
        source = root / "dev" / f".{name}"
        write(source, text)
        subprocess.run(["mount", "--bind", "-o", "ro", source, root / "proc" / name], check=True)
    for folder in plan["read_only"]:
        path = root / folder.lstrip("/")
        subprocess.run(["mount", "--bind", "-o", "ro", path, path], check=True)
    os.chroot(root)
    os.chdir("/")
    become(plan["argv"], plan["environment"], plan["uid"])


def mount(kind: str, source: str, target: Path, options: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", kind, *(["-o", options] if options else []), source, target], check=True)


def devices(root: Path, *, shared_memory: bool) -> None:
    dev = root / "dev"
    for name in _NODES:
        (dev / name).touch()
        subprocess.run(["mount", "--bind", f"/dev/{name}", dev / name], check=True)
    mount("devpts", "devpts", dev / "pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    if shared_memory:  # Android has none
        (dev / "shm").mkdir()
        (dev / "shm").chmod(0o1777)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def become(argv: list[str], environment: dict[str, str], uid: int) -> None:
    if uid == 0:
        os.execve(argv[0], argv, environment)  # noqa: S606 - an argv list, never a shell string
    # A change of user clears the parent-death signal by which unshare ends its child: the first process
    # stays root's, and the server is a child of it.
    pid = os.fork()
    if pid == 0:
        os.setgroups([uid])
        os.setgid(uid)
        os.setuid(uid)
        os.execve(argv[0], argv, environment)  # noqa: S606 - an argv list, never a shell string
    while True:
        ended, status = os.wait()
        if ended == pid:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
