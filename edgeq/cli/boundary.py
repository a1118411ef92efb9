"""Error boundary: turn an exception into one line on stderr, a hint, and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from edgeq.cli.root import PipeClosed, root
from edgeq.errors import EdgeqError, ExitStatus


def run(argv: Sequence[str]) -> ExitStatus:
    """Run one command line."""
    as_json = "--json" in argv
    debug = "--debug" in argv or bool(os.environ.get("EDGEQ_DEBUG"))
    try:
        status = root.main(args=list(argv), prog_name="edgeq", standalone_mode=False)
    except EdgeqError as error:
        if debug:
            _print_traceback()
        from edgeq.cli.hints import fit  # only a failure needs it

        fit(error, argv)
        return report(error, as_json=as_json)
    except click.exceptions.Exit as leave:
        return ExitStatus(leave.exit_code)
    except click.UsageError as error:
        return _usage(error, as_json=as_json)
    except click.ClickException as error:
        return report(EdgeqError("edgeq", error.format_message()), as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; finished steps are kept")
        return ExitStatus.INTERRUPTED
    except PipeClosed:
        return _broken_pipe()
    except Exception as error:  # noqa: BLE001 - the last resort: a bug gets a log file, not a traceback
        if debug:
            _print_traceback()
        from edgeq.crash import unexpected  # only a failure needs it

        return report(unexpected(error), as_json=as_json)
    # With standalone_mode=False click returns the code of an Exit, or the command's return value.
    return ExitStatus(status) if isinstance(status, int) else ExitStatus.OK


def report(error: EdgeqError, *, as_json: bool) -> ExitStatus:
    """Print an error and return its exit status."""
    if as_json:
        import json  # here and below: `edgeq --help` needs none of it

        # ASCII: no control character of a device's text reaches the terminal.
        sys.stdout.write(json.dumps({"schema": "edgeq.error/1", "error": error.to_dict()}) + "\n")
    _say(f"error[{error.reported_code}]: {error.message}")
    if error.hint:
        _say(f"hint: {error.hint}")
    return error.exit_status


def _usage(error: click.UsageError, *, as_json: bool) -> ExitStatus:
    command = error.ctx.command_path if error.ctx else "edgeq"
    # click may wrap its message; an error is one line here.
    message = " ".join(error.format_message().split())
    from edgeq.errors import UsageError

    return report(UsageError(command, message, hint=f"run `{command} -h`"), as_json=as_json)


def _broken_pipe() -> ExitStatus:
    # The reader closed the pipe (`edgeq ... | head`), which is not an error of edgeq. Point stdout at
    # /dev/null, because Python flushes it once more at exit and would print an error then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return ExitStatus.BROKEN_PIPE


def _print_traceback() -> None:
    import traceback

    from edgeq.text import several_lines

    sys.stderr.write(several_lines(traceback.format_exc()))


def _say(line: str) -> None:
    from edgeq.text import one_line

    sys.stderr.write(one_line(" ".join(line.split())) + "\n")
