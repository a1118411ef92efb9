"""A root laid out like Android with Termux, made of a Debian root: true in paths, users and missing things.

Everything lives below /data/data/com.termux/files: no /usr, /tmp, /home, /run or /var, a `/bin/sh` that is
Android's, one ordinary user. The programs are Debian's, their loader and library paths rewritten: the C
library is glibc. `sitecustomize` makes Python say what it says on a phone (no CS_GNU_LIBC_VERSION, and
`sys.getandroidapilevel`), so that the choice of wheels sees what it would see there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

from tests.lab import cache, roots
from tests.lab.device import Spec
from tests.lab.roots import Recipe

FILES = "/data/data/com.termux/files"
PREFIX = f"{FILES}/usr"
HOME = f"{FILES}/home"
USER, UID = "u0_a157", 10157
PORT = 8022
# An address of its own, so that the port is free there whatever else listens on this machine.
HOST = "127.0.3.1"

_PROGRAMS = (
    *(
        "bash",
        "dash",
        "cat",
        "cp",
        "mv",
        "rm",
        "ls",
        "ln",
        "mkdir",
        "rmdir",
        "chmod",
        "touch",
        "stat",
        "head",
    ),
    *(
        "tail",
        "wc",
        "sort",
        "cut",
        "tr",
        "sed",
        "grep",
        "mawk",
        "find",
        "xargs",
        "tar",
        "gzip",
        "uname",
        "id",
    ),
    *("whoami", "env", "date", "sleep", "df", "du", "ps", "kill", "nproc", "readlink", "dirname", "basename"),
    *("mktemp", "sync", "test", "true", "false", "echo", "printf", "nohup", "setsid", "timeout", "getconf"),
)
_BIONIC = '''"""What Android's own builds of Python say of their C library."""
import os
import sys

_confstr = os.confstr


def confstr(name):
    if name == "CS_GNU_LIBC_VERSION":
        raise ValueError("unrecognized configuration name")
    return _confstr(name)


os.confstr = confstr
sys.getandroidapilevel = lambda: 24
'''
_ENVIRONMENT = {
    "PREFIX": PREFIX,
    "HOME": HOME,
    "TMPDIR": f"{PREFIX}/tmp",
    "PATH": f"{PREFIX}/bin",
    "ANDROID_ROOT": "/system",
    "ANDROID_DATA": "/data",
    "TERMUX_VERSION": "0.118.1",
    "LANG": "en_US.UTF-8",
}


def termux(recipe: Recipe) -> Spec:
    """Return a phone with Termux, built of a Debian root; see `HOST` and `PORT`."""
    key = cache.key_of(asdict(recipe), __file__, roots.__file__)
    root = cache.built(
        f"termux-{recipe.arch}", key, lambda place: _Builder(roots.root_of(recipe), place).build()
    )
    return Spec(
        layers=(root,),
        user=USER,
        uid=UID,
        server_uid=UID,
        home=HOME,
        sshd=(f"{PREFIX}/bin/sshd", "-f", f"{PREFIX}/etc/ssh/sshd_config"),
        host_key=f"{PREFIX}/etc/ssh/ssh_host_ed25519_key",
        environment={"PATH": f"{PREFIX}/bin"},
        tmpfs={},
        shared_memory=False,
        proc_options="hidepid=2",
        read_only=("/system",),
    )


class _Builder:
    """Moves programs, with the libraries that they need, from a Debian root to Termux's places."""

    def __init__(self, source: Path, place: Path) -> None:
        self._source = source
        self._place = place
        self._done: set[str] = set()
        self._libraries = [source / "lib", *source.glob("usr/lib/*-linux-gnu*")]

    def build(self) -> None:
        self._folders()
        for name in _PROGRAMS:
            self._program(self._debian_program(name), f"{PREFIX}/bin/{name}")
        python = self._debian_program("python3").resolve().name
        self._program(self._debian_program(python), f"{PREFIX}/bin/{python}")
        self._program(self._debian_program("sshd"), f"{PREFIX}/bin/sshd")
        self._program(self._source / "usr/lib/openssh/sftp-server", f"{PREFIX}/libexec/sftp-server")
        self._standard_library(python)
        for library in ("libstdc++.so.6", "libgcc_s.so.1", "libnss_files.so.2"):
            self._library(library)
        for name, target in {"python3": python, "python": python, "awk": "mawk", "sh": "bash"}.items():
            self._at(f"{PREFIX}/bin/{name}").symlink_to(target)
        self._system()
        subprocess.run(["chown", "-R", f"{UID}:{UID}", self._at(FILES)], check=True)

    def _folders(self) -> None:
        inside = ("bin", "lib", "libexec", "etc/ssh", "tmp", "var/run", "var/log", "share")
        outside = (HOME, "/system/bin", "/system/etc", "/data/local/tmp", "/proc", "/dev", "/sys", "/sdcard")
        for folder in (*(f"{PREFIX}/{name}" for name in inside), *outside):
            self._at(folder).mkdir(parents=True)
        self._at("/bin").symlink_to("/system/bin")
        self._at("/etc").symlink_to("/system/etc")

    def _at(self, path: str) -> Path:
        return self._place / path.lstrip("/")

    def _debian_program(self, name: str) -> Path:
        for folder in ("usr/bin", "usr/sbin"):
            if (path := self._source / folder / name).exists():
                return path.resolve()
        raise FileNotFoundError(f"the Debian root has no {name}")

    def _program(self, source: Path, target: str) -> None:
        """Copy a program and what it needs, and point it to Termux's loader and libraries."""
        shutil.copyfile(source, self._at(target))
        self._at(target).chmod(0o755)
        if source.read_bytes()[:4] != b"\x7fELF":
            return
        for name in _patchelf("--print-needed", str(source)).split():
            self._library(name)
        loader = Path(_patchelf("--print-interpreter", str(source)).strip()).name
        self._library(loader)
        _patchelf("--set-rpath", f"{PREFIX}/lib", str(self._at(target)))
        _patchelf("--set-interpreter", f"{PREFIX}/lib/{loader}", str(self._at(target)))

    def _library(self, name: str) -> None:
        if name in self._done:
            return
        self._done.add(name)
        source = next((folder / name for folder in self._libraries if (folder / name).exists()), None)
        if source is None:
            raise FileNotFoundError(f"the Debian root has no {name}")
        target = self._at(f"{PREFIX}/lib/{name}")
        shutil.copyfile(source, target)
        target.chmod(0o755)
        for other in _patchelf("--print-needed", str(source)).split():
            self._library(other)
        if not name.startswith(("ld-linux", "libc.so")):
            _patchelf("--set-rpath", f"{PREFIX}/lib", str(target))

    def _standard_library(self, python: str) -> None:
        folder = self._at(f"{PREFIX}/lib/{python}")
        # Also its bytecode: that of the roots is believed without a look at the source.
        left_out = shutil.ignore_patterns("test", "lib2to3", "idlelib", "tkinter", "sitecustomize.*")
        shutil.copytree(self._source / "usr/lib" / python, folder, symlinks=True, ignore=left_out)
        (folder / "sitecustomize.py").write_text(_BIONIC)
        for module in (folder / "lib-dynload").glob("*.so"):
            for name in _patchelf("--print-needed", str(module)).split():
                self._library(name)
            _patchelf("--set-rpath", f"{PREFIX}/lib", str(module))

    def _system(self) -> None:
        """Make Android's own part: a shell and a few tools, and who the app's user is."""
        for name, target in {"sh": "dash", "ls": "ls", "cat": "cat", "uname": "uname", "id": "id"}.items():
            self._at(f"/system/bin/{name}").symlink_to(f"{PREFIX}/bin/{target}")
        self._at("/system/bin/app_process64").touch()
        passwd = f"root:x:0:0::/:/system/bin/sh\n{USER}:x:{UID}:{UID}::{HOME}:{PREFIX}/bin/bash\n"
        self._at("/system/etc/passwd").write_text(passwd)
        self._at("/system/etc/group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
        self._at("/system/etc/hosts").write_text("127.0.0.1 localhost\n")
        settings = " ".join(f"{name}={value}" for name, value in _ENVIRONMENT.items())
        self._at(f"{PREFIX}/etc/ssh/sshd_config").write_text(
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n"
            f"Subsystem sftp {PREFIX}/libexec/sftp-server\nSetEnv {settings}\n"
        )


def _patchelf(*argv: str) -> str:
    environment = dict(os.environ, LC_ALL="C")
    return subprocess.run(
        ["patchelf", *argv], capture_output=True, text=True, check=True, env=environment
    ).stdout
