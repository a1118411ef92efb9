"""The command line: a lazy group of commands, and the boundary where errors become exit statuses."""

from __future__ import annotations

import sys

from edgeq.errors import ExitStatus


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status; the console script's entry point."""
    from edgeq.cli.boundary import run

    return int(run(sys.argv[1:] if argv is None else argv))


__all__ = ["ExitStatus", "main"]
