"""Run the agent: `edgeq-agent.pyz VERB [--home HOME] [--mark TEXT]`; one verb, one response."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import BinaryIO, NoReturn

from edgeq_agent import __version__, errors, verbs, wire
from edgeq_agent.activation import healing
from edgeq_agent.autostart import record
from edgeq_agent.calls.call import Call, Response, read_request
from edgeq_agent.calls.fields import bad
from edgeq_agent.calls.stdin import Stdin
from edgeq_agent.storage import damage, log_file
from edgeq_agent.storage.home import Home, locate

_USAGE = "usage: edgeq-agent VERB [--home HOME] < REQUEST\nverbs: {}\n{}".format(
    " ".join(wire.VERBS), "to serve models over HTTP: edgeq-agent serve --help\n"
)


def main(arguments: list[str] | None = None, early: bytes = b"") -> NoReturn:
    """Run one verb and exit with its status: 0 after a result, 1 after an error.

    Args:
        early: bytes that were read from standard input before.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if words in (["--version"], ["-h"], ["--help"]):
        sys.stdout.write(__version__ + "\n" if words == ["--version"] else _USAGE)
        sys.exit(0)
    if words[:1] == ["serve"]:  # not a verb of the wire format: it runs until it is stopped
        from edgeq_agent.http import serve as serve_main

        sys.exit(serve_main.main(words[1:]))
    if words[:1] in (["boot"], ["supervise"]):  # what the autostart runs
        module = importlib.import_module("edgeq_agent.autostart." + words[0])
        sys.exit(module.main(words[1:]))
    signal.signal(signal.SIGTERM, _end)
    sys.exit(run(words, Stdin(sys.stdin.fileno(), early=early), sys.stdout.buffer))


def run(words: list[str], stdin: Stdin, sink: BinaryIO) -> int:
    """Respond to one call on `sink`; return the exit status. Only SystemExit is ever raised."""
    os.umask(0o077)
    words, mark = _option("--mark", words)
    response = Response(sink, os.fsencode(mark or ""))
    response.send(wire.hello(__version__))
    try:
        result = _call(words, stdin, response)
        last = wire.result(dict(result, **_damage(response)))
        wire.canonical(last)  # what cannot be sent is a bug, and the host gets an error
    except errors.AgentError as error:
        _damage(response)
        response.send(error.message())
        return 1
    except Exception as error:  # noqa: BLE001 - the boundary: the host always gets a last message
        _damage(response)
        response.send(_unexpected(error, words).message())
        return 1
    response.send(last)
    return 0


def _damage(response: Response) -> wire.Json:
    """Send what was damaged and repaired as progress; return it as a field of the result."""
    reports = damage.take_reports()
    for report in reports:
        response.progress("damaged", **report.to_json())
    return {"damaged": [report.to_json() for report in reports]} if reports else {}


def _call(words: list[str], stdin: Stdin, response: Response) -> wire.Json:
    verb, folder = _parse(words)
    fields = read_request(stdin)
    home = locate(folder)
    healing.ensure(home)
    healing.heal(home, record.inspections(home))
    function = verbs.load(verb)
    if verbs.needs_recovery(function):
        _recover(home, response)
    return function(Call(fields, stdin, home, response))


def _recover(home: Home, response: Response) -> None:
    from edgeq_agent.activation import states

    # The recovery is imported only when there is something to recover, so that a probe stays quick.
    if states.pending(home):
        from edgeq_agent.activation import recovery

        recovery.recover_pending(home, response)


def _parse(words: list[str]) -> tuple[str, str | None]:
    rest, folder = _option("--home", words)
    if len(rest) != 1 or rest[0] not in wire.VERBS:
        raise bad("verb", "one of " + " ".join(wire.VERBS), " ".join(rest))
    return rest[0], folder


def _option(name: str, words: list[str]) -> tuple[list[str], str | None]:
    """Return the words without an option, and its value; an option without a value stays."""
    if name not in words[:-1]:
        return list(words), None
    at = words.index(name)
    return words[:at] + words[at + 2 :], words[at + 1]


def _unexpected(error: Exception, words: list[str]) -> errors.AgentError:
    known = errors.from_os(error) or errors.from_import(error)
    if known is not None:
        return known
    import traceback

    traceback.print_exc()
    rest, folder = _option("--home", words)
    home = locate(folder)
    if os.path.isdir(home.root):
        problem = log_file.append(home.crash_log, " ".join(rest) + ": " + traceback.format_exc().strip())
        if problem:
            sys.stderr.write(f"edgeq-agent: the crash log cannot be written: {problem}\n")
    summary = " ".join(f"{type(error).__name__}: {error}".split())
    return errors.AgentError(errors.BUG, "edgeq-agent", "a bug: " + summary[:300])


def _end(signum: int, frame: object) -> NoReturn:
    # As an exception, so that every `finally` runs: it kills the model's process and removes files.
    sys.exit(128 + signum)


if __name__ == "__main__":
    main()
