"""Run another program with a timeout and return its output."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

from edgeq_agent.storage.code_folder import CODE

_TIMEOUT_S = 60.0
_NOT_RUN = 127


class Output(NamedTuple):
    """How a program ended: its exit status (127: it did not start or did not end) and both its streams."""

    status: int
    text: str

    @property
    def last_line(self) -> str:
        """The last line, for messages."""
        lines = self.text.strip().splitlines()
        return lines[-1].strip()[:200] if lines else f"exit status {self.status}"


def run(argv: list[str], stdin: bytes = b"", timeout_s: float = _TIMEOUT_S) -> Output:
    """Run `argv`, without a shell."""
    environment = dict(os.environ, LC_ALL="C", SYSTEMD_PAGER="", SYSTEMD_COLORS="0")
    # systemctl --user needs it, and a login that systemd does not manage lacks it.
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    try:
        process = subprocess.run(
            argv,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except OSError as error:
        return Output(_NOT_RUN, f"{argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Output(_NOT_RUN, f"{argv[0]} did not end within {timeout_s:g} s")
    return Output(process.returncode, process.stdout.decode("utf-8", "replace"))


def python(statement: str, *words: str) -> list[str]:
    """Return the command that runs a statement in a new interpreter, with this agent's package importable."""
    return [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {CODE!r}); {statement}", *words]


def agent(*words: str) -> list[str]:
    """Return the command that runs this agent with the given arguments."""
    return python("from edgeq_agent.__main__ import main; main(sys.argv[1:])", *words)
