"""Requirements of the lab's parts, and the reason why a part cannot run on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

BINFMT = Path("/proc/sys/fs/binfmt_misc")
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"

# Tool -> the Debian package that has it.
PACKAGES = {
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "patchelf": "patchelf",
    "qemu-system-aarch64": "qemu-system-arm",
    "mke2fs": "e2fsprogs",
    "cpio": "cpio",
    "systemd-sysusers": "systemd",
}
ROOTS = ("mmdebstrap", "unshare", "setpriv", "ssh-keygen")
NETWORK = ("ip", "tc", "nft", "nsenter")
EMULATION = ("qemu-aarch64-static",)
TERMUX = ("patchelf",)
MACHINE = ("qemu-system-aarch64", "mke2fs", "cpio", "systemd-sysusers")
# What the tests marked `lab` use together.
LAB = (*ROOTS, *NETWORK, *EMULATION, *TERMUX)


def tool(name: str) -> str:
    """Return a tool's path, also where an ordinary user's PATH has no sbin; the name where it is missing."""
    return shutil.which(name, path=SBIN) or name


def missing(tools: Iterable[str], *, root: bool = True) -> str | None:
    """Return why something cannot run here, with what to install; None when it can."""
    if root and os.getuid() != 0:
        return "the lab's namespaces need root"
    absent = [name for name in tools if shutil.which(name, path=SBIN) is None]
    if absent:
        packages = " ".join(sorted({PACKAGES[name] for name in absent}))
        return f"not installed: {', '.join(absent)} (apt-get install {packages})"
    if root and not _allowed():
        return "this machine lets not even root make namespaces and mounts (a container without privileges?)"
    if "qemu-aarch64-static" in tools and not registered("aarch64"):
        return (
            "the kernel does not start ARM programs "
            f"(mount -t binfmt_misc binfmt_misc {BINFMT}; apt-get install binfmt-support; "
            "update-binfmts --enable)"
        )
    return None


@cache
def _allowed() -> bool:
    argv = [tool("unshare"), "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "lab", "/mnt"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def registered(machine: str) -> bool:
    """Return whether the kernel runs programs of a machine (`aarch64`, `arm`) with qemu."""
    entry = BINFMT / f"qemu-{machine}"
    # F: the kernel keeps the interpreter open, so that no copy of it is needed below a chroot.
    return entry.is_file() and "F" in next(
        (line for line in entry.read_text().splitlines() if line.startswith("flags:")), ""
    ).removeprefix("flags:")
