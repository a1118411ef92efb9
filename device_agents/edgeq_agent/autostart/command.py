"""Runs another program of the device, bounded in time, and returns what it said."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

_LIMIT_S = 60.0
_MISSING = 127


class Said(NamedTuple):
    """How a program ended: its exit status (127: it is not there) and its output, both streams."""

    status: int
    text: str

    @property
    def line(self) -> str:
        """The last line, for messages."""
        lines = self.text.strip().splitlines()
        return lines[-1].strip()[:200] if lines else f"exit status {self.status}"


def run(argv: list[str], stdin: bytes = b"", limit_s: float = _LIMIT_S) -> Said:
    """Run `argv` (no shell) with `stdin`."""
    environment = dict(os.environ, LC_ALL="C", SYSTEMD_PAGER="", SYSTEMD_COLORS="0")
    # A login without a session of systemd's own does not name it.
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
            env=environment,
        )
    except OSError as error:
        return Said(_MISSING, f"{argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Said(_MISSING, f"{argv[0]} did not end within {limit_s:g} s")
    return Said(done.returncode, done.stdout.decode("utf-8", "replace"))
