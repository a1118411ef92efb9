"""Debian roots for devices: packages extracted, never configured, so that nothing runs under emulation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab import cache

USER, UID = "pi", 1000

# mmdebstrap's `extract` implies no package at all: what a small device has is listed.
_USERLAND = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils"),
    *("grep", "gzip", "hostname", "libc-bin", "login", "passwd", "sed", "tar", "util-linux", "mount"),
    *("ncurses-base", "ncurses-bin", "init-system-helpers", "mawk", "psmisc", "procps", "libstdc++6"),
    *("openssh-server", "openssh-sftp-server"),
)
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
_BUILD_S = 900
_SSHD = """PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
UseDNS no
Subsystem sftp /usr/lib/openssh/sftp-server
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a root is made of.

    Attributes:
        arch: Debian's name: `amd64`, `arm64`, `armhf`.
        python: the package that has the interpreter; PyPy is linked as `python3`.
        packages: beyond the interpreter, sshd and a small userland.
    """

    arch: str
    suite: str = "bookworm"
    python: str = "python3"
    packages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people: `bookworm-arm64-python3`."""
        return f"{self.suite}-{self.arch}-{self.python}"


def root_of(recipe: Recipe) -> Path:
    """Return the built root; a change of the recipe or of this file builds a new one."""
    return cache.built(
        recipe.name, cache.key_of(asdict(recipe), __file__), lambda place: build(recipe, place)
    )


def build(recipe: Recipe, place: Path) -> None:
    """Extract the packages into `place`, and make by hand the little that their scripts would have made."""
    packages = [*_USERLAND, recipe.python, *recipe.packages]
    if recipe.python == "python3":
        packages.append("python3-venv")
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--architectures={recipe.arch}"]
    argv += [f"--hook-dir={_MERGED_USR}", "--dpkgopt=force-unsafe-io", f"--include={','.join(packages)}"]
    done = subprocess.run(
        [*argv, recipe.suite, str(place), mirror()],
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"mmdebstrap, {recipe.name}: {done.stderr[-2000:]}")
    _accounts(place)
    _links(place, recipe)
    _compile(place)
    for pattern in ("var/lib/apt/lists/*", "var/cache/apt/*.bin", "usr/share/doc", "usr/share/man"):
        for path in place.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in ("run/sshd", "etc/ssh", "proc", "sys", "dev", "tmp", "var/tmp"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (place / folder).chmod(0o1777)
    (place / "etc/ssh/sshd_config").write_text(_SSHD)


def mirror() -> str:
    """Return the Debian mirror that this machine's own apt uses; EDGEQ_LAB_MIRROR names another."""
    if chosen := _MIRROR:
        return chosen
    argv = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]
    sites = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    for site in sites:
        if re.search(r"/debian/?$", site):
            return site
    raise RuntimeError(f"apt knows no Debian mirror (EDGEQ_LAB_MIRROR names one); it has {sites}")


# Read once: the tests take EDGEQ_* out of their environment.
_MIRROR = os.environ.get("EDGEQ_LAB_MIRROR")


def _accounts(place: Path) -> None:
    etc, share = place / "etc", place / "usr/share"
    passwd = (share / "base-passwd/passwd.master").read_text()
    passwd += "sshd:x:104:65534::/run/sshd:/usr/sbin/nologin\n"
    passwd += f"{USER}:x:{UID}:{UID}:,,,:/home/{USER}:/bin/bash\n"
    (etc / "passwd").write_text(passwd)
    (etc / "group").write_text((share / "base-passwd/group.master").read_text() + f"{USER}:x:{UID}:\n")
    # `*`: no password matches it, and sshd does not treat the account as locked.
    shadow = [f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in passwd.splitlines()]
    (etc / "shadow").write_text("".join(shadow))
    (etc / "shadow").chmod(0o640)
    shutil.copyfile(share / "libc-bin/nsswitch.conf", etc / "nsswitch.conf")
    shutil.copyfile(share / "base-files/profile", etc / "profile")
    home = place / "home" / USER
    home.mkdir(parents=True)
    os.chown(home, UID, UID)


def _links(place: Path, recipe: Recipe) -> None:
    """Make the links that maintainer scripts and update-alternatives would make."""
    targets = {"usr/bin/sh": "dash", "usr/bin/awk": "mawk"}
    if recipe.python.startswith("pypy"):
        targets["usr/bin/python3"] = recipe.python
    for name, target in targets.items():
        if not (place / name).is_symlink() and not (place / name).exists():
            (place / name).symlink_to(target)
    for library in ("blas", "lapack"):
        for path in place.glob(f"usr/lib/*/{library}/lib{library}.so.3"):
            (path.parents[1] / path.name).symlink_to(f"{library}/{path.name}")


def _compile(place: Path) -> None:
    """Write the .pyc files that an installed Python has: bytecode does not depend on the processor.

    Without them each start on the device costs 0.2 s more; without a matching Python here it does.
    """
    for folder in (place / "usr/lib").glob("python3.[0-9]*"):
        version = folder.name.removeprefix("python")
        own = "{}.{}".format(*sys.version_info[:2])
        python = sys.executable if version == own else shutil.which(f"python{version}")
        if python is None:
            continue
        argv = [python, "-m", "compileall", "-q", "-j0", "--invalidation-mode", "unchecked-hash"]
        argv += ["-s", str(place), "-x", "bad_|/test/|lib2to3/tests", str(folder)]
        # Some files of the standard library's own tests are broken on purpose: the status says nothing.
        subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
