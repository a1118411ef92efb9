"""Error boundary: turn an exception into one line on stderr, a hint, and an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence

import click

from edgeq.cli import streams
from edgeq.cli.root import root
from edgeq.command_line import remember
from edgeq.errors import EdgeqError, ExitStatus


def run(argv: Sequence[str]) -> ExitStatus:
    """Run one command line."""
    own = list(argv[: argv.index("--")] if "--" in argv else argv)  # the words of another program follow `--`
    as_json = "--json" in own
    debug = "--debug" in own or bool(os.environ.get("EDGEQ_DEBUG"))
    remember(argv)
    with streams.guarded():
        status = ExitStatus.OK
        try:
            status = _run(argv, as_json=as_json, debug=debug)
            sys.stdout.flush()  # a short output meets a closed pipe here, not at exit
        except streams.ResultsRefused as refused:
            streams.discard_results()
            reason = _refused(refused.error)
            return reason if status is ExitStatus.OK else status
        return status


def _run(argv: Sequence[str], *, as_json: bool, debug: bool) -> ExitStatus:
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
    except streams.ResultsRefused:
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: a bug gets a log file, not a traceback
        if debug:
            _print_traceback()
        from edgeq.crash import unexpected  # only a failure needs it

        return report(_not_text(error, argv) or unexpected(error), as_json=as_json)
    # With standalone_mode=False click returns the code of an Exit, or the command's return value.
    return ExitStatus(status) if isinstance(status, int) else ExitStatus.OK


def _not_text(error: Exception, argv: Sequence[str]) -> EdgeqError | None:
    """Return the error for a word that is not UTF-8, which only the name of a file may be."""
    words = [word for word in argv if any("\ud800" <= letter <= "\udfff" for letter in word)]
    if not isinstance(error, UnicodeEncodeError) or not words:
        return None
    from edgeq.errors import UsageError

    return UsageError("edgeq", expected="a text in UTF-8", got=repr(words[0][:80]))


def _refused(failure: OSError) -> ExitStatus:
    """Return the status of a command whose results could not be written."""
    if failure.errno == errno.EPIPE:  # `edgeq ... | head`: not an error of edgeq
        return ExitStatus.BROKEN_PIPE
    from edgeq.errors import DiskRefused

    text = f"cannot be written: {os.strerror(failure.errno or 0)}"
    hint = "free space where standard output is written"
    return report(DiskRefused("standard output", text, hint=hint), as_json=False)


def report(error: EdgeqError, *, as_json: bool) -> ExitStatus:
    """Print an error and return its exit status, which stays also where its document cannot be written."""
    _say(f"error[{error.reported_code}]: {error.message}")
    if error.hint:
        _say(f"hint: {error.hint}")
    if as_json:
        import json  # `edgeq --help` does not need it

        # ASCII: no control character of a device's text reaches the terminal.
        with contextlib.suppress(streams.ResultsRefused):
            sys.stdout.write(json.dumps({"schema": "edgeq.error/1", "error": error.to_dict()}) + "\n")
    return error.exit_status


def _usage(error: click.UsageError, *, as_json: bool) -> ExitStatus:
    command = error.ctx.command_path if error.ctx else "edgeq"
    # click may wrap its message; an error is one line here.
    message = " ".join(error.format_message().split())
    from edgeq.errors import UsageError

    return report(UsageError(command, message, hint=f"run `{command} -h`"), as_json=as_json)


def _print_traceback() -> None:
    import traceback

    from edgeq.text import several_lines

    streams.diagnose(several_lines(traceback.format_exc()))


def _say(line: str) -> None:
    from edgeq.text import one_line

    streams.diagnose(one_line(" ".join(line.split())))
