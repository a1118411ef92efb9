"""The error boundary: what a command raises becomes one line on stderr, a hint, and an exit status."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from edgeq.cli.root import PipeClosed, root
from edgeq.errors import DiskRefused, EdgeqError, ExitStatus, InternalError

# What an operator meets and no bug: the disk is full, read-only or failing, or a right is missing.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})


def run(argv: Sequence[str]) -> ExitStatus:
    """Run one command line."""
    as_json = "--json" in argv
    debug = "--debug" in argv or bool(os.environ.get("EDGEQ_DEBUG"))
    try:
        status = root.main(args=list(argv), prog_name="edgeq", standalone_mode=False)
    except EdgeqError as error:
        if debug:
            traceback.print_exc()
        return report(error, as_json=as_json)
    except click.exceptions.Exit as leave:
        return ExitStatus(leave.exit_code)
    except click.UsageError as error:
        return _usage(error, as_json=as_json)
    except click.ClickException as error:
        return report(EdgeqError("edgeq", error.format_message()), as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; everything up to the last finished step is kept")
        return ExitStatus.INTERRUPTED
    except PipeClosed:
        return _broken_pipe()
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug gets a log file, not a traceback
        if debug:
            traceback.print_exc()
        return report(_of_the_disk(error) or _bug(error), as_json=as_json)
    # With standalone_mode=False click returns an Exit's code, or else what the command returned.
    return ExitStatus(status) if isinstance(status, int) else ExitStatus.OK


def report(error: EdgeqError, *, as_json: bool) -> ExitStatus:
    """Print an error and return its exit status."""
    if as_json:
        sys.stdout.write(json.dumps({"schema": "edgeq.error/1", "error": error.to_dict()}) + "\n")
    _say(f"error[{error.reported_code}]: {error.message}")
    if error.hint:
        _say(f"hint: {error.hint}")
    return error.exit_status


def _usage(error: click.UsageError, *, as_json: bool) -> ExitStatus:
    command = error.ctx.command_path if error.ctx else "edgeq"
    # click may spread its message over lines; one error is one line here.
    message = " ".join(error.format_message().split())
    from edgeq.errors import UsageError

    return report(UsageError(command, message, hint=f"run `{command} -h`"), as_json=as_json)


def _broken_pipe() -> ExitStatus:
    # The reader of a pipe went away (`edgeq ... | head`): no error of ours. Standard output is pointed at
    # nothing, since Python would flush it once more at exit and complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return ExitStatus.BROKEN_PIPE


def _of_the_disk(error: Exception) -> DiskRefused | None:
    """Return the error for a disk or a right that stands in the way; None for all others."""
    if not isinstance(error, OSError) or error.errno not in _DISK:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    subject = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else "disk"
    hint = "free space there, then run the same command again" if full else None
    return DiskRefused(str(subject), f"cannot be used: {os.strerror(error.errno or 0)}", hint=hint)


def _bug(error: Exception) -> InternalError:
    path = Path(f"edgeq-crash-{os.getpid()}.log")
    text = "".join(traceback.format_exception(error))
    try:
        path.write_text(text, encoding="utf-8")
        where = f"the details are in {path}"
    except OSError:
        sys.stderr.write(text)
        where = "the details are above"
    summary = " ".join(str(error).split())[:300]
    return InternalError(
        "edgeq", f"a bug: {type(error).__name__}: {summary}", hint=f"please report it; {where}"
    )


def _say(line: str) -> None:
    sys.stderr.write(" ".join(line.split()) + "\n")
